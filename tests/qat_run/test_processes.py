"""Two processes train one model as one process does."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from apart import together
from tiny_runs import word_tokenizer
from torch import Tensor

from hwsim.errors import ConfigError
from qat.config import RunConfig, run_config
from qat.loop import train

ROWS = 24
SMALL_BERT = {
    "vocab_size": 19,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
    "initializer_range": 0.2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
PER_TOKEN = {"format": "INT8", "range": "dynamic", "granularity": "token"}
STATIC = {
    "schema": "qat/recipe/1",
    "name": "learned_and_per_token",
    "description": "ranges that do not depend on the batch",
    "quantization": {
        "linear": {
            "weight": {"format": "TERNARY", "method": "twn"},
            "input": {"format": "INT8", "range": "learned"},
        },
        "roles": {"ffn2": {"weight": {"format": "INT4", "method": "absmax"}, "input": PER_TOKEN}},
        "attention": {"probabilities": {"format": "UINT8", "range": "learned"}},
        "residual": "INT16",
    },
    "objective": {"logits": {"reduction": "sum"}, "hidden": {}, "scores": {}},
    "optimizer": {"name": "bert_adam", "learning_rate": 1e-3},
}
"""Of eight bits and more: at one bit, a rounding error in the last place of a sum may turn a sign."""


def table(folder: Path) -> Path:
    """Sentences of 1 to 9 words, and a starting model with its tokenizer."""
    import transformers

    folder.mkdir()
    lines = [
        f"{'row of sentence ' * (i % 3)}{i % 10}\t{'odd' if i % 2 else 'even'}" for i in range(ROWS)
    ]
    for name in ("train.tsv", "dev.tsv"):
        (folder / name).write_text("\n".join(["text\tlabel", *lines]) + "\n")
    torch.manual_seed(1)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(**SMALL_BERT, id2label={0: "even", 1: "odd"})
    )
    model.save_pretrained(folder / "model")
    word_tokenizer().save_pretrained(folder / "model")
    return folder


def run_of(data: Path, recipe: Any, **spec: Any) -> RunConfig:
    task = {
        "text": ["text"],
        "label": "label",
        "metric": ["accuracy"],
        "train": str(data / "train.tsv"),
        "dev": str(data / "dev.tsv"),
        "validation": {"rows": 4},
    }
    train_spec = {"steps": 6, "batch_size": 8, "evaluate_every": 2, "log_every": 1}
    values = {
        "schema": "qat/run/1",
        "name": "shared",
        "task": task,
        "recipe": recipe,
        "model": {"checkpoint": str(data / "model")},
        "train": train_spec | spec,
    }
    if recipe != "float":
        values["teacher"] = str(data / "model")
    return run_config(values)


def train_and_save(config: RunConfig, out: Path, killed_at: int | None = None) -> None:
    """Train as one of a group; write down what this process has in the end, and its result."""
    import qat.loop

    runs = []
    init = qat.loop._Run.__init__

    def remember(self: Any, *args: Any) -> None:
        init(self, *args)
        runs.append(self)

    qat.loop._Run.__init__ = remember  # type: ignore[method-assign]
    if killed_at is not None:
        update = qat.loop.UpdateGradient.__call__

        def call(self: Any, step: int, rows: Any) -> dict[str, float]:
            if step == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return update(self, step, rows)

        qat.loop.UpdateGradient.__call__ = call  # type: ignore[method-assign]
    measured = train(config, out)
    rank = runs[0].accelerator.process_index
    torch.save(dict(runs[0].student.state_dict()), out.parent / f"{out.name}_{rank}.pt")
    (out.parent / f"{out.name}_{rank}.json").write_text(json.dumps(measured.validation))


def losses(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "step"]


def tensors(out: Path, rank: int) -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = torch.load(out.parent / f"{out.name}_{rank}.pt", weights_only=True)
    return loaded


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table(tmp_path_factory.mktemp("data") / "table")


# the second one: ranges per tensor, parameters that an intervention leaves without gradient, a second optimiser
@pytest.mark.parametrize("recipe", ["static", "ti_g_w2a8"])
def test_two_processes_train_what_one_does(recipe: str, data: Path, tmp_path: Path) -> None:
    config = run_of(data, STATIC if recipe == "static" else recipe)
    train(config, tmp_path / "one")
    together(train_and_save, 2, config, tmp_path / "two")
    ours, theirs = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert [line["step"] for line in ours] == [1, 2, 3, 4, 5, 6]
    for name in ("loss", "loss_logits", "loss_hidden"):  # of the same rows and weights
        assert ours[0][name] == pytest.approx(theirs[0][name], rel=1e-5)
    assert ours[-1]["loss"] == pytest.approx(theirs[-1]["loss"], rel=1e-3)
    one, two = tensors(tmp_path / "two", 0), tensors(tmp_path / "two", 1)
    assert all(torch.equal(one[name], two[name]) for name in one)
    results = [(tmp_path / f"two_{rank}.json").read_text() for rank in (0, 1)]
    assert results[0] == results[1]


def test_micro_batches_train_what_one_batch_does(data: Path, tmp_path: Path) -> None:
    whole = train(run_of(data, STATIC), tmp_path / "whole")
    split = train(run_of(data, STATIC, batch_size=2, accumulate=4), tmp_path / "split")
    ours, theirs = losses(split.folder), losses(whole.folder)
    assert ours[0]["loss"] == pytest.approx(theirs[0]["loss"], rel=1e-5)
    assert ours[-1]["loss"] == pytest.approx(theirs[-1]["loss"], rel=1e-3)


def test_a_group_that_was_killed_resumes_to_the_same_bits(data: Path, tmp_path: Path) -> None:
    # dropout too: each process draws its own, and only the first one's generators are saved
    config = run_of(data, "float", dropout=0.2, learning_rate=1e-3)
    together(train_and_save, 2, config, tmp_path / "whole")
    with pytest.raises(AssertionError):
        together(train_and_save, 2, config, tmp_path / "killed", 5)
    assert not (tmp_path / "killed" / "result.json").exists()
    together(train_and_save, 2, config, tmp_path / "killed")
    for name in ("model.safetensors", "train.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_recipes_with_ranges_per_tensor_warn_once_where_updates_are_split(
    data: Path, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=r"'w8a8' has dynamic ranges .* 2 micro-batches") as seen:
        train(run_of(data, "w8a8", batch_size=4, accumulate=2), tmp_path / "run")
    assert len([w for w in seen if "micro-batches" in str(w.message)]) == 1


def refused(config: RunConfig, out: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size: 2 processes share .* has only 1"):
        train(config, out)


def test_more_processes_than_rows_are_refused(data: Path, tmp_path: Path) -> None:
    together(refused, 2, run_of(data, "float", batch_size=1), tmp_path / "run")
