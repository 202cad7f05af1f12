"""Two results side by side: rows that add up, bands of joint draws, and what is not compared."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
from rich.console import Console

from hwsim.config.load import load_machine
from hwsim.engine.cost import cost
from hwsim.engine.energy import PARTS, Ledger
from hwsim.errors import DataError
from hwsim.graph.ir import QuantGraph
from hwsim.report.diff import Side, diff, read_result
from hwsim.report.result import Result, ResultMismatch


def side(graph: QuantGraph, name: str, model: str = "ab", *overrides: str) -> Side:
    machine = load_machine(name, overrides)
    report = cost(graph, machine)
    result = Result("model", model * 32, machine.sha256, report).to_json()
    return Side(name, result, report.steady.ledger)


@pytest.fixture(scope="module")
def pair(block: Callable[..., QuantGraph]) -> tuple[Side, Side]:
    graph = block("INT8", "TERNARY")
    return side(graph, "int8_edge"), side(graph, "ternary_edge")


def test_rows_add_up_to_both_results(pair: tuple[Side, Side]) -> None:
    d = diff(*pair)
    for i, s in enumerate(pair):
        cycles = s.result["latency_cycles"]["steady"]
        energy = s.result["energy_pj"]["nominal"]
        assert d.total.cycles[i] == cycles
        assert d.total.pj[i] == energy
        for rows in (d.kinds, d.operators):
            assert sum(r.cycles[i] for r in rows) == cycles
            assert math.isclose(sum(r.pj[i] for r in rows), energy, rel_tol=1e-12)
        assert math.isclose(sum(p[i] for p in d.parts.values()), energy, rel_tol=1e-12)
    assert sum(r.operators for r in d.kinds) == len(d.operators)
    assert list(d.parts) == [p for p in PARTS if p in d.parts]
    views = {o["node"] for o in pair[0].result["operators"] if o["unit"] == "view"}
    assert views
    assert not views & {r.name for r in d.operators}


def test_parts_keep_leakage_and_idle_clock_apart(pair: tuple[Side, Side]) -> None:
    ledger = pair[1].ledger
    assert ledger is not None
    parts = ledger.by_part()
    by_hand = math.fsum(
        c.count * ledger.prices.price(c.component, c.action).pj
        for _, c in ledger.entries
        if c.component.startswith("array") and c.action not in ("leakage_cycle", "idle_cycle")
    )
    assert parts["array"].nominal == by_hand
    assert parts["leakage"].nominal == ledger.by_action()["leakage_cycle"].nominal
    assert set(parts) <= set(PARTS)


@pytest.mark.parametrize("key", ["cycles", "energy"])
def test_the_largest_difference_comes_first(pair: tuple[Side, Side], key: str) -> None:
    d = diff(*pair, key)  # type: ignore[arg-type]
    for rows in (d.operators, d.kinds):
        sizes = [abs(r.difference(key)) for r in rows]  # type: ignore[arg-type]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] > 0


def test_times_are_compared_where_clocks_differ(block: Callable[..., QuantGraph]) -> None:
    graph = block("INT8", "INT8")
    slow, fast = side(graph, "toy"), side(graph, "toy", "ab", "clock_hz=200000000")
    d = diff(slow, fast)
    for r in d.operators:
        assert r.s == (r.cycles[0] / slow.clock_hz, r.cycles[1] / 200_000_000)
    out = io.StringIO()
    d.render(Console(file=out, width=160))
    assert "B 200,000,000 Hz" in out.getvalue()


def test_the_ratio_of_a_machine_with_itself_is_exact(pair: tuple[Side, Side]) -> None:
    d = diff(pair[0], pair[0])
    assert d.ratio is not None
    band = d.ratio.band
    assert (band.low, band.nominal, band.high) == (1, 1, 1)
    assert d.ratio.movers == ()
    assert all(r.difference("energy") == 0 for r in d.operators)


def test_other_models_and_two_changes_are_refused(
    pair: tuple[Side, Side], block: Callable[..., QuantGraph]
) -> None:
    other = side(block("INT8", "TERNARY"), "ternary_edge", "cd")
    with pytest.raises(ResultMismatch, match="model: abab"):
        diff(pair[0], other)
    changed = deepcopy(dict(pair[1].result))
    changed["hashes"]["code"] = "00" * 32
    with pytest.raises(ResultMismatch, match="code"):
        diff(pair[0], Side("x", changed))
    assert diff(pair[1], Side("x", changed)).ratio is None  # the same machine before and after


def test_results_from_files(pair: tuple[Side, Side], tmp_path: Path) -> None:
    paths = [tmp_path / f"{s.name}.json" for s in pair]
    for path, s in zip(paths, pair, strict=True):
        path.write_text(json.dumps(s.result), encoding="utf-8")
    d = diff(*(read_result(path) for path in paths))
    direct = diff(*pair)
    assert (d.total, d.kinds, d.operators, d.parts) == (
        direct.total, direct.kinds, direct.operators, direct.parts,
    )  # fmt: skip
    assert d.ratio is None
    out = io.StringIO()
    d.render(Console(file=out, width=160))
    assert "no band here" in out.getvalue()
    assert "int8_edge (int8_edge.json)" in out.getvalue()


def test_without_energy_there_is_no_ratio(pair: tuple[Side, Side]) -> None:
    a, ledger = deepcopy(dict(pair[0].result)), pair[0].ledger
    a["energy_pj"]["nominal"] = 0.0
    assert ledger is not None
    d = diff(Side("free", a, Ledger(ledger.prices, [])), pair[1])
    assert d.ratio is None


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": "hwsim/decode/1"}', '{"schema_version": "hwsim/result/1"}'])  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.json: must be a result of"):
        read_result(file)
    with pytest.raises(DataError, match=r"missing\.json: must be a result of"):
        read_result(tmp_path / "missing.json")


def test_console_and_json_hold_the_same(pair: tuple[Side, Side]) -> None:
    d = diff(*pair)
    data = json.loads(json.dumps(d.to_json()))
    assert [r["name"] for r in data["operators"]] == [r.name for r in d.operators]
    assert data["energy_ratio"]["low"] < data["energy_ratio"]["nominal"] < data["energy_ratio"]["high"]  # fmt: skip
    assert len(data["energy_ratio"]["movers"]) == 3
    out = io.StringIO()
    d.render(Console(file=out, width=200))
    text = out.getvalue()
    assert "A = int8_edge, B = ternary_edge" in text
    assert f"{d.total.cycles[0]:,}" in text
    assert d.operators[0].name in text
    assert "of the joint draws" in text
