"""The figures of a cost: what they show adds up, and long models stay readable."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from view_cases import Case

from hwsim.report.figure import WIDE, render_files, style
from hwsim.report.plots import (
    MOST_BARS,
    cost_figures,
    energies,
    gather,
)
from hwsim.report.roofline import Roof, roofline_points
from studies.trial import operators_of

pytest.importorskip("matplotlib")


def test_bars_add_up_to_the_report(cases: dict[str, Case]) -> None:
    for case in (cases["head by head"], cases["fused thresholds"]):
        scenario = case.report.steady
        figures = cost_figures(case.report, case.graph, case.machine, "steady", "model")
        assert set(figures) == {"cycles_by_operator", "energy_by_operator", "roofline"}
        with style("test"):
            axes = figures["cycles_by_operator"](WIDE).figure.axes[0]
        drawn = sum(bar.get_width() for group in axes.containers for bar in group)
        assert drawn == scenario.cycles
        found = energies(scenario.ledger)
        for o in scenario.operators:
            if o.mapping is not None:
                assert math.isclose(math.fsum(found[o.node]), o.energy_pj.nominal, rel_tol=1e-12)


def test_what_a_study_keeps_of_the_operators_adds_up(cases: dict[str, Case]) -> None:
    for case in (cases["head by head"], cases["fused thresholds"]):
        kept = operators_of(case.report, case.machine)
        rows = kept["operators"]
        assert sum(o["cycles"] for o in rows) == case.report.latency_cycles["steady"]
        energy = math.fsum(o["energy_pj"] for o in rows)
        assert math.isclose(energy, case.report.energy_pj.nominal, rel_tol=1e-9)
        points, roofs = roofline_points(case.report.steady.operators, case.machine)
        products = [o for o in rows if o["macs"]]
        assert len(products) == sum(p.count for p in points)
        assert {o["macs"] / o["cycles"] for o in products} == {p.rate for p in points}
        assert [r["macs_per_cycle"] for r in kept["roofs"]] == [r.rate for r in roofs]


def test_few_operators_have_a_bar_each() -> None:
    rows = {f"layers.{i}.fc.acc": (1.0, float(i)) for i in range(5)}
    assert gather(rows) == rows


def test_equal_operators_of_many_layers_are_one_bar() -> None:
    rows = {f"h.{i}.{name}": (1.0, float(i)) for i in range(30) for name in ("fc1.acc", "fc2.acc")}
    rows["head.acc_2"] = (5.0, 0.0)
    assert gather(rows) == {
        "h.*.fc1.acc (30)": (30.0, 435.0),
        "h.*.fc2.acc (30)": (30.0, 435.0),
        "head.acc_2": (5.0, 0.0),
    }


def test_the_least_of_too_many_are_one_bar() -> None:
    rows = {f"op_{chr(97 + i % 26)}{'x' * i}": (float(i), 1.0) for i in range(100)}
    bars = gather(rows)
    assert len(bars) == MOST_BARS
    assert list(bars)[-1] == "all others (61)"
    assert math.fsum(math.fsum(v) for v in bars.values()) == math.fsum(
        math.fsum(v) for v in rows.values()
    )


def test_products_stay_below_their_roofs(cases: dict[str, Case]) -> None:
    for name, case in cases.items():
        rows = [o for o in case.report.steady.operators if o.mapping is not None]
        points, roofs = roofline_points(rows, case.machine)
        link = float(case.machine.dram.bits_per_cycle) / 8
        assert sum(p.count for p in points) == sum(o.op in ("linear", "matmul") for o in rows)
        assert 0 < sum(p.share for p in points) <= 1
        for p in points:
            assert p.rate <= p.intensity * link
            if name != "empty beats":  # a product by zero takes no time there
                assert p.rate <= max(r.rate for r in roofs)


def test_a_roof_by_hand(cases: dict[str, Case]) -> None:
    case = cases["head by head"]
    rows = [o for o in case.report.steady.operators if o.node == "qk"]
    points, roofs = roofline_points(rows, case.machine)
    # toy: 4 x 4 x 8 INT8 lanes; 8 heads of 24 x 24 x 4, in the cycles that are reported
    assert [r.rate for r in roofs] == [4 * 4 * 8]
    assert isinstance(roofs[0], Roof)
    assert points[0].label == "matmul 8 × 24 × 24 × 4"
    assert points[0].rate == 8 * 24 * 24 * 4 / rows[0].cycles
    traffic = rows[0].traffic_bytes
    moved = traffic.get("dram_load", 0) + traffic.get("dram_store", 0)
    assert points[0].intensity == (8 * 24 * 24 * 4 / moved if moved else math.inf)


def test_the_same_figure_gives_the_same_file(cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["spilled"]
    painter = cost_figures(case.report, case.graph, case.machine, "cold", "model")["roofline"]
    (file,) = render_files(painter, tmp_path / "roofline", ("svg",))
    first = file.read_bytes()
    (again,) = render_files(painter, tmp_path / "roofline", ("svg",))
    assert (again, again.read_bytes()) == (file, first)
    assert b"MAC a byte of DRAM traffic" in first
