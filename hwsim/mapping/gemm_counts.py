"""What the array, the memories around it and the vector unit do in one mapped matrix product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwsim.arch.component import ArrayComponent, ceil_div
from hwsim.arch.work import Work
from hwsim.engine.energy import Count, Prices, array_counts
from hwsim.mapping.block import Grid, part_of
from hwsim.mapping.gemm import GemmProblem, Tiling
from hwsim.mapping.site import Site
from hwsim.mapping.tile import code_bits, parts


def work_counts(p: GemmProblem, t: Tiling, array: ArrayComponent, site: Site) -> tuple[Count, ...]:
    """Count what the array, the memories around it and the fused vector operators do.

    Sums over at most two sizes of tile in each dimension: exact, and independent of the number of tiles.
    """
    part = part_of(array, t.block)
    steps = [
        (p.batch * m_times * n_times * k_times, part.work(tm, tn, tk, p.a, p.w))
        for tm, m_times in parts(p.m, t.tm)
        for tn, n_times in parts(p.n, t.tn)
        for tk, k_times in parts(p.k, t.tk)
    ]
    return step_counts(p, t, array, site, steps)


def step_counts(
    p: GemmProblem,
    t: Tiling,
    array: ArrayComponent,
    site: Site,
    steps: Sequence[tuple[int, Work]],
) -> tuple[Count, ...]:
    """Count as `work_counts` does, of given compute steps: (how many, what one of them does)."""
    counts = array_counts(array, p.a, p.w, steps)
    w_memory = p.w_memory if p.w_place == "chip" else site.weight
    for operand, memory in (("activation", site.activation), ("weight", w_memory)):
        reads = sum(
            times * again * site.reads(memory, bits)
            for times, work in steps
            for bits, again in (work.activation if operand == "activation" else work.weight).reads
        )
        counts.append(Count(f"memory:{memory}", "read", operand, reads))
    counts += site.control(sum(times for times, _ in steps))
    return (*counts, *_result_counts(p, t, array, site))


def _result_counts(p: GemmProblem, t: Tiling, array: ArrayComponent, site: Site) -> list[Count]:
    """Count the traffic of accumulators and results, and the fused vector operators.

    Partial sums of a split K go to the output memory and come back at the width of the accumulators. With an
    epilogue the finished ones do, too, and the vector unit writes the result; without, the array writes it
    itself. A result that stays on chip is written where it stays.
    """
    block_rows, block_cols, _ = part_of(array, t.block).block(p.a, p.w)
    result = site.output if p.out_streams else site.activation
    sum_bits = array.spec.accumulator_bits
    partial = ceil_div(p.k, t.tk) - 1
    writes = reads = result_writes = constant_reads = rows = 0
    for tm, m_times in parts(p.m, t.tm):
        for tn, n_times in parts(p.n, t.tn):
            times = p.batch * m_times * n_times
            rows += times * tm
            for r, r_times in parts(tm, block_rows):
                for c, c_times in parts(tn, block_cols):
                    blocks = times * r_times * c_times
                    bits = r * c * sum_bits
                    finished = 1 if p.epilogue else 0
                    writes += (partial + finished) * blocks * site.writes(site.output, bits)
                    reads += partial * blocks * site.reads(site.output, bits)
                    if not p.epilogue:
                        result_writes += blocks * site.writes(result, r * c * p.out.bits)
            if p.epilogue:
                reads += times * site.reads(site.output, tm * tn * sum_bits)
                result_writes += times * site.writes(result, tm * code_bits(p.out, tn))
                constant_reads += times * site.reads(site.weight, p.constant_fetch_bits)
    elements = p.batch * p.m * p.n
    counts = [
        Count(f"memory:{site.output}", "write", "accumulator", writes),
        Count(f"memory:{site.output}", "read", "accumulator", reads),
        Count(f"memory:{result}", "write", "output", result_writes),
        Count(f"memory:{site.weight}", "read", "constant", constant_reads),
    ]
    for op in p.epilogue:
        counts.append(Count("vector", f"element:{op}", "output", elements))
        counts.append(Count("vector", f"row:{op}", "output", rows))
    return [c for c in counts if c.count]


def work_pj(
    p: GemmProblem,
    tile: tuple[Grid, Grid, Grid],
    block: tuple[Grid, Grid, Grid],
    array: ArrayComponent,
    site: Site,
    prices: Prices,
) -> Grid:
    """Return the nominal energy of `work_counts` for many candidates at once: pJ.

    Args:
        p: the product.
        tile: tm, tn and tk.
        block: rows, columns and lanes of a beat; all six broadcast to the shape of the result.
        array: an array that works as all arrays do.
        site: memories by role.
        prices: unit energies.
    """
    (tm, tn, tk), (r, c, l) = tile, block  # noqa: E741
    passes, (a_planes, w_planes) = array.passes(p.a, p.w), array.planes(p.a, p.w)
    a_bits, w_bits = array.operand_bits(p.a, p.w)
    w_memory = p.w_memory if p.w_place == "chip" else site.weight
    result = site.output if p.out_streams else site.activation
    sum_bits = array.spec.accumulator_bits
    name = f"array:{array.name}"
    register_pj = prices.price(name, "operand_register_bit").pj
    update_pj = passes * prices.price(name, "accumulator_update").pj
    step_pj = prices.price("control", "step").pj if site.has_control else 0.0
    partial = -(-p.k // tk) - 1

    def access_pj(memory: str, action: str, bits: Grid) -> Grid:
        spec = site.machine.memories[memory].spec
        width = spec.read_width_bits if action == "read" else spec.write_width_bits
        return np.asarray(-(-bits // width) * prices.price(f"memory:{memory}", action).pj)

    def fetch_pj(memory: str, rows: Grid, depth: Grid, row: Grid, bits: int) -> Grid:
        """Energy of fetching a rows x depth tile once, block by block."""
        once: Grid = np.asarray(rows * depth * bits * register_pj)
        for height, times in _cut(rows, row):
            for lanes, deep in _cut(depth, l):
                once = once + times * deep * access_pj(memory, "read", height * lanes * bits)
        return np.asarray(once)

    once = p.batch * p.m * p.n * p.k * passes * prices.price(name, f"lane_op:{p.a}x{p.w}").pj
    elements = p.batch * p.m * p.n
    once += elements * sum(prices.price("vector", f"element:{op}").pj for op in p.epilogue)
    row_pj = sum(prices.price("vector", f"row:{op}").pj for op in p.epilogue)
    total: Grid = np.full(np.broadcast_shapes(*(x.shape for x in (*tile, *block))), once)
    for height_m, m_times in _cut(p.m, tm):
        for width_n, n_times in _cut(p.n, tn):
            times = p.batch * m_times * n_times
            for height, high in _cut(height_m, r):
                for width, wide in _cut(width_n, c):
                    size = height * width
                    write_pj = access_pj(site.output, "write", size * sum_bits)
                    block_pj = partial * (
                        write_pj + access_pj(site.output, "read", size * sum_bits)
                    )
                    if p.epilogue:
                        block_pj = block_pj + write_pj
                    else:
                        block_pj = block_pj + access_pj(result, "write", size * p.out.bits)
                    total += times * high * wide * block_pj
            if p.epilogue:
                total += times * height_m * row_pj
                total += times * access_pj(site.output, "read", height_m * width_n * sum_bits)
                total += times * access_pj(result, "write", height_m * width_n * p.out.bits)
                total += times * access_pj(site.weight, "read", np.array(p.constant_fetch_bits))
            for depth_k, k_times in _cut(p.k, tk):
                steps = times * k_times
                m_blocks, n_blocks, k_blocks = -(-height_m // r), -(-width_n // c), -(-depth_k // l)
                total += steps * height_m * width_n * k_blocks * update_pj
                total += steps * step_pj
                a_again = np.where((a_planes == 1) & (k_blocks == 1), 1, n_blocks)
                a_again = a_again * (passes if a_planes > 1 else 1)
                w_once = (w_planes == 1) & (k_blocks == 1) & (n_blocks == 1)
                w_again = np.where(w_once, 1, m_blocks) * w_planes
                total += steps * a_again * fetch_pj(site.activation, height_m, depth_k, r, a_bits)
                total += steps * w_again * fetch_pj(w_memory, width_n, depth_k, c, w_bits)
    return total


def _cut(total: int | Grid, size: Grid) -> tuple[tuple[Grid, Grid], tuple[Grid, Grid]]:
    """Cut by sizes: (size, how many) of the full parts, and of the rest."""
    rest = np.asarray(total % size)
    return (np.minimum(size, total), np.asarray(total // size)), (rest, (rest > 0).astype(np.int64))
