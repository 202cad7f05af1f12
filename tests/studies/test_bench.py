"""The benchmark's arithmetic: ratios of neighbours, not of averages; that what is timed works. Nothing is timed here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from studies import bench, bench_ledger
from studies.synthetic import make_folder, many_machines
from studies.table import load_results


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Durations, in the order in which they are measured."""
    durations: list[float] = []

    def ticks() -> Iterator[float]:
        now = 0.0
        while True:
            yield now
            now += durations.pop(0)
            yield now

    ticking = ticks()
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(ticking))
    return durations


def test_a_ratio_is_that_of_neighbours(clock: list[float]) -> None:
    # the machine is ten times slower in the second round: no ratio notices
    clock += [2.0, 1.0, 30.0, 10.0, 4.0, 1.0]
    (found,) = bench.in_turn({"ours": int, "theirs": int}, [("ours", "theirs")], 3)
    assert found == bench.Ratio("ours", "theirs", 3.0, (2.0, 4.0), 3)


def test_contenders_run_in_turn_after_warming_up(clock: list[float]) -> None:
    order: list[str] = []
    contenders = {name: (lambda name=name: order.append(name)) for name in "ab"}
    clock += [1.0] * 6
    bench.in_turn(contenders, [("a", "b")], 3)
    assert "".join(order) == "a" * bench.WARM_UP + "b" * bench.WARM_UP + "ababab"


def test_our_stack_is_quantised_and_the_float_one_is_its_twin() -> None:
    ours, plain = bench.our_stack(), bench.float_stack()
    assert [tuple(layer.weight.shape) for layer in ours] == [
        tuple(layer.weight.shape) for layer in plain
    ]
    codes, _ = ours[0].weight_quantizer(ours[0].weight)
    assert codes.unique().tolist() == [-1.0, 0.0, 1.0]
    assert all(layer.input_quantizer.fmt == "INT8" for layer in ours)


def test_steps_of_the_ledger_benchmark_do_what_they_say(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    folder = make_folder(tmp_path / "s", (0,), machines=many_machines(30))
    rows = load_results(folder).rows
    assert len(rows) == 30 * 4
    assert (
        len({r.energy_pj for r in rows}) > 30
    )  # no two machines alike: a front is no heap of equals
    found = {name: step(folder)() for name, step in bench_ledger.STEPS.items() if name != "report"}
    assert len(found["read the ledger"]) == 30 * 4 + 4 + 5  # type: ignore[arg-type]
    assert found["view"].keys() == {a.id for a in found["read the ledger"]}  # type: ignore[attr-defined]
    assert found["load_results"].rows == rows  # type: ignore[attr-defined]
    assert (folder / "bench.csv").read_text().count("\n") == 1 + len(rows)
    assert (folder / "bench.parquet").read_bytes().startswith(b"PAR1")
    cost = bench_ledger._measure("trained", "view", folder)
    assert cost.page_mb is None
    assert 0 <= cost.seconds < 60
    assert 10 < cost.peak_mb < 100_000


@pytest.mark.parametrize(("shape", "points"), [("trained", 8), ("hardware", 40)])
def test_shapes_of_the_ledger_benchmark(shape: str, points: int, tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    bench_ledger.SHAPES[shape](tmp_path, 40)
    results = load_results(tmp_path)
    assert len(results.rows) == 40
    assert len(results.points()) == points
    assert results.trains == (shape == "trained")
    left = len(list(tmp_path.glob("nodes/*/operators.json")))
    assert left == (40 if shape == "hardware" else 0)
    bench_ledger.STEPS["query: filter and front"](tmp_path)()
