"""Workloads: convolutions as products against plain loops, files with faults, costs without weights."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from hwsim import cost_workload
from hwsim.config.load import load_machine, load_workload, machines_folder
from hwsim.errors import ConfigError, GraphError
from hwsim.workload import ConvShape

HEAD = """\
schema: hwsim/workload/1
name: tiny
description: two layers
source: made up
energy_includes: nothing
layers:
"""
CONV = "conv: {image: [6, 5], channels: 4, outputs: 8, kernel: [3, 3], padding: 1}"
TYPES = "activation: INT8, weight: INT8, result: INT8"


def written(tmp_path: Path, *layers: str) -> Path:
    """Write a workload file with these layers."""
    path = tmp_path / "tiny.yaml"
    path.write_text(HEAD + "".join(f"  - {{{layer}}}\n" for layer in layers), encoding="utf-8")
    return path


def taps(conv: ConvShape, *, skip: bool) -> list[int]:
    """Return the products of each output position by walking over all windows."""
    height, width = conv.image
    found = []
    for top in range(-conv.padding, height + conv.padding - conv.kernel[0] + 1, conv.stride):
        for left in range(-conv.padding, width + conv.padding - conv.kernel[1] + 1, conv.stride):
            positions = product(range(conv.kernel[0]), range(conv.kernel[1]))
            found.append(
                sum(
                    conv.channels
                    for i, j in positions
                    if not skip or (0 <= top + i < height and 0 <= left + j < width)
                )
            )
    return found


@pytest.mark.parametrize("padding_positions", ["computed", "skipped"])
@pytest.mark.parametrize(
    ("image", "kernel", "stride", "padding"),
    [
        ([6, 5], [3, 3], 1, 1),
        ([7, 7], [3, 3], 2, 1),
        ([4, 9], [1, 5], 3, 2),
        ([8, 8], [2, 2], 2, 0),
    ],
)
def test_a_convolution_is_the_products_of_its_windows(
    image: list[int], kernel: list[int], stride: int, padding: int, padding_positions: str
) -> None:
    conv = ConvShape.model_validate(
        {
            "image": image,
            "kernel": kernel,
            "stride": stride,
            "padding": padding,
            "channels": 3,
            "outputs": 2,
            "padding_positions": padding_positions,
        }
    )
    expected = taps(conv, skip=padding_positions == "skipped")
    gemms = conv.gemms()
    assert sorted(k for g in gemms for k in [g.k] * g.m) == sorted(k for k in expected if k)
    assert {g.n for g in gemms} == {2}


def test_skipped_padding_costs_fewer_operations_and_the_same_weights(tmp_path: Path) -> None:
    computed = load_workload(written(tmp_path, f"name: a, {CONV}, {TYPES}"))
    skipped = load_workload(
        written(tmp_path, f"name: a, {CONV[:-1]}, padding_positions: skipped}}, {TYPES}")
    )
    assert computed.macs == 30 * 8 * 36
    # rows see 2, 3, 3, 3, 3, 2 positions and columns 2, 3, 3, 3, 2
    assert skipped.macs == 16 * 13 * 4 * 8
    assert computed.weight_bits == skipped.weight_bits == 8 * 36 * 8
    assert computed.sha256 != skipped.sha256


def test_cost_counts_every_product_of_every_layer(tmp_path: Path) -> None:
    workload = load_workload(
        written(
            tmp_path,
            f"name: a, {CONV}, {TYPES}, count: 2",
            f"name: b, gemm: {{m: 1, n: 5, k: 20}}, {TYPES}",
        )
    )
    report = cost_workload(workload, "toy")
    lane_ops = sum(
        c.count for _, c in report.steady.ledger.entries if c.action.startswith("lane_op")
    )
    assert lane_ops == workload.macs == 2 * 30 * 8 * 36 + 100
    assert [o.node for o in report.steady.operators if o.unit != "view"] == ["a", "a.1", "b"]
    shares = report.steady.ledger.share_by_provenance()
    assert shares == {"assumed": pytest.approx(1.0)}


def test_a_format_that_no_array_has_is_refused(tmp_path: Path) -> None:
    path = written(
        tmp_path, "name: a, gemm: {m: 1, n: 2, k: 3}, " + TYPES.replace("INT8", "INT16", 1)
    )
    with pytest.raises(GraphError, match="linear of INT16 x INT8: a"):
        cost_workload(path, "toy")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            f"name: a, {TYPES}",
            r"tiny\.yaml:7:5: layers\.0: must have either gemm or conv, not neither",
        ),
        (
            "name: a, conv: {image: [2, 2], channels: 1, outputs: 1, kernel: [3, 3]}, " + TYPES,
            "must have a kernel inside the padded image, not 3 of 2 positions",
        ),
        (f"name: a, {CONV}, {TYPES}, cuont: 2", "must be a known key.*did you mean 'count'"),
        (f"name: a, {CONV}, " + TYPES.replace("INT8", "INTS", 1), "INTS"),
    ],
)
def test_faults_name_their_place(tmp_path: Path, layer: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_workload(written(tmp_path, layer))


def test_names_are_suggested() -> None:
    with pytest.raises(ConfigError, match=r"workload must be .*; did you mean 'cnv_w1a1'\?"):
        load_workload("cnv_w1a")


def test_every_shipped_workload_loads_and_is_used() -> None:
    used = {
        target.workload
        for path in (machines_folder() / "published").glob("*.yaml")
        for target in load_machine(path.stem).spec.validation
    }
    for path in (machines_folder() / "workloads").glob("*.yaml"):
        workload = load_workload(path.stem)
        assert workload.name == path.stem
        assert path.stem in used
