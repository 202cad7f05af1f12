"""Sub-blocks of an array: which there are, and what each costs on the tiles of one candidate.

A beat may use any r <= R rows, c <= C columns and l <= L lanes. A product cut in beats of r x c x l costs
what it costs on an array of just that size, so nothing else needs to know of sub-blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.arch.component import ArrayComponent
from hwsim.graph.dtype import DataType
from hwsim.mapping.tile import tile_sizes

Block = tuple[int, int, int]
"""(rows, columns, lanes) of a beat"""
Grid = npt.NDArray[Any]
MOST_SIZES = 384
"""Tile sizes of a dimension; only dimensions of tens of thousands have more."""
MOST_SIZES_WHOLE = 12
"""Likewise on an array that is used whole, which is asked for the price of every tile."""

_COMMON = (
    "block",
    "beats",
    "interval_of",
    "initiation_interval",
    "cycles",
    "planes",
    "work",
    "schedule",
)
"""What a kind of array must not have made its own to be cut in sub-blocks."""


@lru_cache(maxsize=4096)
def part_of(array: ArrayComponent, block: Block) -> ArrayComponent:
    """Return the array as if it had only the rows, columns and lanes of a block."""
    s = array.spec
    if block == (s.rows, s.cols, s.lanes) or not is_divisible(array):
        return array
    r, c, l = block  # noqa: E741
    return type(array)(array.name, s.model_copy(update={"rows": r, "cols": c, "lanes": l}))


def is_divisible(array: ArrayComponent) -> bool:
    """Tell whether an array works as all arrays do, so that sub-blocks are understood.

    A kind with blocks, beats, cycles or counts of its own is used whole.
    """
    base, own = ArrayComponent, type(array)
    return all(getattr(own, name) is getattr(base, name) for name in _COMMON)


@dataclass(frozen=True, slots=True)
class Blocks:
    """All sub-blocks of an array for a pair of formats, as three axes of a grid [r, c, l].

    `whole_lanes` keeps l = L: where an accumulator may overflow, the result depends on what is summed
    in one beat.
    """

    array: ArrayComponent
    a: DataType
    w: DataType
    whole_lanes: bool

    @property
    def full(self) -> Block:
        """The whole array."""
        return self.array.block(self.a, self.w)

    @property
    def whole(self) -> tuple[Grid, Grid, Grid]:
        """The whole array, as arrays of one entry."""
        r, c, l = self.full  # noqa: E741
        return np.array(r), np.array(c), np.array(l)

    @property
    def least(self) -> Block:
        """The smallest sub-block in each direction."""
        if not is_divisible(self.array):
            return self.full
        return 1, 1, self.full[2] if self.whole_lanes else 1

    def axes(self, tm: int, tn: int, tk: int) -> tuple[Grid, Grid, Grid]:
        """Return the rows [r, 1, 1], columns [1, c, 1] and lanes [1, 1, l] worth trying on a tile.

        A block larger than the tile is as large as the tile.
        """
        found = []
        for axis, (low, high, size) in enumerate(
            zip(self.least, self.full, (tm, tn, tk), strict=True)
        ):
            # Where l is fixed, or the array is used whole, it keeps its own size.
            top = high if low == high else min(high, size)
            shape = [1, 1, 1]
            shape[axis] = -1
            found.append(np.arange(min(low, top), top + 1, dtype=np.int64).reshape(shape))
        return found[0], found[1], found[2]

    def sizes(self, axis: int, total: int) -> tuple[int, ...]:
        """List the tile sizes of a dimension: 0 M, 1 N, 2 K; of too many an even choice by rank, both ends included."""
        sizes = tile_sizes(total, self.full[axis], self.least[axis])
        most = MOST_SIZES if is_divisible(self.array) else MOST_SIZES_WHOLE
        if len(sizes) <= most:
            return sizes
        last = len(sizes) - 1
        return tuple(sizes[i * last // (most - 1)] for i in range(most))

    def cycles(self, m: Grid, n: Grid, k: Grid, block: tuple[Grid, Grid, Grid]) -> Grid:
        """Count the cycles of m x n x k compute steps with given sub-blocks, as far as they broadcast.

        A step of no size takes none.
        """
        if not is_divisible(self.array):
            sizes = np.broadcast_arrays(m, n, k)
            asked = (_own_cycles(self.array, self.a, self.w, *map(int, x)) for x in _each(sizes))
            return np.fromiter(asked, np.int64, sizes[0].size).reshape(sizes[0].shape)
        s, (r, c, l) = self.array.spec, block  # noqa: E741
        a_bits, w_bits = self.array.operand_bits(self.a, self.w)
        used_r, used_c, used_l = np.minimum(r, m), np.minimum(c, n), np.minimum(l, k)
        interval = np.maximum(
            s.initiation_interval_cycles,
            np.maximum(
                -(-used_r * used_l * a_bits // s.activation_port_bits_per_cycle),
                -(-used_c * used_l * w_bits // s.weight_port_bits_per_cycle),
            ),
        )
        beats = -(-m // r) * -(-n // c) * -(-k // l) * self.array.passes(self.a, self.w)
        return np.asarray(beats * interval)

    def least_cycles(self, m: int, n: int, k: int) -> int:
        """Return a lower bound of the cycles of an m x n x k product, however it is cut."""
        if not is_divisible(self.array):
            return 0  # its cycles may follow any rule
        if self.full_is_fastest():
            return self.array.cycles(m, n, k, self.a, self.w)
        s, (rows, cols, lanes) = self.array.spec, self.full
        a_bits, w_bits = self.array.operand_bits(self.a, self.w)
        # All bits of A pass their port once for each block of columns, those of W for each block of rows.
        beats = -(-m // rows) * -(-n // cols) * -(-k // lanes) * s.initiation_interval_cycles
        a_held = -(-m * k * a_bits // s.activation_port_bits_per_cycle) * -(-n // cols)
        w_held = -(-n * k * w_bits // s.weight_port_bits_per_cycle) * -(-m // rows)
        passed = self.array.passes(self.a, self.w) * max(beats, a_held, w_held)
        return max(passed, int(m * n * k * self.cycles_per_product() * (1 - 1e-9)))

    def full_is_fastest(self) -> bool:
        """Tell whether no sub-block ever takes fewer cycles than the whole array.

        So it is where the ports deliver a whole block in the array's own initiation interval.
        """
        if self.least == self.full:
            return True
        interval = self.array.initiation_interval(self.a, self.w, *self.full)
        return interval == self.array.spec.initiation_interval_cycles

    def cycles_per_product(self) -> float:
        """Return a lower bound of cycles for one multiplication of codes, over all sub-blocks."""
        r, c, l = block = self.axes(*self.full)  # noqa: E741
        m, n, k = (np.array(size) for size in self.full)
        covered = -(-m // r) * r * (-(-n // c) * c) * (-(-k // l) * l)
        return float((self.cycles(m, n, k, block) / covered).min())


def _each(sizes: Sequence[Grid]) -> Iterator[tuple[Any, ...]]:
    return zip(*(size.ravel() for size in sizes), strict=True)


@lru_cache(maxsize=1 << 16)
def _own_cycles(array: ArrayComponent, a: DataType, w: DataType, m: int, n: int, k: int) -> int:
    return array.cycles(m, n, k, a, w) if m and n and k else 0
