"""The tile sizes of one dimension, and what moving the tiles of two of them costs: columns of `Tables`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cut:
    """All tile sizes of one dimension: [n] each. `rest` is the size of a last, smaller tile, or 0."""

    total: int
    size: Ints
    full: Ints
    rest: Ints

    @classmethod
    def of(cls, total: int, sizes: tuple[int, ...]) -> Cut:
        """Cut a dimension by each of some sizes."""
        size = np.array(sizes, dtype=np.int64)
        return cls(total, size, total // size, total % size)

    @property
    def tiles(self) -> Ints:
        """How many tiles: [n]."""
        return self.full + (self.rest > 0)

    @property
    def last(self) -> Ints:
        """Size of the last tile: [n]."""
        return np.where(self.rest > 0, self.rest, self.size)

    def blocks(self, block: int) -> Ints:
        """How many blocks all tiles have together: [n]."""
        return self.full * blocks_in(self.size, block) + blocks_in(self.rest, block)

    def parts(self) -> tuple[tuple[Ints, Ints], ...]:
        """(size, how many) of the full tiles and of the last, smaller one."""
        return (self.size, self.full), (self.rest, (self.rest > 0).astype(np.int64))


def blocks_in(a: Ints, b: int) -> Ints:
    """Divide whole numbers, rounding up."""
    return np.asarray(-(-a // b))


@dataclass(frozen=True, slots=True)
class Transfers:
    """Moving all tiles of an operand between DRAM and a memory once: tables [rows, columns]."""

    cycles: Ints
    """bus cycles of all tiles"""
    pj: Floats
    """energy of all tiles"""
    first: Ints
    """bus cycles of a full tile"""
    last: Ints
    """bus cycles of the last tile"""
    kinds: Ints
    """bus cycles by kind, full or last: [2, 2, rows, columns]"""

    @classmethod
    def none(cls, rows: Cut, cols: Cut) -> Transfers:
        """Return the tables of an operand that stays on chip."""
        zero = np.zeros((len(rows.size), len(cols.size)), dtype=np.int64)
        return cls(
            zero, zero.astype(np.float64), zero, zero, np.zeros((2, 2, *zero.shape), np.int64)
        )
