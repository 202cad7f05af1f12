"""What transformers loads is the quantised student, bit for bit, and what it saves comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, batch_of, tiny
from tiny_texts import classifier, rows, texts, tokenizer
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    pipeline,
)

import qat.hf
from hwsim.dataset import Rows
from hwsim.errors import CheckpointError, ConfigError
from qat import checkpoint
from qat.exporter import export
from qat.hf.quantizer import BitwrightConfig, recipe_of
from qat.hf.trainer import DistillationTrainer
from qat.overview import summary
from qat.quantizers.lifecycle import freeze_ranges, initialise
from qat.recipe import load_recipe
from qat.student import is_prepared, prepare, restore

AUTO = {
    "bert": AutoModelForSequenceClassification,
    "vit": AutoModelForImageClassification,
    "gpt2": AutoModelForCausalLM,
}


def trained(family: str, recipe: str) -> PreTrainedModel:
    """A student with scales of its own and constant ranges, as at the end of a training."""
    student = prepare(tiny(family), recipe)
    initialise(student, [batch_of(family)])
    student.train()(**batch_of(family, 2))
    freeze_ranges(student)
    return student.eval()


def assert_same(a: PreTrainedModel, b: PreTrainedModel, family: str) -> None:
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, x in a.state_dict().items():
        assert torch.equal(x, b.state_dict()[name]), name
    batch = batch_of(family, 7)
    with torch.no_grad():
        assert torch.equal(a(**batch).logits, b(**batch).logits)


@pytest.mark.parametrize("recipe", ["kd_w2a8", "bit_w1a1"])
@pytest.mark.parametrize("family", FAMILIES)
def test_save_pretrained_and_from_pretrained_give_the_student_back(
    family: str, recipe: str, tmp_path: Path
) -> None:
    student = trained(family, recipe)
    student.save_pretrained(tmp_path)
    loaded = AUTO[family].from_pretrained(tmp_path)
    assert_same(loaded, student, family)
    assert recipe_of(loaded) == load_recipe(recipe)
    assert not loaded.training
    # once more, from the loaded one; and the loaded one can be taken apart like any other
    loaded.save_pretrained(tmp_path / "again")
    assert_same(AUTO[family].from_pretrained(tmp_path / "again"), student, family)
    plain = restore(loaded)
    assert not is_prepared(plain)
    assert plain.state_dict().keys() == tiny(family).state_dict().keys()
    assert recipe_of(plain) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_holds_hugging_faces_names_and_layout(family: str, tmp_path: Path) -> None:
    """What `save_pretrained` writes is what a run's folder holds, tensor by tensor."""
    student = trained(family, "bit_w1a1")
    recipe = recipe_of(student)
    assert recipe is not None
    student.save_pretrained(tmp_path / "hf")
    (tmp_path / "run").mkdir()
    checkpoint.write_model(tmp_path / "run", student, recipe, None)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "hf"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(x, theirs[name]) for name, x in ours.items())
    loaded = AUTO[family].from_pretrained(tmp_path / "run")
    assert_same(loaded, checkpoint.read_model(tmp_path / "run", recipe), family)
    shapes = {name: tuple(x.shape) for name, x in tiny(family).state_dict().items()}
    assert {name: tuple(ours[name].shape) for name in shapes if name in ours}.items() <= shapes.items()  # fmt: skip


def test_a_pipeline_answers_as_the_student_does(tmp_path: Path) -> None:
    student = prepare(classifier(), "bit_w1a1")
    data = Rows(rows(16, 2), ["input_ids", "token_type_ids"])
    initialise(student, [data.batch(range(16))])
    student.eval().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    ask = pipeline("text-classification", model=str(tmp_path), device="cpu")
    for row in texts(4, 3):
        batch = tokenizer()(row["text"], return_tensors="pt")
        with torch.no_grad():
            wanted = student(**batch).logits.softmax(-1)[0]
        (answer,) = ask(row["text"])
        assert answer["label"] == ("bad", "good")[int(wanted.argmax())]
        assert answer["score"] == pytest.approx(float(wanted.max()), rel=1e-6)
    assert is_prepared(ask.model)


def test_a_loaded_student_trains_on(tmp_path: Path) -> None:
    trained("bert", "bit_w1a1").save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).train()
    loaded(**batch_of("bert"), labels=torch.tensor([0, 1, 2])).loss.backward()
    missing = [name for name, p in loaded.named_parameters() if p.grad is None]
    assert missing == []


def test_damage_and_misuse_are_refused(tmp_path: Path) -> None:
    trained("bert", "bit_w1a1").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds a quantised BertForSequenceClassification; load that class, not BertModel"):  # fmt: skip
        AutoModel.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"must be torch\.float32, not torch\.bfloat16"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    tensors = load_file(tmp_path / "model.safetensors")
    alpha = next(name for name in tensors if name.endswith("alpha"))
    del tensors[alpha]
    save_file({**tensors, "stray": torch.ones(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError) as fault:
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert f"no tensor '{alpha}'" in str(fault.value)
    assert "tensor 'stray' fits nothing" in str(fault.value)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["recipe"]["quantization"]["residual"] = "INT99"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"quantization_config\.recipe: damaged"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tiny("bert").save_pretrained(tmp_path / "plain")
    with pytest.raises(ConfigError, match=r"becomes a student by qat\.prepare"):
        AutoModelForSequenceClassification.from_pretrained(
            tmp_path / "plain", quantization_config=BitwrightConfig(load_recipe("bit_w1a1"))
        )


def test_import_qat_alone_is_light() -> None:
    code = "import sys, qat, hwsim; print([m for m in ('torch', 'transformers', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert qat.prepare is prepare
    assert qat.export is export
    assert qat.summary is summary
    assert qat.DistillationTrainer is DistillationTrainer
    assert qat.hf.BitwrightConfig is BitwrightConfig
    with pytest.raises(AttributeError, match="module 'qat' has no attribute 'prepair'"):
        qat.prepair  # noqa: B018
