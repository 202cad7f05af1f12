"""Systolic integer arrays: operands travel from cell to cell, so that the ports feed only the edges.

A *fold* is what an array holds at a time, r x c cells. A stream of T steps goes through it, skewed by a
step a row and a column of cells, and takes 2r + c + T - 2 steps (SCALE-Sim: Samajdar et al., ISPASS 2020):
r to load or to drain, T to stream, r + c - 2 of skew.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Literal

from hwsim.arch.component import ArraySpec
from hwsim.arch.int_array import IntArray
from hwsim.arch.work import Beat, Fetches, Work, blocks_fetched, ceil_div, cut, parts
from hwsim.graph.dtype import DataType
from hwsim.registry import register

Step = tuple[range, range, range]
"""the M, N and K positions that meet in one step of a stream"""


class SystolicArraySpec(ArraySpec):
    """Description common to both systolic arrays."""

    overlap_folds: bool = False
    """a fold fills the cells while the one before it drains: T steps a fold, 2r + c - 2 only once"""


class OutputStationarySpec(SystolicArraySpec):
    """Description of a systolic array whose cells hold accumulators."""

    kind: Literal["systolic_output"]
    """`systolic_output`"""


class WeightStationarySpec(SystolicArraySpec):
    """Description of a systolic array whose cells hold weights."""

    kind: Literal["systolic_weight"]
    """`systolic_weight`"""


class _SystolicArray(IntArray):
    """Multiplies operands of at most 8 bits each, `lanes` neighbouring K positions in a cell.

    All cells go on together: where a port is too narrow for its edge, every step takes longer.
    """

    spec: SystolicArraySpec

    @abstractmethod
    def _folds(self, m: int, n: int, k: int) -> list[tuple[int, int, int, int]]:
        """List (rows of cells, columns, stream length, how many such folds), the largest fold first."""

    @abstractmethod
    def _streams(self, m: int, n: int, k: int) -> Iterator[tuple[int, int, list[Step]]]:
        """Yield (rows of cells, columns, steps of the stream) of every fold in order."""

    @abstractmethod
    def _step(self, step: Step, is_first: bool, a: DataType, w: DataType) -> Work:
        """Count what a step of a stream does, in the first one the loading of its fold, too."""

    def cycles(self, m: int, n: int, k: int, a: DataType, w: DataType) -> int:
        """Count the cycles that an m x n x k compute step occupies the array (pipeline depth apart)."""
        if 0 in (m, n, k):
            return 0
        folds = self._folds(m, n, k)
        if self.spec.overlap_folds:
            r, c, _, _ = folds[0]
            steps = 2 * r + c - 2 + sum(times * stream for _, _, stream, times in folds)
        else:
            steps = sum(times * (2 * r + c + stream - 2) for r, c, stream, times in folds)
        return steps * self.interval_of(m, n, k, a, w)

    def schedule(self, m: int, n: int, k: int, a: DataType, w: DataType) -> Iterator[Beat]:
        """Yield the steps of all streams in order; the first of a fold carries its 2r + c - 2."""
        interval = self.interval_of(m, n, k, a, w)
        for fold, (r, c, stream) in enumerate(self._streams(m, n, k)):
            skew = 0 if fold and self.spec.overlap_folds else 2 * r + c - 2
            for index, step in enumerate(stream):
                cycles = (1 if index else 1 + skew) * interval
                yield Beat(*step, cycles, self._step(step, index == 0, a, w))


@register("array", "systolic_output")
class OutputStationaryArray(_SystolicArray):
    """Rows hold M, columns N, and K goes by: T = ceil(K / lanes). Nothing that goes by is kept."""

    spec_class = OutputStationarySpec

    def _folds(self, m: int, n: int, k: int) -> list[tuple[int, int, int, int]]:
        s = self.spec
        stream = ceil_div(k, s.lanes)
        return [
            (r, c, stream, r_times * c_times)
            for r, r_times in parts(m, s.rows)
            for c, c_times in parts(n, s.cols)
        ]

    def _streams(self, m: int, n: int, k: int) -> Iterator[tuple[int, int, list[Step]]]:
        s = self.spec
        for i in cut(m, s.rows):
            for j in cut(n, s.cols):
                yield len(i), len(j), [(i, j, x) for x in cut(k, s.lanes)]

    def work(self, m: int, n: int, k: int, a: DataType, w: DataType) -> Work:
        """Count what an m x n x k compute step does: an operand is latched in every cell that it passes."""
        s = self.spec
        again_a, again_w = ceil_div(n, s.cols), ceil_div(m, s.rows)
        macs = m * n * k
        return Work(
            lane_ops=macs,
            accumulator_updates=m * n * ceil_div(k, s.lanes),
            activation=Fetches(
                blocks_fetched(m, k, (s.rows, s.lanes), a.bits, again_a).reads, macs * a.bits
            ),
            weight=Fetches(
                blocks_fetched(n, k, (s.cols, s.lanes), w.bits, again_w).reads, macs * w.bits
            ),
        )

    def _step(self, step: Step, is_first: bool, a: DataType, w: DataType) -> Work:
        i, j, x = map(len, step)
        return Work(
            lane_ops=i * j * x,
            accumulator_updates=i * j,
            activation=Fetches(((i * x * a.bits, 1),), i * j * x * a.bits),
            weight=Fetches(((j * x * w.bits, 1),), i * j * x * w.bits),
        )


@register("array", "systolic_weight")
class WeightStationaryArray(_SystolicArray):
    """Rows hold K, columns N, and M goes by: T = M. The sum of a column is exact, then one accumulator update.

    The weights of a fold enter through the top row of cells, a row a step.
    """

    spec_class = WeightStationarySpec

    def block(self, a: DataType, w: DataType) -> tuple[int, int, int]:
        """Return the M, N and K positions that meet in one step: a column of cells sums rows x lanes."""
        return 1, self.spec.cols, self.spec.rows * self.spec.lanes

    def initiation_interval(self, a: DataType, w: DataType, r: int, c: int, l: int) -> int:  # noqa: E741
        """Return the cycles of a step: r x l activations stream, or one row of cells gets its weights."""
        streaming = super().initiation_interval(a, w, r, 0, l)
        return max(streaming, super().initiation_interval(a, w, 0, c, min(l, self.spec.lanes)))

    def _folds(self, m: int, n: int, k: int) -> list[tuple[int, int, int, int]]:
        s = self.spec
        return [
            (ceil_div(depth, s.lanes), c, m, depth_times * c_times)
            for depth, depth_times in parts(k, s.rows * s.lanes)
            for c, c_times in parts(n, s.cols)
        ]

    def _streams(self, m: int, n: int, k: int) -> Iterator[tuple[int, int, list[Step]]]:
        s = self.spec
        for j in cut(n, s.cols):
            for x in cut(k, s.rows * s.lanes):
                yield ceil_div(len(x), s.lanes), len(j), [(i, j, x) for i in cut(m, 1)]

    def work(self, m: int, n: int, k: int, a: DataType, w: DataType) -> Work:
        """Count what an m x n x k compute step does: an operand is latched in every cell that it passes.

        The weights of row i of the cells, counted from 0, pass i + 1 registers on their way.
        """
        s = self.spec
        depth = s.rows * s.lanes
        hops = 0
        for held, times in parts(k, depth):
            full, rest = divmod(held, s.lanes)
            hops += times * (s.lanes * full * (full + 1) // 2 + rest * (full + 1))
        streamed = blocks_fetched(m, k, (1, depth), a.bits, ceil_div(n, s.cols))
        loaded = blocks_fetched(n, k, (s.cols, s.lanes), w.bits, 1 if m else 0)
        return Work(
            lane_ops=m * n * k,
            accumulator_updates=m * n * ceil_div(k, depth),
            activation=Fetches(streamed.reads, m * n * k * a.bits),
            weight=Fetches(loaded.reads, n * hops * w.bits if m else 0),
        )

    def _step(self, step: Step, is_first: bool, a: DataType, w: DataType) -> Work:
        i, j, x = map(len, step)
        rows = cut(x, self.spec.lanes) if is_first else []
        loads = [j * len(row) * w.bits for row in rows]
        return Work(
            lane_ops=i * j * x,
            accumulator_updates=i * j,
            activation=Fetches(((i * x * a.bits, 1),), i * j * x * a.bits),
            weight=Fetches(
                tuple((bits, 1) for bits in loads),
                sum(bits * (row + 1) for row, bits in enumerate(loads)),
            ),
        )
