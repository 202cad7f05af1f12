"""Counts of a mapped product against an interpreter that moves one word and does one MAC at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from hwsim.arch.component import ArrayComponent
from hwsim.config.load import load_machine
from hwsim.engine.energy import Count
from hwsim.engine.timing import simulate
from hwsim.graph.dtype import parse
from hwsim.mapping.gemm import GemmProblem, Tiling, build, lower_bound, work_counts
from hwsim.mapping.mapper import tilings
from hwsim.mapping.site import Site

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
    constant_bits=0,
    constant_fetch_bits=0,
    free_bytes=(("buffer", 1 << 20), ("weights", 1 << 20)),
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

    def transfer(self, runs: list[int], memory: str, operand: str, load: bool) -> None:
        moved = 0
        for run in runs:
            left = run
            while left > 0:
                left -= self.site.link.burst_bits
                moved += self.site.link.burst_bits
        self.add("dram", "load_bit" if load else "store_bit", operand, moved)
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
        if t.order == "weight":
            yield from (
                (m, n, range(p.k)) for n in self.cut(p.n, t.tn) for m in self.cut(p.m, t.tm)
            )
            return
        for m in self.cut(p.m, t.tm):
            for n in self.cut(p.n, t.tn):
                yield from ((m, n, k) for k in self.cut(p.k, t.tk))

    def run(self) -> Tally:
        p, site = self.p, self.site
        seen: set[object] = set()
        held_a: object = None
        held_w: object = None
        for b in range(p.batch):
            for m, n, k in self.tiles():
                if p.a_place == "stream" and held_a != (b, m, k):
                    held_a = (b, m, k)
                    runs = self.runs(len(m), len(k), p.k, p.a.bits)
                    self.transfer(runs, site.activation, "activation", load=True)
                if p.w_place != "chip" and held_w != (b, n, k):
                    held_w = (b, n, k)
                    if p.w_place == "stream" or held_w not in seen:
                        runs = self.runs(len(n), len(k), p.k, p.w.bits)
                        self.transfer(runs, site.weight, "weight", load=True)
                    seen.add(held_w)
                self.compute(b, m, n, k)
                if k.stop == p.k:
                    self.finish(m, n)
        assert np.array_equal(self.acc, np.einsum("bmk,bnk->bmn", self.a, self.w))
        return +self.tally

    def compute(self, b: int, m: range, n: range, k: range) -> None:
        p, s = self.p, self.array.spec
        a_bits, w_bits = self.array.operand_bits(p.a, p.w)
        main = "array:main"
        self.add("control", "step", "-")
        before: dict[str, object] = {}
        for rows in self.cut(len(m), s.rows):
            for cols in self.cut(len(n), s.cols):
                for lanes in self.cut(len(k), s.lanes):
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
                self.block_result(len(rows) * len(cols), first=k.start == 0)

    def block_result(self, elements: int, first: bool) -> None:
        p, site = self.p, self.site
        if p.epilogue:
            memory, bits, operand = site.output, self.array.spec.accumulator_bits, "accumulator"
        else:
            memory = site.output if p.out_streams else site.activation
            bits, operand = p.out.bits, "output"
        if not first:
            self.words(memory, "read", "accumulator", elements * bits)
        self.words(memory, "write", operand, elements * bits)

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
            self.transfer(runs, site.output, "output", load=False)


def summed(counts: tuple[Count, ...]) -> Tally:
    tally: Tally = Counter()
    for c in counts:
        tally[c.component, c.action, c.operand] += c.count
    return +tally


def check(p: GemmProblem, machine_name: str) -> None:
    machine = load_machine(machine_name)
    site, array = Site(machine), machine.arrays[p.array]
    space = list(tilings(p, array))
    assert space
    for t in space:
        mapped = build(p, t, array, site)
        got = summed((*mapped.transfers, *work_counts(p, t, array, site)))
        assert got == Interpreter(p, t, array, site).run(), t
        assert int(mapped.steps.compute.sum()) >= p.batch * array.beats(p.m, p.n, p.k, p.a, p.w)
        timeline = simulate(mapped.steps, mapped.stage)
        assert timeline.bus_busy <= lower_bound(p, t, array, site) <= timeline.cycles


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
    "heads side by side in a row": {"out_row": 10},
    "one beat deep": {"k": 7},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_counts_equal_the_interpreter(name: str) -> None:
    check(replace(BASE, **VARIANTS[name]), "toy")


@pytest.mark.parametrize(
    ("a", "w"), [("UINT2", "TERNARY"), ("BIPOLAR", "INT3"), ("INT3", "BIPOLAR")]
)
def test_bit_planes_equal_the_interpreter(a: str, w: str) -> None:
    p = replace(
        BASE, a=parse(a), w=parse(w), m=9, n=10, k=70, batch=1, out_row=10, w_memory="weight_sram",
        free_bytes=(("activation_sram", 1 << 20), ("weight_sram", 1 << 20)),
    )  # fmt: skip
    check(p, "bitserial_edge")
