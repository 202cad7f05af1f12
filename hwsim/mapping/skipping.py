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
from hwsim.arch.zero_skipping import occupied_blocks, skipping_cycles, skipping_work
from hwsim.engine.timing import simulate
from hwsim.mapping.block import Block, part_of
from hwsim.mapping.gemm import GemmProblem, Tiling, build
from hwsim.mapping.gemm_counts import step_counts
from hwsim.mapping.layout import AXES, Order
from hwsim.mapping.mapper import Mapping
from hwsim.mapping.site import Site
from hwsim.mapping.tile import parts


def without_empty_beats(
    mapping: Mapping, p: GemmProblem, weight: npt.NDArray[Any], array: ArrayComponent, site: Site
) -> Mapping:
    """Return the mapping of a product by a constant weight [N, K] with its empty beats left out."""
    tm, tn, tk = mapping.tile
    t = Tiling(tm, tn, tk, cast(Order, mapping.order), cast(Block, mapping.block))
    part = part_of(array, t.block)
    _, cols, lanes = part.block(p.a, p.w)
    tiles = [
        [(n, k, occupied_blocks(weight[n.start : n.stop, k.start : k.stop], cols, lanes))
         for k in cut(p.k, tk)]
        for n in cut(p.n, tn)
    ]  # fmt: skip
    cycles = np.array(
        [
            [
                [
                    skipping_cycles(part, len(m), len(n), len(k), p.a, p.w, grid)
                    for n, k, grid in row
                ]
                for row in tiles
            ]
            for m in cut(p.m, tm)
        ],
        dtype=np.int64,
    )  # [m tiles, n tiles, k tiles]
    steps: list[tuple[int, Work]] = [
        (p.batch * times, skipping_work(part, m, len(n), len(k), p.a, p.w, grid))
        for m, times in parts(p.m, tm)
        for row in tiles
        for n, k, grid in row
    ]
    mapped = build(p, t, array, site)
    compute = np.tile(cycles.transpose(AXES[t.order]).reshape(-1), p.batch)
    timeline = simulate(replace(mapped.steps, compute=compute), mapped.stage)
    counts = (*mapped.transfers, *step_counts(p, t, array, site, steps))
    return replace(mapping, timeline=timeline, counts=counts)
