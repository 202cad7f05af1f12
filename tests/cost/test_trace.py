"""The timeline: valid trace JSON, true to the report, and bounded."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from view_cases import Case

from hwsim.engine.cost import ScenarioCost
from hwsim.report.trace import Trace, trace

NAMES = ("head by head", "spilled", "empty beats", "fused thresholds", "own rhythm")
Events = list[dict[str, Any]]


def made(case: Case, scenario: ScenarioCost, most: int = 200_000) -> Trace:
    return trace(scenario, case.graph, case.machine, "a name", most)


def by_track(trace: Trace) -> dict[str, Events]:
    """Return the slices of each track by its name, in order of time."""
    names = {e["tid"]: e["args"]["name"] for e in trace.events if e["name"] == "thread_name"}
    tracks: dict[str, Events] = defaultdict(list)
    for e in trace.events:
        if e["ph"] == "X":
            tracks[names[e["tid"]]].append(e)
    return {name: sorted(found, key=lambda e: e["ts"]) for name, found in tracks.items()}


def busy(slices: Events) -> int:
    return sum(e["args"].get("busy_cycles", e["dur"]) for e in slices)


@pytest.mark.parametrize("most", [200_000, 60])
@pytest.mark.parametrize("name", NAMES)
def test_busy_times_and_bytes_are_the_report_s(
    cases: dict[str, Case], name: str, most: int
) -> None:
    case = cases[name]
    for scenario in (case.report.steady, case.report.cold):
        tracks = by_track(made(case, scenario, most))
        rows = [o for o in scenario.operators if o.mapping is not None]
        wanted: dict[str, int] = defaultdict(int)
        for o in rows:
            assert o.mapping is not None
            timeline = o.mapping.timeline
            unit = "vector unit" if o.unit == "vector" else o.unit.replace(":", " ")
            wanted[unit] += timeline.array_busy
            wanted["vector unit"] += timeline.vector_busy
            wanted["DRAM bus"] += timeline.bus_busy
        found = {n: busy(s) for n, s in tracks.items() if n in wanted}
        assert found == {n: cycles for n, cycles in wanted.items() if cycles}
        traffic = scenario.traffic_bytes()
        moved = sum(e["args"]["bytes"] for e in tracks["DRAM bus"])
        assert moved == traffic.get("dram_load", 0) + traffic.get("dram_store", 0)
        channels = [s for n, s in tracks.items() if n.startswith("DMA")]
        assert sum(e["args"]["bytes"] for s in channels for e in s) == moved


@pytest.mark.parametrize("most", [200_000, 60])
@pytest.mark.parametrize("name", NAMES)
def test_slices_of_a_track_do_not_overlap(cases: dict[str, Case], name: str, most: int) -> None:
    case = cases[name]
    for scenario in (case.report.steady, case.report.cold):
        for slices in by_track(made(case, scenario, most)).values():
            ends = [e["ts"] + e["dur"] for e in slices]
            assert all(e["dur"] > 0 for e in slices)
            assert all(e["ts"] >= end for e, end in zip(slices[1:], ends, strict=False))
            assert ends[-1] <= scenario.cycles


@pytest.mark.parametrize("name", NAMES)
def test_operators_follow_each_other_for_as_long_as_reported(
    cases: dict[str, Case], name: str
) -> None:
    case = cases[name]
    scenario = case.report.steady
    slices = by_track(made(case, scenario))["operators"]
    length: dict[str, int] = defaultdict(int)
    now = 0
    for e in slices:
        assert e["ts"] == now
        now += e["dur"]
        length[e["name"]] += e["dur"]
    assert now == scenario.cycles
    assert length == {o.node: o.cycles for o in scenario.operators if o.cycles}
    # What a slice says it is part of ran within that operator's time.
    spans = defaultdict(list)
    for e in slices:
        spans[e["name"]].append((e["ts"], e["ts"] + e["dur"]))
    for track, found in by_track(made(case, scenario)).items():
        for e in found if track != "operators" else []:
            end = e["ts"] + e["dur"]
            assert any(a <= e["ts"] and end <= b for a, b in spans[e["args"]["operator"]])


def test_an_attention_goes_through_all_its_groups_head_by_head(cases: dict[str, Case]) -> None:
    case = cases["head by head"]
    slices = by_track(made(case, case.report.steady))["operators"]
    names = [(e["name"], e["args"]["head"]) for e in slices if "head" in e["args"]]
    assert names == [(n, f"{h} of 8") for h in range(1, 9) for n in ("qk", "u", "p", "pv")]


def test_held_bytes_reach_the_reported_peak(cases: dict[str, Case]) -> None:
    for name in NAMES:
        case = cases[name]
        events = made(case, case.report.steady).events
        capacity = {f"bytes held in {n}": m.spec.capacity_bytes for n, m in case.machine.memories.items()}  # fmt: skip
        held = [e for e in events if e["ph"] == "C"]
        assert {e["name"] for e in held} == set(capacity)
        assert all(sum(e["args"].values()) <= capacity[e["name"]] for e in held)
        roles = case.machine.spec.roles
        live: dict[int, int] = defaultdict(int)
        for e in held:
            if e["name"].removeprefix("bytes held in ") in (roles.activation, roles.output):
                live[e["ts"]] += e["args"]["activations"] + e["args"]["buffers"]
        assert max(live.values()) == case.report.memory["peak_activation_on_chip_bytes"]


def test_more_slices_than_allowed_are_merged(cases: dict[str, Case]) -> None:
    case = cases["spilled"]
    whole = made(case, case.report.steady)
    assert "merged" not in whole.summary()
    assert whole.slices == whole.steps
    few = made(case, case.report.steady, whole.slices // 3)
    assert few.slices <= whole.slices // 3
    assert few.steps == whole.steps
    assert f"merged from {whole.steps:,}" in few.summary()
    merged = [e for e in few.events if e["ph"] == "X" and "steps" in e["args"]]
    assert merged
    assert all(e["args"]["steps"] > 1 and e["args"]["busy_cycles"] <= e["dur"] for e in merged)


def test_the_file_is_trace_json(cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["spilled"]
    found = made(case, case.report.steady)
    file = tmp_path / "new" / "trace.json"
    found.write(file)
    data = json.loads(file.read_text(encoding="utf-8"))
    assert data["traceEvents"] == found.events
    assert data["otherData"]["time"] == "1 us is 1 core cycle"
    assert data["otherData"]["cycles"] == case.report.steady.cycles
    for e in data["traceEvents"]:
        assert {"ph", "pid", "name"} <= e.keys()
        assert e["ph"] in "MXC"
        if e["ph"] != "M":
            assert isinstance(e["ts"], int)
        if e["ph"] == "X":
            assert {"tid", "dur", "args"} <= e.keys()
