"""Quadapter from training to the machine on a tiny GPT-2, and perplexity on texts of other distributions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from tiny_runs import PANGRAM, text_run, word_tokenizer

from hwsim import api
from qat import checkpoint
from qat.config import RunConfig
from qat.data.spec import LanguageTask
from qat.data.split import BlockSplit, token_bytes
from qat.data.task import load_task
from qat.evaluate import evaluate
from qat.exporter import export_run
from qat.loop import train
from qat.modules.norm import ChannelScale


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    train(text_run(folder, train={"steps": 60, "evaluate_every": 60}), folder / "run")
    return folder / "run"


def student(teacher: Path, steps: int, **spec: Any) -> RunConfig:
    changes = {"steps": steps, "alpha_learning_rate": 1e-3, **spec}
    return text_run(teacher.parent, "quadapter_w8a8", teacher=str(teacher), train=changes)


def test_from_training_to_the_machine(teacher: Path, tmp_path: Path) -> None:
    spec = student(teacher, 60, evaluate_every=30, learning_rate=3e-2)
    measured = train(spec, tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "train.jsonl").read_text().splitlines()]
    steps = [entry for entry in log if entry["event"] == "step"]
    assert [entry["phase"] for entry in steps] == ["blockwise"] * 30 + ["labels"] * 30
    blocks = [entry["loss_blocks"] for entry in steps[:30]]
    assert np.mean(blocks[-5:]) < 0.8 * np.mean(blocks[:5])
    assert measured.kept_step > 30

    # the weights of the finished run are the teacher's, bit for bit; the scales moved
    ours = load_file(tmp_path / "run" / "model.safetensors")
    theirs = load_file(teacher / "model.safetensors")
    assert theirs.keys() < ours.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    model = checkpoint.load(tmp_path / "run").model
    scales = [m() for m in model.modules() if isinstance(m, ChannelScale)]
    assert len(scales) == 2
    assert all(bool((scale > 0).all()) and not bool((scale == 1).all()) for scale in scales)
    assert ours["transformer.h.0.ln_2.channel_scale.log_scale"].shape == (16,)

    record = export_run(tmp_path / "run", tmp_path / "model").record
    assert not [c for c in record["a1"] if c["differing"] and c["op"] == "linear"]
    found = api.verify(tmp_path / "model", "int8_edge", samples=4)
    assert found.unequal == []
    assert found.tensors > 30


# -- perplexity --------------------------------------------------------------------------------


def test_texts_of_other_distributions_are_parts_of_the_result(teacher: Path) -> None:
    tests = json.loads((teacher / "result.json").read_text())["tests"]
    assert list(tests) == ["test", "pangram"]
    near, far = tests["test"], tests["pangram"]
    assert far["rows"] == len(PANGRAM * 20) // 24
    assert far["tokens"] == far["bytes"] == 23 * far["rows"]
    assert far["perplexity"] == far["byte_perplexity"] > 2 * near["perplexity"]


class Guess(torch.nn.Module):
    """A model that gives every next token the same chances, whatever came before."""

    device = torch.device("cpu")

    def __init__(self, chances: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(chances).log()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))


def test_perplexity_by_hand() -> None:
    # two blocks of three tokens: the first token of each is context, four are predicted
    tokens = np.array([[2, 0, 0], [1, 0, 1]])
    sizes = np.array([[9, 3, 1], [7, 2, 4]])
    split = BlockSplit("test", np.arange(2), tokens, sizes)
    task: Any = SimpleNamespace(problem="language")
    model: Any = Guess([0.5, 0.125, 0.375])
    nll = 3 * math.log(2) + math.log(8)
    values = evaluate(model, split, task)
    assert (values["rows"], values["tokens"], values["bytes"]) == (2, 4, 10)
    assert values["perplexity"] == pytest.approx(math.exp(nll / 4))
    assert values["byte_perplexity"] == pytest.approx(math.exp(nll / 10))


def test_bytes_of_tokens_by_hand() -> None:
    # "né €5": n, é (2 bytes), a space that goes to the next token, € (3 bytes) cut in two tokens, 5
    offsets = [(0, 0), (0, 1), (1, 2), (3, 4), (3, 4), (4, 5), (0, 0)]
    assert token_bytes("né €5", offsets).tolist() == [0, 1, 2, 4, 0, 1, 0]


def test_a_tokenizers_tokens_are_counted_in_bytes_of_the_text(tmp_path: Path) -> None:
    word_tokenizer().save_pretrained(tmp_path / "words")
    text = "row of sentence 7 question of row 1 of row " * 3
    (tmp_path / "text.txt").write_text(text)
    file = str(tmp_path / "text.txt")
    spec = LanguageTask(
        name="lm", train=file, dev=file, tokenizer=str(tmp_path / "words"), block_tokens=4
    )
    split = load_task(spec).tests["test"]
    assert isinstance(split, BlockSplit)
    assert len(split) == 8  # 30 words, [CLS] and [SEP]
    # "[CLS] row of sentence", "7 question of row"
    assert split.token_bytes[:2].tolist() == [[0, 3, 3, 9], [2, 9, 3, 4]]
    assert split.token_bytes.sum() == len(text.rstrip())


def test_a_text_may_not_take_the_name_of_a_part() -> None:
    with pytest.raises(ValidationError, match="ood must have names of its own, 'test' is a part"):
        LanguageTask(name="lm", ood={"test": "x.txt"})
