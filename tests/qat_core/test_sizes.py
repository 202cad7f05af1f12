"""Packed sizes of BERT-base against numbers computed by hand, without allocating one.

Counted are the weights that a recipe quantises (word embedding, encoder, pooler), without their scales.
"""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from qat.methods.layer_reduction import keep_layers
from qat.overview import Summary, summary
from qat.recipe import Recipe, load_recipe
from qat.student import prepare

MIB = 2**20


def bert_base() -> BertForSequenceClassification:
    with torch.device("meta"):
        return BertForSequenceClassification(BertConfig(num_labels=2))


def packed_bytes(rows: Summary) -> int:
    """Of the codes alone: `weight_bytes` minus biases and scales."""
    total = 0
    for row in rows:
        if row.weight == "FLOAT32" or row.kind not in ("QuantLinear", "QuantEmbedding"):
            continue
        bias = 4 * row.shape[0] if row.kind == "QuantLinear" else 0
        scales = 4 * (row.shape[0] if row.kind == "QuantEmbedding" else 1)
        total += row.weight_bytes - bias - scales
    return total


def ternary(recipe: Recipe) -> Recipe:
    """The same weights at two bits."""
    values = copy.deepcopy(recipe.model_dump(mode="json", by_alias=True))
    quantization = values["quantization"]
    operators = [quantization["linear"], quantization["roles"]["ffn2"], quantization["roles"]["pooler"]]  # fmt: skip
    for weight in (*(operator["weight"] for operator in operators), quantization["word_embedding"]):
        weight.update(format="TERNARY", method="twn")
    return Recipe.model_validate(values)


@pytest.mark.parametrize(
    ("bits", "layers", "mib"),
    [
        (1, None, 12.99),
        (2, None, 25.98),
        (1, [1, 3, 5, 7, 9, 11], 7.93),
        (1, [2, 4, 6, 8, 10], 7.08),
    ],
)
def test_packed_sizes_of_bert_base(bits: int, layers: list[int] | None, mib: float) -> None:
    recipe = load_recipe("bit_w1a1_as_released")
    model = bert_base() if layers is None else keep_layers(bert_base(), layers)
    student = prepare(model, recipe if bits == 1 else ternary(recipe))
    assert {p.device.type for p in student.parameters()} == {"meta"}
    depth = 12 if layers is None else len(layers)
    values = 30522 * 768 + depth * (4 * 768 * 768 + 2 * 768 * 3072) + 768 * 768
    assert packed_bytes(summary(student)) == values * bits // 8
    assert round(values * bits / 8 / MIB, 2) == mib


def test_recipes_sum_or_average_over_the_classes_as_their_authors_do() -> None:
    used = {
        name: logits.reduction
        for name in ("kd_w2a8", "ti_g_w2a8", "bit_w1a1", "bit_w1a2", "xtc_w1a8", "xtc_w2a8")
        if (logits := load_recipe(name).objective.logits) is not None
    }
    assert used == {
        "kd_w2a8": "sum",
        "ti_g_w2a8": "sum",
        "bit_w1a1": "mean",
        "bit_w1a2": "mean",
        "xtc_w1a8": "mean",
        "xtc_w2a8": "mean",
    }
