"""Beats that an array leaves out because all their weights are zero.

Which blocks of a constant weight hold anything is known before a run, so skipping changes cycles and
counts, and never results: a product by zero adds nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.arch.component import ArrayComponent
from hwsim.arch.work import Fetches, Work, ceil_div, cut, parts
from hwsim.graph.dtype import DataType

Grid = npt.NDArray[np.bool_]
"""[n blocks, k blocks]: whether a block of weights holds one that is not zero"""


def occupied_blocks(weight: npt.NDArray[Any], cols: int, lanes: int) -> Grid:
    """Return which blocks of cols x lanes of a weight [N, K] hold one that is not zero."""
    n, k = weight.shape
    full = np.zeros((ceil_div(n, cols) * cols, ceil_div(k, lanes) * lanes), np.bool_)
    full[:n, :k] = weight != 0
    blocks = full.reshape(full.shape[0] // cols, cols, full.shape[1] // lanes, lanes)
    return np.asarray(blocks.any(axis=(1, 3)))


def skipping_cycles(
    array: ArrayComponent, m: int, n: int, k: int, a: DataType, w: DataType, grid: Grid
) -> int:
    """Count the cycles of an m x n x k compute step whose empty blocks take no beat.

    Args:
        array: an array that skips beats; they run m, n, k and take one pass.
        m: rows of the step.
        n: columns of the step.
        k: K positions of the step.
        a: type of the activation.
        w: type of the weight.
        grid: the step's occupied blocks.
    """
    beats = ceil_div(m, array.block(a, w)[0]) * int(grid.sum())
    return beats * array.interval_of(m, n, k, a, w)


def skipping_work(
    array: ArrayComponent, m: int, n: int, k: int, a: DataType, w: DataType, grid: Grid
) -> Work:
    """Count what that compute step does; arguments as in `skipping_cycles`.

    A block is fetched whenever it differs from that of the beat before, which is the last one not skipped.
    """
    rows, cols, lanes = array.block(a, w)
    widths, depths = ([len(x) for x in cut(size, part)] for size, part in ((n, cols), (k, lanes)))
    beats = [(int(i), int(j)) for i, j in np.argwhere(grid)]
    again = 1 if len(beats) == 1 else ceil_div(m, rows)
    w_reads = [(widths[i] * depths[j] * w.bits, again) for i, j in beats]
    changes = [j for at, (_, j) in enumerate(beats) if at == 0 or j != beats[at - 1][1]]
    a_reads = [(r * depths[j] * a.bits, times) for j in changes for r, times in parts(m, rows)]
    return Work(
        lane_ops=sum(m * widths[i] * depths[j] for i, j in beats),
        accumulator_updates=sum(m * widths[i] for i, _ in beats),
        activation=Fetches(tuple(a_reads), sum(bits * times for bits, times in a_reads)),
        weight=Fetches(tuple(w_reads), sum(bits * times for bits, times in w_reads)),
    )
