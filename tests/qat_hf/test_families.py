"""The families beyond BERT, ViT and GPT-2: prepared, trained a step, exported, verified bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hwsim import api
from hwsim.dataset import Rows
from hwsim.errors import GraphError
from qat.exporter import export
from qat.objective import Objective
from qat.overview import summary
from qat.quantizers.lifecycle import initialise
from qat.recipe import load_recipe
from qat.student import prepare, restore

TEXT = {"vocab_size": 30, "max_position_embeddings": 16, "num_labels": 3}
WIDE = {"hidden_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 28}  # fmt: skip
IMAGE = {"image_size": 6, "patch_size": 2, "num_channels": 2, "num_labels": 3}
FAMILIES = ("distilbert", "roberta", "deit")


def model_of(family: str) -> PreTrainedModel:
    """Every parameter random: a bias that were zero would hide the operator that loses it."""
    torch.manual_seed(5)
    model = {
        "distilbert": lambda: DistilBertForSequenceClassification(
            DistilBertConfig(dim=20, n_layers=1, n_heads=2, hidden_dim=28, **TEXT)
        ),
        "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**WIDE, **TEXT)),
        "deit": lambda: DeiTForImageClassification(DeiTConfig(**WIDE, **IMAGE)),
    }[family]()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * 0.3 + (1.0 if p.ndim == 1 and "weight" in name else 0.0))
    return model.eval()


def rows_of(family: str) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(6)
    if family == "deit":
        images = torch.randn(9, 2, 6, 6, generator=generator)
        return [{"pixel_values": x, "label": i % 3} for i, x in enumerate(images)]
    return [
        {"input_ids": torch.randint(2, 30, (2 + i,), generator=generator), "label": i % 3}
        for i in range(9)
    ]


def batch_of(family: str) -> dict[str, torch.Tensor]:
    return Rows(rows_of(family), ["input_ids", "pixel_values"], pad_id=1).batch(range(9))


@pytest.mark.parametrize("family", FAMILIES)
def test_prepared_trained_exported_verified(family: str, tmp_path: Path) -> None:
    model, batch = model_of(family), batch_of(family)
    with torch.no_grad():
        wanted = model(**batch).logits
        torch.testing.assert_close(prepare(model)(**batch).logits, wanted, rtol=1e-5, atol=1e-5)

    recipe = load_recipe("bit_w1a1")
    student = prepare(model, recipe)
    assert {row.role for row in summary(student) if row.weight == "FLOAT32"} <= {
        "embeddings", "embedding_parts", "embedding_norm", "pre_attention_norm",
        "post_attention_norm", "post_feed_forward_norm", "final_norm",
    }  # fmt: skip
    assert any(isinstance(m, torch.nn.ReLU) for m in student.modules())
    initialise(student, [batch])
    loss, _ = Objective(student.train(), model, recipe, total_steps=10)(batch, 0)
    loss.backward()
    assert [n for n, p in student.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        for p in student.parameters():
            p.sub_(0.01 * p.grad.sign())
    plain = restore(student.eval())
    assert plain.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        assert torch.isfinite(plain(**batch).logits).all()

    exported = export(student, rows_of(family), tmp_path / "model")
    assert exported.record["failures"] == []
    assert api.verify(exported, "xnor_edge").unequal == []
    assert api.run(exported, "xnor_edge", dataset=rows_of(family)).to_json()["accuracy"]["total"] == 9  # fmt: skip

    student.save_pretrained(tmp_path / "hf")
    auto = AutoModelForImageClassification if family == "deit" else AutoModelForSequenceClassification  # fmt: skip
    loaded = auto.from_pretrained(tmp_path / "hf")
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, student(**batch).logits)


def test_robertas_positions_are_counted_by_place() -> None:
    """Its own count of tokens that are not padding gives real positions the same numbers."""
    model, batch = model_of("roberta"), batch_of("roberta")
    taken: list[torch.Tensor] = []
    student = prepare(model)
    student.roberta.embeddings.position_embeddings.register_forward_pre_hook(
        lambda _, args: taken.append(args[0])
    )
    student(**batch)
    own = model.roberta.embeddings.create_position_ids_from_input_ids(batch["input_ids"], 1)
    mask = batch["attention_mask"].bool()
    assert mask.sum() < mask.numel()
    assert torch.equal(taken[0].expand_as(own)[mask], own[mask])
    longest = {"input_ids": torch.full((1, 14), 5)}
    torch.testing.assert_close(student(**longest).logits, model(**longest).logits)


def test_two_averaged_classifiers_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DeiTForImageClassificationWithTeacher(DeiTConfig(**WIDE, **IMAGE))
    student = prepare(model, "kd_w2a8")
    with pytest.raises(GraphError, match=r"operator aten\.div has no exact integer form"):
        export(student, rows_of("deit"), tmp_path / "model")


def test_a_tie_that_swapped_layers_would_break_is_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=8, n_embd=8, n_layer=2, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=0)
    )  # fmt: skip
    first, second = (layer.mlp.c_fc for layer in model.transformer.h)
    second.weight = first.weight
    with pytest.raises(GraphError, match=r"transformer\.h\.0\.mlp\.c_fc\.weight and .* are one parameter"):  # fmt: skip
        prepare(model, "kd_w2a8")
