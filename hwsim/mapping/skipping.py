"""A mapping on an array that skips empty beats: the same tiles, in less time.

The search takes all beats for occupied; what it chose is then run without the empty ones. With another
weight another mapping might have been better, so the cycles can only be too high.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from hwsim.arch.component import ArrayComponent
from hwsim.arch.work import Work, cut
from hwsim.arch.zero_skipping import Grid, occupied_blocks, skipping_cycles, skipping_work
from hwsim.engine.timing import Cycles, simulate
from hwsim.graph.ir import Node, QuantGraph
from hwsim.mapping.block import Block, part_of
from hwsim.mapping.gemm import GemmProblem, Tiling, build
from hwsim.mapping.gemm_counts import step_counts
from hwsim.mapping.layout import AXES, Order
from hwsim.mapping.mapper import Mapping
from hwsim.mapping.site import Site
from hwsim.mapping.tile import parts

Occupied = list[list[tuple[range, range, Grid]]]
"""by tile along N and K: its columns, its K positions, and which of its blocks hold anything"""


def skips(array: ArrayComponent, graph: QuantGraph, node: Node, p: GemmProblem) -> bool:
    """Tell whether an array leaves out the empty beats of a node: the weights must be constant.

    Products at the border of a convolution take a part of its weights, and all beats.
    """
    if not array.spec.zero_skipping or node.op != "linear":
        return False
    return bool(graph.constant(node, "weight").shape[1] == p.k)


def tiling_of(mapping: Mapping) -> Tiling:
    """Return the point of the mapping space that was chosen for a product."""
    tm, tn, tk = mapping.tile
    return Tiling(tm, tn, tk, cast(Order, mapping.order), cast(Block, mapping.block))


def without_empty_beats(
    mapping: Mapping, p: GemmProblem, weight: npt.NDArray[Any], array: ArrayComponent, site: Site
) -> Mapping:
    """Return the mapping of a product by a constant weight [N, K] with its empty beats left out."""
    t = tiling_of(mapping)
    part = part_of(array, t.block)
    tiles = _occupied(p, t, weight, part)
    steps: list[tuple[int, Work]] = [
        (p.batch * times, skipping_work(part, m, len(n), len(k), p.a, p.w, grid))
        for m, times in parts(p.m, t.tm)
        for row in tiles
        for n, k, grid in row
    ]
    mapped = build(p, t, array, site)
    compute = _compute(p, t, tiles, part)
    timeline = simulate(replace(mapped.steps, compute=compute), mapped.stage)
    counts = (*mapped.transfers, *step_counts(p, t, array, site, steps))
    return replace(mapping, timeline=timeline, counts=counts)


def occupied_cycles(
    p: GemmProblem, t: Tiling, weight: npt.NDArray[Any], array: ArrayComponent
) -> Cycles:
    """Return the cycles of each compute step without its empty beats, in program order: [tiles]."""
    part = part_of(array, t.block)
    return _compute(p, t, _occupied(p, t, weight, part), part)


def _occupied(
    p: GemmProblem, t: Tiling, weight: npt.NDArray[Any], part: ArrayComponent
) -> Occupied:
    _, cols, lanes = part.block(p.a, p.w)
    return [
        [(n, k, occupied_blocks(weight[n.start : n.stop, k.start : k.stop], cols, lanes))
         for k in cut(p.k, t.tk)]
        for n in cut(p.n, t.tn)
    ]  # fmt: skip


def _compute(p: GemmProblem, t: Tiling, tiles: Occupied, part: ArrayComponent) -> Cycles:
    cycles = np.array(
        [
            [
                [
                    skipping_cycles(part, len(m), len(n), len(k), p.a, p.w, grid)
                    for n, k, grid in row
                ]
                for row in tiles
            ]
            for m in cut(p.m, t.tm)
        ],
        dtype=np.int64,
    )  # [m tiles, n tiles, k tiles]
    return np.tile(cycles.transpose(AXES[t.order]).reshape(-1), p.batch)
