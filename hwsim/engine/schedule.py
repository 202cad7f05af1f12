"""The steps of a priced operator, when each of them ran, and what each moved.

A report keeps the length of a schedule, not its steps. Here they are laid out once more from the mapping that
was chosen, and the same recurrence (hwsim.engine.timing) says when each of them ran.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from hwsim.arch.component import ArrayComponent
from hwsim.engine.cost import OperatorCost
from hwsim.engine.timing import Cycles, Record, Stage, Steps, record
from hwsim.graph.dtype import DataType
from hwsim.graph.ir import QuantGraph
from hwsim.mapping.block import is_divisible, part_of
from hwsim.mapping.gemm import GemmProblem, Tiling, build, moved_bits
from hwsim.mapping.layout import AXES
from hwsim.mapping.mapper import Mapping
from hwsim.mapping.rowwise import RowProblem, build_rows, source_bits
from hwsim.mapping.site import Bits, Site
from hwsim.mapping.skipping import occupied_cycles, skips, tiling_of

Verb = Literal["load", "store"]


@dataclass(frozen=True)
class Move:
    """The transfers of one operand: from a level to a memory, or back.

    Attributes:
        verb: `load` or `store`, as the memory of the role sees it.
        operand: on whose behalf.
        memory: the end with a role.
        level: the other end, the DRAM or a memory behind.
        row: where the transfers stand in a record.
        cycles: [n] how long each holds the link; 0 where a tile has none.
        bits: [n] what each moves, bursts included.
    """

    verb: Verb
    operand: str
    memory: str
    level: str
    row: int
    cycles: Cycles
    bits: Cycles

    @property
    def name(self) -> str:
        """What it is called: `load weight`."""
        return f"{self.verb} {self.operand}"


@dataclass(frozen=True)
class Run:
    """One pass over all tiles of an operator: the whole of it, or that of one head of an attention.

    Attributes:
        times: how many such runs follow each other, all alike.
        problem: what was mapped.
        mapping: the chosen candidate.
        steps: the steps in program order, n tiles.
        stage: buffers and links around them.
        record: when each step ran, from the start of the run.
        moves: what is transferred, by operand and level.
        axes: names of the columns of `index`.
        index: [n, axes] the tile's number along each axis.
        sizes: [n, 3] the tile's tm, tn, tk; of a vector operator [n, 1], its units.
        beats: [n] beats of each compute step; None for a vector operator, and for an array with a rhythm of its own.
    """

    times: int
    problem: GemmProblem | RowProblem
    mapping: Mapping
    steps: Steps
    stage: Stage
    record: Record
    moves: tuple[Move, ...]
    axes: tuple[str, ...]
    index: Cycles
    sizes: Cycles
    beats: Cycles | None

    @property
    def compute(self) -> Cycles:
        """[n, 4] the compute steps in the record."""
        return np.asarray(self.record.steps[-3])

    @property
    def post(self) -> Cycles:
        """[n, 4] the vector unit's steps behind them."""
        return np.asarray(self.record.steps[-2])


@dataclass(frozen=True)
class Split:
    """Where the cycles of an operator go: each of them to the first of these that is true.

    computing: its unit works (the array, or the vector unit of a vector operator).
    vector: the vector unit works on what the array left.
    bus: a transfer holds the bus.
    other: none of them does: set-up of the DMA, drain of the pipeline, hand-over of a buffer.
    """

    computing: int
    vector: int
    bus: int
    other: int

    @property
    def waiting(self) -> int:
        """Cycles in which the operator's unit does not work."""
        return self.vector + self.bus + self.other

    def to_json(self) -> dict[str, int]:
        """Return the four numbers by name."""
        return {
            "computing": self.computing,
            "vector": self.vector,
            "bus": self.bus,
            "other": self.other,
        }


def runs_of(operator: OperatorCost, graph: QuantGraph, site: Site) -> tuple[Run, ...]:
    """Return the runs of an operator in order; a view has none.

    Args:
        operator: a row of the report.
        graph: the graph that was costed.
        site: the machine that it was costed on.
    """
    mapping, posed = operator.mapping, operator.posed
    if mapping is None or posed is None:
        return ()
    weight = None
    node = graph.by_name[operator.node]
    if isinstance(posed.problem, GemmProblem) and skips(
        site.machine.arrays[posed.problem.array], graph, node, posed.problem
    ):
        weight = graph.constant(node, "weight")
    # Constants come before the first block only; without any, all blocks may be alike.
    parts = list(mapping.runs) or [(mapping, 1)]
    problems = [posed.problem, *(replace(posed.problem, constant_bits=()) for _ in parts[1:])]
    if len(parts) == 2 and problems[0] == problems[1] and _same(parts[0][0], parts[1][0]):
        parts = [(parts[0][0], parts[0][1] + parts[1][1])]
    runs = []
    for (part, times), problem in zip(parts, problems, strict=False):
        if isinstance(problem, GemmProblem):
            runs.append(_gemm(problem, part, times, weight, site))
        else:
            runs.append(_rows(problem, part, times, site))
    return tuple(runs)


def _same(a: Mapping, b: Mapping) -> bool:
    return (a.tile, a.order, a.block) == (b.tile, b.order, b.block)


def split_of(runs: tuple[Run, ...]) -> Split:
    """Return where the cycles of an operator's runs go, together."""
    parts = [(run.times, _split(run)) for run in runs]
    return Split(*(sum(times * part[i] for times, part in parts) for i in range(4)))


def _gemm(p: GemmProblem, mapping: Mapping, times: int, weight: Any, site: Site) -> Run:
    array, t = site.machine.arrays[p.array], tiling_of(mapping)
    mapped = build(p, t, array, site)
    steps = mapped.steps
    if weight is not None:
        steps = replace(steps, compute=occupied_cycles(p, t, weight, array))
    index, sizes = _tiles(p, t)
    ends: tuple[tuple[Verb, str, str, str, tuple[int, int], int, DataType], ...] = (
        ("load", "activation", site.activation, p.a_from, (0, 2), p.k, p.a),
        ("load", "weight", site.weight, p.w_from, (1, 2), p.k, p.w),
        ("store", "output", site.output, p.out_to, (0, 1), p.out_row, p.out),
    )
    moves = _constants(p.constant_bits, len(index), steps, site)
    for row, (verb, operand, memory, level, axes, whole, dtype) in enumerate(ends):
        link = site.link_to(level, memory, verb)
        kinds, kind = np.unique(sizes[:, axes], axis=0, return_inverse=True)
        bits = np.array([moved_bits(int(r), int(c), whole, dtype, link) for r, c in kinds])
        held = steps.load[row] if verb == "load" else steps.store
        moved = np.where(held > 0, bits[kind.reshape(-1)], 0)
        at = row if verb == "load" else len(steps.load) + 2
        moves.append(Move(verb, operand, memory, level, at, held, moved))
    return Run(
        times, p, mapping, steps, mapped.stage, record(steps, mapped.stage), tuple(moves),
        ("batch", "m", "n", "k"), index, sizes, _beats(p, part_of(array, t.block), steps, sizes),
    )  # fmt: skip


def _constants(constant_bits: Bits, tiles: int, steps: Steps, site: Site) -> list[Move]:
    """Return the loads of constants before the first tile, one from each level that holds some."""
    moves = []
    for x, (level, bits) in enumerate(zip(site.levels, constant_bits, strict=False)):
        if bits:
            moved = np.zeros(tiles, dtype=np.int64)
            moved[0] = site.link_to(level, site.weight, "load").moved_bits(1, bits)
            cycles = steps.load[2 + x]
            moves.append(Move("load", "constant", site.weight, level, 2 + x, cycles, moved))
    return moves


def _rows(p: RowProblem, mapping: Mapping, times: int, site: Site) -> Run:
    (size,) = mapping.tile
    mapped = build_rows(p, size, site)
    tiles = len(mapped.steps.compute)
    units = np.full(tiles, size, dtype=np.int64)
    units[-1] = p.units - (tiles - 1) * size
    steps = mapped.steps
    moves = _constants(p.constant_bits, tiles, steps, site)
    for x, source in enumerate(s for s in p.sources if s.streams):
        bits = np.array([source_bits(source, int(n), site) for n in units])
        end = (source.operand, source.memory, source.level)
        moves.append(Move("load", *end, x, steps.load[x], bits))
    if p.out_streams:
        link = site.link_to(p.out_to, site.output, "store")
        bits = np.array([link.moved_bits(1, int(n) * p.out_bits_per_unit) for n in units])
        row = len(steps.load) + 2
        moves.append(Move("store", "output", site.output, p.out_to, row, steps.store, bits))
    return Run(
        times, p, mapping, steps, mapped.stage, record(steps, mapped.stage), tuple(moves),
        ("tile",), np.arange(tiles)[:, None], units[:, None], None,
    )  # fmt: skip


def _tiles(p: GemmProblem, t: Tiling) -> tuple[Cycles, Cycles]:
    """Return the numbers (batch, m, n, k) and the sizes (tm, tn, tk) of all tiles in program order."""
    totals, tile = np.array([p.m, p.n, p.k]), np.array([t.tm, t.tn, t.tk])
    counts = -(-totals // tile)
    loops = AXES[t.order]
    grid = np.indices((p.batch, *(counts[axis] for axis in loops))).reshape(4, -1)
    index = np.empty((grid.shape[1], 4), dtype=np.int64)
    index[:, 0] = grid[0]
    for place, axis in enumerate(loops):
        index[:, 1 + axis] = grid[1 + place]
    return index, np.minimum(tile, totals - index[:, 1:] * tile)


def _beats(p: GemmProblem, part: ArrayComponent, steps: Steps, sizes: Cycles) -> Cycles | None:
    if not is_divisible(part):
        return None
    kinds, kind = np.unique(sizes, axis=0, return_inverse=True)
    interval = np.array([part.interval_of(int(m), int(n), int(k), p.a, p.w) for m, n, k in kinds])
    return np.asarray(steps.compute // interval[kind.reshape(-1)])


def _split(run: Run) -> tuple[int, int, int, int]:
    moving = [run.record.steps[move.row][:, 2:] for move in run.moves]
    none = np.empty((0, 2), dtype=np.int64)
    spans = (run.compute[:, 2:], run.post[:, 2:], np.concatenate([none, *moving]))
    end = run.record.cycles
    edges = np.unique(np.concatenate([[0, end], *(span.ravel() for span in spans)]))
    edges = edges[edges >= 0]  # steps that there are not stand at -1
    length = np.diff(edges)
    free = np.ones(len(length), dtype=np.bool_)
    found = []
    for span in spans:
        change = np.zeros(len(edges), dtype=np.int64)
        there = span[span[:, 0] >= 0]
        np.add.at(change, np.searchsorted(edges, there[:, 0]), 1)
        np.add.at(change, np.searchsorted(edges, there[:, 1]), -1)
        busy = free & (np.cumsum(change)[:-1] > 0)
        found.append(int(length[busy].sum()))
        free &= ~busy
    return found[0], found[1], found[2], int(length[free].sum())
