"""Counts of a mapped product against an interpreter that moves one word and does one MAC at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwsim.arch.component import ArrayComponent
from hwsim.config.load import load_machine
from hwsim.engine.energy import Count, Prices
from hwsim.engine.timing import simulate
from hwsim.graph.dtype import parse
from hwsim.mapping.block import Blocks
from hwsim.mapping.gemm import GemmProblem, Tiling, buffer_bytes, build, flow
from hwsim.mapping.gemm_counts import work_counts, work_pj
from hwsim.mapping.objective import WaitingPower
from hwsim.mapping.scan import Scan
from hwsim.mapping.site import Site
from hwsim.mapping.tables import Tables

SHARED = Path(__file__).parent / "shared_buffer.yaml"
SAMPLE = 6
"""Tilings looked at of each product, with two blocks each."""

Tally = Counter[tuple[str, str, str]]

BASE = GemmProblem(
    array="main",
    batch=2,
    m=6,
    n=5,
    k=20,
    a=parse("INT8"),
    w=parse("INT8"),
    out=parse("INT32"),
    out_row=5,
    a_place="stream",
    w_place="stream",
    w_memory="weights",
    out_streams=True,
    epilogue=(),
    constant_bits=(),
    constant_fetch_bits=0,
)


class Interpreter:
    """Walks tiles, blocks, planes and lanes with plain loops. Shares no code with the cost model."""

    def __init__(self, p: GemmProblem, t: Tiling, array: ArrayComponent, site: Site) -> None:
        self.p, self.t, self.array, self.site = p, t, array, site
        self.tally: Tally = Counter()
        rng = np.random.default_rng(7)
        self.a = rng.integers(-1, 2, (p.batch, p.m, p.k))
        self.w = rng.integers(-1, 2, (p.batch, p.n, p.k))
        self.acc = np.zeros((p.batch, p.m, p.n), dtype=np.int64)
        self.memories = site.machine.memories
        self.resident = p.w_memory if p.w_place == "chip" else site.weight

    def add(self, component: str, action: str, operand: str, n: int = 1) -> None:
        self.tally[component, action, operand] += n

    def words(self, memory: str, action: str, operand: str, bits: int) -> None:
        spec = self.memories[memory].spec
        width = spec.read_width_bits if action == "read" else spec.write_width_bits
        while bits > 0:
            self.add(f"memory:{memory}", action, operand)
            bits -= width

    def transfer(
        self, runs: list[int], memory: str, operand: str, load: bool, level: str = "dram"
    ) -> None:
        burst = self.site.link.burst_bits
        if level != "dram":
            spec = self.memories[level].spec
            burst = spec.read_width_bits if load else spec.write_width_bits
        moved = 0
        for run in runs:
            left = run
            while left > 0:
                left -= burst
                moved += burst
                if level == "dram":
                    self.add("dram", "load_bit" if load else "store_bit", operand, burst)
                else:
                    self.add(f"memory:{level}", "read" if load else "write", operand)
        self.add("dma", "bit", operand, moved)
        self.add("control", "step", "-")
        self.words(memory, "write" if load else "read", operand, moved)

    @staticmethod
    def cut(total: int, part: int) -> list[range]:
        return [range(i, min(i + part, total)) for i in range(0, total, part)]

    @staticmethod
    def padded(codes: int, bits: int) -> int:
        row = codes * bits
        while row % 64:
            row += 1
        return row

    def runs(self, rows: int, cols: int, whole: int, bits: int) -> list[int]:
        return [rows * self.padded(cols, bits)] if cols == whole else [cols * bits] * rows

    def tiles(self) -> Iterator[tuple[range, range, range]]:
        p, t = self.p, self.t
        rows, cols, lanes = self.cut(p.m, t.tm), self.cut(p.n, t.tn), self.cut(p.k, t.tk)
        if t.order == "activation":
            yield from ((m, n, k) for m in rows for k in lanes for n in cols)
        elif t.order == "weight":
            yield from ((m, n, k) for n in cols for k in lanes for m in rows)
        else:
            yield from ((m, n, k) for m in rows for n in cols for k in lanes)

    def run(self) -> Tally:
        p, site = self.p, self.site
        seen: set[object] = set()
        held_a: object = None
        held_w: object = None
        for level, bits in zip(site.levels, p.constant_bits, strict=False):
            if bits:
                self.transfer([bits], site.weight, "constant", load=True, level=level)
        for b in range(p.batch):
            for m, n, k in self.tiles():
                if p.a_place == "stream" and held_a != (b, m, k):
                    held_a = (b, m, k)
                    runs = self.runs(len(m), len(k), p.k, p.a.bits)
                    self.transfer(runs, site.activation, "activation", load=True, level=p.a_from)
                if p.w_place != "chip" and held_w != (b, n, k):
                    held_w = (b, n, k)
                    if p.w_place == "stream" or held_w not in seen:
                        runs = self.runs(len(n), len(k), p.k, p.w.bits)
                        self.transfer(runs, site.weight, "weight", load=True, level=p.w_from)
                    seen.add(held_w)
                self.compute(b, m, n, k)
                if k.stop == p.k:
                    self.finish(m, n)
        assert np.array_equal(self.acc, np.einsum("bmk,bnk->bmn", self.a, self.w))
        return +self.tally

    def compute(self, b: int, m: range, n: range, k: range) -> None:
        p, (block_rows, block_cols, block_lanes) = self.p, self.t.block
        a_bits, w_bits = self.array.operand_bits(p.a, p.w)
        main = "array:main"
        self.add("control", "step", "-")
        before: dict[str, object] = {}
        for rows in self.cut(len(m), block_rows):
            for cols in self.cut(len(n), block_cols):
                for lanes in self.cut(len(k), block_lanes):
                    for w_plane in range(p.w.bits // w_bits):
                        for a_plane in range(p.a.bits // a_bits):
                            for operand, block, memory, bits in (
                                ("activation", (rows, lanes, a_plane), self.site.activation,
                                 len(rows) * len(lanes) * a_bits),
                                ("weight", (cols, lanes, w_plane), self.resident,
                                 len(cols) * len(lanes) * w_bits),
                            ):  # fmt: skip
                                if before.get(operand) != block:
                                    before[operand] = block
                                    self.words(memory, "read", operand, bits)
                                    self.add(main, "operand_register_bit", operand, bits)
                            for i in rows:
                                for j in cols:
                                    self.add(main, "accumulator_update", "accumulator")
                                    for x in lanes:
                                        self.add(main, f"lane_op:{p.a}x{p.w}", "-")
                                        if w_plane == a_plane == 0:
                                            at = b, m[i], n[j]
                                            self.acc[at] += (
                                                self.a[b, m[i], k[x]] * self.w[b, n[j], k[x]]
                                            )
                self.block_result(len(rows) * len(cols), k.start == 0, k.stop == p.k)

    def block_result(self, elements: int, first: bool, last: bool) -> None:
        p, site = self.p, self.site
        wide = elements * self.array.spec.accumulator_bits
        if not first:
            self.words(site.output, "read", "accumulator", wide)
        if last and not p.epilogue:
            where = site.output if p.out_streams else site.activation
            self.words(where, "write", "output", elements * p.out.bits)
        else:
            self.words(site.output, "write", "accumulator", wide)

    def finish(self, m: range, n: range) -> None:
        p, site = self.p, self.site
        elements = len(m) * len(n)
        if p.epilogue:
            self.words(
                site.output, "read", "accumulator", elements * self.array.spec.accumulator_bits
            )
            self.words(site.weight, "read", "constant", p.constant_fetch_bits)
            for op in p.epilogue:
                self.add("vector", f"element:{op}", "output", elements)
                self.add("vector", f"row:{op}", "output", len(m))
            result = site.output if p.out_streams else site.activation
            self.words(result, "write", "output", elements * p.out.bits)
        if p.out_streams:
            runs = self.runs(len(m), len(n), p.out_row, p.out.bits)
            self.transfer(runs, site.output, "output", load=False, level=p.out_to)


def summed(counts: tuple[Count, ...]) -> Tally:
    tally: Tally = Counter()
    for c in counts:
        tally[c.component, c.action, c.operand] += c.count
    return +tally


def check(p: GemmProblem, machine_name: str, overrides: tuple[str, ...] = ()) -> None:
    machine = load_machine(machine_name, overrides)
    site, array, prices = Site(machine), machine.arrays[p.array], Prices(machine)
    power = WaitingPower.of(machine, prices)
    free = {m: 1 << 20 for m in machine.memories}
    blocks = Blocks(array, p.a, p.w, p.whole_lanes)
    tables = Tables(p, blocks, site, prices, power)
    scans = {w: Scan(tables, w) for w in ((1.0, 0.0), (0.0, 1.0))}
    found = {w: scan.within(free, np.inf, 1 << 62) for w, scan in scans.items()}
    scan, index = scans[0.0, 1.0], found[0.0, 1.0].index
    rows = [tuple(row) for row in index]
    cycle_bound = {
        tuple(row): bound
        for row, bound in zip(found[1.0, 0.0].index, found[1.0, 0.0].bound, strict=True)
    }
    rng = np.random.default_rng(3)
    for at in rng.permutation(len(index))[:SAMPLE]:
        one = index[at : at + 1]
        whole = scan.tiling(index[at])
        axes = blocks.axes(whole.tm, whole.tn, whole.tk)
        moved_pj = float(scan.transfer_pj(one)[0])
        for block in (
            tuple(int(rng.choice(x.ravel())) for x in axes),
            tuple(int(x.max()) for x in axes),
        ):
            t = replace(whole, block=block)
            mapped = build(p, t, array, site)
            counts = (*mapped.transfers, *work_counts(p, t, array, site))
            assert summed(counts) == Interpreter(p, t, array, site).run(), t
            size = tuple(np.array([x]) for x in block)
            pj = float(work_pj(p, scan.tiles(one), size, array, site, prices)[0]) + moved_pj
            assert pj == pytest.approx(prices.nominal_pj(counts), rel=1e-9)
            timeline = simulate(mapped.steps, mapped.stage)
            layout = scan.layout(one, size)
            length = layout.lengths(flow(p, site), mapped.stage, np.zeros(1), 0.0, np.inf)
            busy = layout.busy(p.batch)
            assert (length[0], busy[0][0], busy[1][0]) == (
                timeline.cycles, timeline.array_busy, timeline.vector_busy,
            )  # fmt: skip
            total = pj + power.pj(timeline.cycles, timeline.array_busy + timeline.vector_busy)
            assert timeline.bus_busy <= timeline.cycles
            assert len(timeline.links_busy) == len(site.levels)
            assert cycle_bound[rows[at]] <= timeline.cycles
            assert found[0.0, 1.0].bound[at] <= total * (1 + 1e-9)
            assert found[0.0, 1.0].bytes[at] == sum(buffer_bytes(p, t, array, site).values())


VARIANTS = {
    "all streamed": {},
    "all on chip": {"a_place": "chip", "w_place": "chip", "out_streams": False},
    "second operand is an activation": {"w_place": "chip", "w_memory": "buffer"},
    "weights fill their place once": {"w_place": "fill", "batch": 1},
    "requantised on the way out": {
        "epilogue": ("requant",),
        "out": parse("INT8"),
        "constant_fetch_bits": 100,
    },
    "requantised, kept on chip": {
        "epilogue": ("requant", "table"),
        "out": parse("INT8"),
        "out_streams": False,
    },
    "narrowed by the array": {"out": parse("INT8")},
    "narrowed by the array, kept on chip": {"out": parse("INT8"), "out_streams": False},
    "heads side by side in a row": {"out_row": 10},
    "one beat deep": {"k": 7},
    "lanes kept whole": {"whole_lanes": True},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_counts_equal_the_interpreter(name: str) -> None:
    check(replace(BASE, **VARIANTS[name]), "toy")


def test_partial_sums_are_as_wide_as_the_accumulators() -> None:
    p = replace(BASE, batch=1, m=4, n=4, k=16, out=parse("INT8"), out_row=4)
    machine = load_machine("toy")  # words of 64 bits, accumulators of 32
    array, site = machine.arrays["main"], Site(machine)

    def at(tk: int) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
        t = Tiling(4, 4, tk, "output", (4, 4, 8))
        counts = work_counts(p, t, array, site)
        moved = {(c.operand, c.action): c.count for c in counts if c.component == "memory:buffer"}
        return moved, buffer_bytes(replace(p, a_place="chip", w_place="chip"), t, array, site)

    halves, once = at(8), at(16)
    assert halves[0]["accumulator", "write"] == halves[0]["accumulator", "read"] == 8
    assert halves[0]["output", "write"] == once[0]["output", "write"] == 2
    assert ("accumulator", "read") not in once[0]
    assert halves[1] == {"buffer": 4 * 4 * 4}
    assert once[1] == {"buffer": 4 * 8}  # rows of 4 codes, each in a word


@pytest.mark.parametrize(
    ("a", "w"), [("UINT2", "TERNARY"), ("BIPOLAR", "INT3"), ("INT3", "BIPOLAR")]
)
def test_bit_planes_equal_the_interpreter(a: str, w: str) -> None:
    p = replace(
        BASE, a=parse(a), w=parse(w), m=9, n=9, k=66, batch=1, out_row=9, w_memory="weight_sram",
    )  # fmt: skip
    check(p, "bitserial_edge")


@pytest.mark.parametrize(
    "where",
    [
        {"a_from": "shared"},
        {"w_from": "shared", "constant_bits": (100, 200)},
        {"out_to": "shared", "constant_bits": (0, 200), "epilogue": ("requant",)},
        {"a_from": "shared", "w_from": "shared", "out_to": "shared"},
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_memory_behind_others_equals_the_interpreter(
    where: dict[str, object], channels: int
) -> None:
    p = replace(BASE, **where)  # type: ignore[arg-type]
    overrides = ["memories.shared.ports=2", "memories.buffer.banks=4", "memories.buffer.fixed=true"]
    check(p, str(SHARED), (*overrides, f"dma.channels={channels}", "dma.width_bits_per_cycle=256"))


def test_narrow_ports_equal_the_interpreter() -> None:
    check(BASE, "toy", ("arrays.main.activation_port_bits_per_cycle=100",))
