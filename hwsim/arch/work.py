"""What an array does in one compute step: its beats in order, and the counts that energy is made of.

The beats (`ArrayComponent.schedule`) are the definition; the closed forms of cycles and counts are held
against them by `hwsim.conformance`. `docs/machine.md` defines the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def ceil_div(a: int, b: int) -> int:
    """Divide whole numbers, rounding up."""
    return -(-a // b)


def parts(total: int, part: int) -> tuple[tuple[int, int], ...]:
    """Cut `total` into parts: ((size, how many), ...), at most one full and one remainder.

    >>> parts(10, 4), parts(8, 4), parts(3, 4)
    (((4, 2), (2, 1)), ((4, 2),), ((3, 1),))
    """
    full, rest = divmod(total, part)
    sized = ((part, full),) if full else ()
    return (*sized, (rest, 1)) if rest else sized


def cut(total: int, part: int) -> list[range]:
    """Cut 0 .. total into consecutive ranges of at most `part`."""
    return [range(i, min(i + part, total)) for i in range(0, total, part)]


@dataclass(frozen=True, slots=True)
class Fetches:
    """How one operand enters an array.

    `reads` lists (bits of one fetch from memory, how often). `register_bits` are the bits written into
    operand registers: those of every register that a travelling operand passes.
    """

    reads: tuple[tuple[int, int], ...] = ()
    register_bits: int = 0

    @property
    def read_bits(self) -> int:
        """Bits fetched from memory, all together."""
        return sum(bits * times for bits, times in self.reads)


@dataclass(frozen=True, slots=True)
class Work:
    """Counts of a compute step, or of one beat of it. `own` counts actions of this kind of array alone."""

    lane_ops: int
    accumulator_updates: int
    activation: Fetches
    weight: Fetches
    own: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Beat:
    """One beat: the block that it multiplies in one pass, positions within the compute step.

    `cycles` is what the beat adds to the time that the array is held, whatever it waited for included.
    """

    m: range
    n: range
    k: range
    cycles: int
    work: Work


def blocks_fetched(
    rows: int, depth: int, block: tuple[int, int], bits: int, times: int = 1
) -> Fetches:
    """Return the fetches of an operand [rows, depth] that enters block by block, each block `times` over.

    Args:
        rows: rows of the operand in the compute step.
        depth: K positions of the compute step.
        block: rows and K positions of a full block.
        bits: bits of one element that enter at a time.
        times: how often each block enters.
    """
    sized = [
        (r * d * bits, r_times * d_times * times)
        for d, d_times in parts(depth, block[1])
        for r, r_times in parts(rows, block[0])
    ]
    return Fetches(tuple(sized), sum(size * n for size, n in sized))


def filled_cycles(fills: Sequence[tuple[int, int]], use: int, shadow: bool) -> int:
    """Return the cycles of blocks that are each filled and then used.

    Args:
        fills: (cycles to fill a block, how many such blocks); the first block is of the first entry.
        use: cycles that each block is used for.
        shadow: the next block is filled while one is used, so that only the first is waited for in full.
    """
    if not fills:
        return 0
    if not shadow:
        return sum(times * (fill + use) for fill, times in fills)
    first = fills[0][0]
    rest = sum(times * max(fill, use) for fill, times in fills) - max(first, use)
    return first + rest + use


def waiting_cycles(fill: int, use: int, shadow: bool, is_first: bool) -> int:
    """Return how long the first beat of one of those blocks waits for the filling of its block."""
    return max(0, fill - use) if shadow and not is_first else fill
