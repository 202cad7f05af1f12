"""The mapping space of a product as its definition says it, with plain loops. Shares no code with the mapper."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

from hwsim.arch.component import ArrayComponent
from hwsim.mapping.gemm import GemmProblem, Tiling


def sizes(dimension: int, block: int, least: int) -> set[int]:
    """Every ceiling of dimension / j, rounded up to every allowed block."""
    found = set()
    for j in range(1, dimension + 1):
        for b in range(min(least, dimension), min(block, dimension) + 1):
            size = b
            while size < math.ceil(dimension / j):
                size += b
            found.add(min(size, dimension))
    return found


def every_tiling(p: GemmProblem, array: ArrayComponent) -> Iterator[Tiling]:
    """Every tile with every order, those included that are the same sequence; the array whole."""
    s = array.spec
    lanes = s.lanes if p.whole_lanes else 1
    for tm, tn, tk in product(
        sizes(p.m, s.rows, 1), sizes(p.n, s.cols, 1), sizes(p.k, s.lanes, lanes)
    ):
        for order in ("activation", "weight", "output"):
            yield Tiling(tm, tn, tk, order, (s.rows, s.cols, s.lanes))


def every_block(p: GemmProblem, t: Tiling, array: ArrayComponent) -> Iterator[tuple[int, int, int]]:
    """Every sub-block; one that is larger than the tile is the tile."""
    s = array.spec
    lanes = range(1, min(s.lanes, t.tk) + 1)
    yield from product(
        range(1, min(s.rows, t.tm) + 1),
        range(1, min(s.cols, t.tn) + 1),
        (s.lanes,) if p.whole_lanes else lanes,
    )
