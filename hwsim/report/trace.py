"""A timeline of one inference as trace-event JSON, which https://ui.perfetto.dev and chrome://tracing open.

A track each for the operators, the DMA channels, every port of a link, the arrays and the vector unit, and a counter of
the bytes held in each memory. One core cycle is shown as one microsecond: the format's times are microseconds,
and whole numbers keep neighbours exact. Format: "Trace Event Format", Google, 2016.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.arch.machine import Machine
from hwsim.engine.cost import OperatorCost, ScenarioCost
from hwsim.engine.schedule import Move, Run, runs_of
from hwsim.engine.timing import Cycles
from hwsim.graph.ir import QuantGraph
from hwsim.mapping.site import DRAM, Site

MOST_SLICES = 200_000
"""Slices of a trace, about 40 MB. Beyond them, neighbouring steps of a track become one slice."""
PROCESS = 1
OPERATORS, VECTOR = 1, 2
FIRST_CHANNEL, FIRST_ARRAY, FIRST_PORT = 1000, 2000, 3000
"""Numbers of tracks."""

Event = dict[str, Any]


@dataclass(frozen=True)
class Trace:
    """Events in the trace-event format. `slices` stand on the resources' tracks; unmerged they would be `steps`."""

    events: list[Event]
    slices: int
    steps: int
    other: dict[str, Any]

    def summary(self) -> str:
        """Say in one line what was written."""
        text = f"{self.slices:,} slices, 1 us = 1 core cycle"
        if self.slices == self.steps:
            return text
        return text + f"; merged from {self.steps:,}: each is several neighbouring steps of a track"

    def write(self, path: Path) -> None:
        """Write the JSON file, an event a line."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            file.write('{"traceEvents":[\n')
            for i, event in enumerate(self.events):
                file.write(",\n" if i else "")
                file.write(json.dumps(event, separators=(",", ":")))
            file.write('\n],"displayTimeUnit":"ms","otherData":')
            file.write(json.dumps(self.other) + "}\n")


@dataclass(frozen=True)
class Track:
    """Steps of one run on one track in order of time, all [steps]."""

    number: int
    names: tuple[str, ...]
    name: Cycles
    start: Cycles
    end: Cycles
    tile: Cycles
    moved_bytes: Cycles
    beats: Cycles


@dataclass(frozen=True)
class Stretch:
    """A run of an operator within an inference: which of its blocks (heads) it is, and when it starts."""

    group: int
    block: int
    run: int
    start: int


def trace(
    scenario: ScenarioCost,
    graph: QuantGraph,
    machine: Machine,
    name: str,
    most_slices: int = MOST_SLICES,
) -> Trace:
    """Return the timeline of one inference.

    Args:
        scenario: what was priced, `cold` or `steady`.
        graph: the graph that was costed.
        machine: the machine that it was costed on.
        name: how the timeline is called, for example `MODEL on MACHINE, steady`.
        most_slices: steps of a track are merged beyond so many slices, operators and counters apart; each
            operator keeps one on each track that it uses.
    """
    site = Site(machine)
    operators = [o for o in scenario.operators if o.mapping is not None]
    runs = [runs_of(o, graph, site) for o in operators]
    tracks = [[_tracks(run, o, site) for run in r] for r, o in zip(runs, operators, strict=True)]
    stretches = list(_stretches(scenario, runs))
    sizes = [len(t.start) for s in stretches for t in tracks[s.group][s.run]]
    limit = _limit(sizes, most_slices)
    events = _names(site, name)
    slices = 0
    for s in stretches:
        operator, run = operators[s.group], runs[s.group][s.run]
        events.append(_operator(operator, s, run))
        events += _held(scenario, s, operator, site)
        for track in tracks[s.group][s.run]:
            new = _slices(track, s, operator, run, limit)
            slices += len(new)
            events += new
    end = {"ph": "C", "pid": PROCESS, "ts": scenario.cycles}
    events += [
        {**end, "name": _counter(m), "args": {"constants": 0, "activations": 0, "buffers": 0}}
        for m in machine.memories
    ]
    other = {
        "name": name,
        "time": "1 us is 1 core cycle",
        "clock_hz": machine.spec.clock_hz,
        "cycles": scenario.cycles,
        "machine_sha256": machine.sha256,
        "steps": sum(sizes),
        "slices": slices,
    }
    return Trace(events, slices, sum(sizes), other)


def _stretches(scenario: ScenarioCost, runs: list[tuple[Run, ...]]) -> Iterator[Stretch]:
    """Yield what runs in the order of time: an attention in heads goes through all its groups head by head."""
    plan = scenario.placement.plan
    chains = {chain.start: chain for chain in plan.program.chains}
    now = at = 0
    while at < len(runs):
        together = chains.get(at, range(at, at + 1))
        if plan.repeats[at] == 1:
            together = range(at, at + 1)
        order = {
            i: [r for r, run in enumerate(runs[i]) for _ in range(run.times)] for i in together
        }
        for block in range(plan.repeats[at]):
            for i in together:
                run = order[i][block]
                yield Stretch(i, block, run, now)
                now += runs[i][run].record.cycles
        at = together.stop


def _tracks(run: Run, operator: OperatorCost, site: Site) -> list[Track]:
    """Sort the steps of a run into tracks; steps of no length are left out."""
    tiles = np.arange(len(run.index))
    none = np.zeros(len(tiles), dtype=np.int64)

    def track(number: int, texts: tuple[str, ...], parts: list[tuple[Cycles, ...]]) -> Track:
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        there = np.flatnonzero((columns[1] >= 0) & (columns[2] > columns[1]))
        order = there[np.argsort(columns[1][there], kind="stable")]
        return Track(number, texts, *(column[order] for column in columns))

    def moving(start: int, keep: Callable[[Move, Cycles], Cycles]) -> list[tuple[Cycles, ...]]:
        parts: list[tuple[Cycles, ...]] = []
        for which, move in enumerate(run.moves):
            times = run.record.steps[move.row]
            begin = np.where(keep(move, times), times[:, start], -1)
            label = np.full(len(tiles), which)
            parts.append((label, begin, times[:, 3], tiles, move.bits // 8, none))
        return parts

    names = tuple(move.name for move in run.moves)
    found = []
    if run.moves:
        for c in range(site.channels):
            on_channel = moving(1, lambda _, times, c=c: times[:, 0] == c)  # type: ignore[misc]
            found.append(track(FIRST_CHANNEL + c, names, on_channel))
        first = FIRST_PORT
        for level, ports in zip(site.levels, site.ports, strict=True):
            on_link = moving(2, lambda move, times, level=level: np.full(len(times), move.level == level))  # type: ignore[misc]  # fmt: skip
            found += _apart(track(first, names, on_link), ports)
            first += ports
    beats = none if run.beats is None else run.beats
    compute = (none, run.compute[:, 2], run.compute[:, 3], tiles, none, beats)
    found.append(track(_unit(operator.unit, site.machine), ("compute",), [compute]))
    post = (none, run.post[:, 2], run.post[:, 3], tiles, none, none)
    found.append(track(VECTOR, ("post",), [post]))
    return [t for t in found if len(t.start)]


def _apart(link: Track, ports: int) -> list[Track]:
    """Give each transfer of a link a port: the one that is free for longest, as the schedule does."""
    free = np.zeros(ports, dtype=np.int64)
    port = np.empty(len(link.start), dtype=np.int64)
    for i, (start, end) in enumerate(zip(link.start, link.end, strict=True)):
        port[i] = np.argmin(np.where(free <= start, free, free.max() + 1))
        free[port[i]] = end
    columns = (link.name, link.start, link.end, link.tile, link.moved_bytes, link.beats)
    return [
        Track(link.number + p, link.names, *(column[port == p] for column in columns))
        for p in range(ports)
    ]


def _unit(unit: str, machine: Machine) -> int:
    if unit == "vector":
        return VECTOR
    return FIRST_ARRAY + list(machine.arrays).index(unit.partition(":")[2])


def _slices(t: Track, s: Stretch, operator: OperatorCost, run: Run, limit: int) -> list[Event]:
    """Return the slices of a track, at most `limit`: neighbouring steps are merged in equal numbers."""
    count = len(t.start)
    together = -(-count // limit)
    first = np.arange(0, count, together)
    last = np.minimum(first + together, count) - 1
    busy = np.add.reduceat(t.end - t.start, first)
    moved, beats = np.add.reduceat(t.moved_bytes, first), np.add.reduceat(t.beats, first)
    slices = []
    for i, (a, b) in enumerate(zip(first, last, strict=True)):
        same = bool((t.name[a : b + 1] == t.name[a]).all())
        text = t.names[t.name[a]] if same else "transfers"
        args: Event = {"operator": operator.node}
        args |= {axis: int(run.index[t.tile[a], x]) for x, axis in enumerate(run.axes)}
        if moved[i]:
            args["bytes"] = int(moved[i])
            if same:
                move = run.moves[t.name[a]]
                args |= {"memory": move.memory, "level": move.level}
        if beats[i]:
            args["beats"] = int(beats[i])
        if a != b:
            args |= {"steps": int(b - a + 1), "busy_cycles": int(busy[i])}
        slices.append(
            _slice(t.number, text, s.start + int(t.start[a]), int(t.end[b] - t.start[a]), args)
        )
    return slices


def _limit(sizes: list[int], most: int) -> int:
    """Return how many slices a track of a run may have so that all together stay below `most`."""
    limit = max(sizes, default=1)
    while limit > 1 and sum(min(size, limit) for size in sizes) > most:
        limit = (limit + 1) // 2
    return limit


def _slice(track: int, name: str, start: int, length: int, args: Event) -> Event:
    return {
        "ph": "X",
        "pid": PROCESS,
        "tid": track,
        "name": name,
        "ts": start,
        "dur": length,
        "args": args,
    }


def _operator(operator: OperatorCost, s: Stretch, run: Run) -> Event:
    args: Event = {"op": operator.op, "unit": operator.unit, "tiles": len(run.index)}
    args |= {"tile": list(run.mapping.tile), "order": run.mapping.order}
    if operator.fused:
        args["fused"] = list(operator.fused)
    if operator.blocks > 1:
        args["head"] = f"{s.block + 1} of {operator.blocks}"
    return _slice(OPERATORS, operator.node, s.start, run.record.cycles, args)


def _held(scenario: ScenarioCost, s: Stretch, operator: OperatorCost, site: Site) -> list[Event]:
    """Return the bytes in each memory while an operator runs."""
    plan = scenario.placement.plan
    held = {m: {"constants": 0, "activations": 0, "buffers": 0} for m in site.machine.memories}
    for memory, kinds in held.items():
        kinds["activations"] = plan.live_bytes(s.group, memory)
        kinds["constants"] = plan.backed_bytes(memory)
    held[site.weight]["constants"] += plan.resident_bytes()
    assert operator.posed is not None
    assert operator.mapping is not None
    held[site.weight]["constants"] += operator.posed.transient_bytes
    for memory, size in operator.mapping.buffer_bytes:
        held[memory]["buffers"] += size
    counter = {"ph": "C", "pid": PROCESS, "ts": s.start}
    return [{**counter, "name": _counter(m), "args": args} for m, args in held.items()]


def _counter(memory: str) -> str:
    return f"bytes held in {memory}"


def _names(site: Site, name: str) -> list[Event]:
    """Return the events that name the tracks and put them in order."""
    machine = site.machine
    tracks = {OPERATORS: "operators"}
    tracks |= {FIRST_CHANNEL + i: f"DMA channel {i}" for i in range(machine.spec.dma.channels)}
    ends = [
        ("DRAM bus" if level == DRAM else f"link of {level}", f", port {port}" if ports > 1 else "")
        for level, ports in zip(site.levels, site.ports, strict=True)
        for port in range(ports)
    ]
    tracks |= {FIRST_PORT + i: f"{link}{port}" for i, (link, port) in enumerate(ends)}
    tracks |= {FIRST_ARRAY + i: f"array {a}" for i, a in enumerate(machine.arrays)}
    if machine.vector_unit is not None:
        tracks[VECTOR] = "vector unit"
    events: list[Event] = [
        {"ph": "M", "pid": PROCESS, "name": "process_name", "args": {"name": f"{name} (1 us = 1 core cycle)"}}
    ]  # fmt: skip
    for place, (number, text) in enumerate(tracks.items()):
        track = {"ph": "M", "pid": PROCESS, "tid": number}
        events.append({**track, "name": "thread_name", "args": {"name": text}})
        events.append({**track, "name": "thread_sort_index", "args": {"sort_index": place}})
    return events
