"""What a student of BERT-base's shapes with five layers takes on disk, that it comes back, and that docs/files.md says so.

Random weights, biases and layer norms: a size depends on values only where they need fewer bytes than their type has,
and zeros, as a fresh model has them, would need none.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from hwsim.calibrate import collect_ranges
from hwsim.capture import capture
from hwsim.freeze import freeze
from hwsim.graph.serialize import load, save
from hwsim.lower import lower
from hwsim.report.sizes import Sizes, sizes
from qat.recipe import load_recipe
from qat.student import prepare

MIB = 2**20
LAYERS, WIDTH, WORDS, POSITIONS = 5, 768, 30522, 512
PAGE = Path(__file__).parents[2] / "docs" / "files.md"
ONE_BIT_POOLER = """\
extends: xtc_w1a8
name: xtc_w1a8_pooler
quantization:
  overrides:
  - modules: "*.pooler.dense"
    weight: {format: BIPOLAR, method: bwn, granularity: tensor}
    input: {format: INT8, range: dynamic}
"""


def five_layers() -> BertForSequenceClassification:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=LAYERS, num_labels=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0.0, 0.1)
            elif "LayerNorm" in name:
                parameter.normal_(1.0, 0.1)
    return model


def exported(recipe: str, folder: Path) -> Sizes:
    """The steps of `qat export` without its rungs, which change no byte of graph and weights."""
    student = prepare(five_layers(), load_recipe(recipe)).eval()
    ids = torch.randint(0, WORDS, (3, 12))
    batch = {"input_ids": ids, "token_type_ids": ids % 2, "attention_mask": torch.ones_like(ids)}
    captured = capture(student, batch, POSITIONS)
    static = freeze(captured, collect_ranges(captured, [batch]))
    graph = lower(static, {"task": "sizes"}).graph
    save(folder, graph)
    model = load(folder)
    assert model.graph.nodes == graph.nodes
    assert model.graph.tensors == graph.tensors
    for name, constant in graph.constants.items():
        assert np.array_equal(model.graph.constants[name].array, constant.array)
    return sizes(model)


def recorded_sizes() -> dict[str, tuple[int, int]]:
    """The rows of the page's last table: what -> bytes with a 1-bit and with an INT8 pooler."""
    number = r"([\d,]+)"
    row = rf"^\| ([^|]+) \| ([^|]*?) ?\| [^|]* \| {number} \| {number} \|$"
    found = re.findall(row, PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        f"{what} {kind}": (int(one.replace(",", "")), int(eight.replace(",", "")))
        for what, kind, one, eight in found
    }


@pytest.mark.slow
@pytest.mark.parametrize(("pooler", "limit_mib"), [("1 bit", 8.5), ("INT8", 9.0)])
def test_five_layers_of_bert_base_on_disk(pooler: str, limit_mib: float, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        ONE_BIT_POOLER if pooler == "1 bit" else "extends: xtc_w1a8\nname: as_shipped\n"
    )
    found = exported(str(recipe), tmp_path / "model")

    on_disk = sum(path.stat().st_size for path in (tmp_path / "model").iterdir())
    assert on_disk == found.model_bytes
    assert on_disk <= limit_mib * MIB

    square = WIDTH * WIDTH
    taken = {(kind.op, kind.role, kind.format): kind.bytes for kind in found.kinds}
    encoder = LAYERS * (4 * square + 2 * WIDTH * 4 * WIDTH) // 8
    assert taken["embedding", "weight", "BIPOLAR"] == WORDS * WIDTH // 8
    assert taken["linear", "weight", "BIPOLAR"] == encoder + (square // 8) * (pooler == "1 bit")
    assert taken["linear", "weight", "INT8"] == 2 * WIDTH + square * (pooler == "INT8")
    assert taken["add", "addend", "INT16"] == 2 * POSITIONS * WIDTH
    assert taken["embedding", "M", "UINT31"] <= 4 * (WORDS + 2)
    # a multiplier a tensor, but for the pooler and classifier, whose rows have scales of their own
    assert taken["requant", "M", "UINT31"] < 4 * (WIDTH * (pooler == "INT8") + 100)

    # other values could need up to the eight bytes of a bias: the limit holds for them, too
    spare = sum(8 * kind.elements - kind.bytes for kind in found.kinds if kind.format == "INT64")
    assert on_disk + spare <= limit_mib * MIB

    column = 0 if pooler == "1 bit" else 1
    measured = {f"`{k.op}` `{k.role}` {k.format}": k.bytes for k in found.kinds}
    measured |= {f"`{name}` ": size for name, size in found.file_bytes.items()}
    measured |= {"header of `weights.safetensors` ": found.header_bytes}
    measured |= {"graph, weights and manifest ": found.model_bytes}
    recorded = {what: sizes[column] for what, sizes in recorded_sizes().items()}
    assert recorded.keys() == measured.keys()
    # a random draw may need another byte here and there
    assert recorded == pytest.approx(measured, rel=0.005, abs=300)
