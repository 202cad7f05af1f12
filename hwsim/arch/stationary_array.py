"""Arrays that hold a block of weights while all rows of a compute step go by, without travelling operands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from hwsim.arch.component import ArraySpec
from hwsim.arch.int_array import IntArray
from hwsim.arch.work import (
    Beat,
    Fetches,
    Work,
    blocks_fetched,
    ceil_div,
    cut,
    filled_cycles,
    parts,
    waiting_cycles,
)
from hwsim.graph.dtype import DataType
from hwsim.registry import register


class HeldWeightsSpec(ArraySpec):
    """Description common to arrays whose weights stay in the cells."""

    weight_shadow: bool = False
    """a second set of weight registers is loaded while the first is used"""


class StationaryArraySpec(HeldWeightsSpec):
    """Description of a weight-stationary array."""

    kind: Literal["weight_stationary"]
    """`weight_stationary`"""


@register("array", "weight_stationary")
class StationaryArray(IntArray):
    """Multiplies operands of at most 8 bits each; every activation goes to all columns at once.

    A block of c x l weights is loaded in ceil(c * l * bits / port bits) cycles, and then ceil(M / rows)
    beats use it. With `weight_shadow` the next block is loaded meanwhile; the first of a compute step is
    waited for all the same. Blocks run n, k; beats of a block m.
    """

    spec_class: ClassVar[type[ArraySpec]] = StationaryArraySpec
    spec: HeldWeightsSpec

    def load_cycles(self, c: int, l: int, w: DataType) -> int:  # noqa: E741
        """Return the cycles that loading a block of c x l weights takes."""
        return ceil_div(c * l * w.bits, self.spec.weight_port_bits_per_cycle)

    def initiation_interval(self, a: DataType, w: DataType, r: int, c: int, l: int) -> int:  # noqa: E741
        """Return the cycles between two beats; no weight enters in a beat."""
        return super().initiation_interval(a, w, r, 0, l)

    def cycles(self, m: int, n: int, k: int, a: DataType, w: DataType) -> int:
        """Count the cycles that an m x n x k compute step occupies the array (pipeline depth apart)."""
        if m == 0:
            return 0
        rows, cols, lanes = self.block(a, w)
        loads = [
            (self.load_cycles(c, depth, w), c_times * d_times)
            for c, c_times in parts(n, cols)
            for depth, d_times in parts(k, lanes)
        ]
        use = ceil_div(m, rows) * self.interval_of(m, n, k, a, w)
        return filled_cycles(loads, use, self.spec.weight_shadow)

    def work(self, m: int, n: int, k: int, a: DataType, w: DataType) -> Work:
        """Count what an m x n x k compute step does: each block of weights is fetched once."""
        rows, cols, lanes = self.block(a, w)
        n_blocks, k_blocks = ceil_div(n, cols), ceil_div(k, lanes)
        again = 1 if ceil_div(m, rows) == 1 and k_blocks == 1 else n_blocks
        return Work(
            lane_ops=m * n * k,
            accumulator_updates=m * n * k_blocks,
            activation=blocks_fetched(m, k, (rows, lanes), a.bits, again if n else 0),
            weight=blocks_fetched(n, k, (cols, lanes), w.bits, 1 if m else 0),
        )

    def schedule(self, m: int, n: int, k: int, a: DataType, w: DataType) -> Iterator[Beat]:
        """Yield the beats of an m x n x k compute step in order; the first of a block waits for its weights."""
        rows, cols, lanes = self.block(a, w)
        interval = self.interval_of(m, n, k, a, w)
        use = ceil_div(m, rows) * interval
        held: object = None
        blocks = [(j, x) for j in cut(n, cols) for x in cut(k, lanes)]
        for index, (j, x) in enumerate(blocks):
            load = self.load_cycles(len(j), len(x), w)
            wait = waiting_cycles(load, use, self.spec.weight_shadow, index == 0)
            bits = len(j) * len(x) * w.bits
            weight = Fetches(((bits, 1),), bits)
            for i in cut(m, rows):
                size = len(i) * len(x) * a.bits
                work = Work(
                    lane_ops=len(i) * len(j) * len(x),
                    accumulator_updates=len(i) * len(j),
                    activation=Fetches(((size, 1),), size) if held != (i, x) else Fetches(),
                    weight=weight,
                )
                yield Beat(i, j, x, wait + interval, work)
                held, wait, weight = (i, x), 0, Fetches()
