"""The compute steps of mapped products in program order, and the lengths of many candidates, compiled.

A candidate has at most two sizes of tile along each of M, N and K: full ones, and a last, smaller one. What
a tile costs is therefore a small table by *kind*: index 0 full, 1 last, along each dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from hwsim.engine.timing import ENDLESS, Stage, Steps, recurrence

Order = Literal["activation", "weight", "output"]
"""The operand that stays while the others change."""
ORDERS: tuple[Order, ...] = ("activation", "weight", "output")
"""The number that compiled loops know an order by."""
AXES: dict[Order, tuple[int, int, int]] = {
    "activation": (0, 2, 1),
    "weight": (1, 2, 0),
    "output": (0, 1, 2),
}
"""The loops of an order, outermost first: 0 m, 1 n, 2 k."""

Ints = npt.NDArray[np.int64]
_LOOPS = np.array([AXES[order] for order in ORDERS], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Layout:
    """Candidates of one product, by their tiles and what these cost: one entry a candidate along the first axis.

    Attributes:
        order: [c] number of the outer order.
        tiles: [c, 3] tiles along M, N, K.
        rest: [c, 3] whether the last of them is smaller.
        places: [c, 2] places for accumulators of one tile each, and for results.
        compute: [c, 2, 2, 2] array cycles by kind (m, n, k).
        a, w, out: [c, 2, 2] bus cycles by kind (m, k), (n, k), (m, n); 0 where nothing is moved.
        post: [c, 2, 2] vector unit's cycles by kind (m, n).
    """

    order: Ints
    tiles: Ints
    rest: Ints
    places: Ints
    compute: Ints
    a: Ints
    w: Ints
    out: Ints
    post: Ints

    def tables(self) -> tuple[Ints, ...]:
        """Return order, tiles, rest, compute, a, w, out and post as the compiled loops read them."""
        tables = (
            self.order,
            self.tiles,
            self.rest,
            self.compute,
            self.a,
            self.w,
            self.out,
            self.post,
        )
        # One memory layout throughout, so that the loops are compiled once.
        return tuple(np.ascontiguousarray(x, dtype=np.int64) for x in tables)

    def first(self, count: int) -> Layout:
        """Return the first candidates alone."""
        return Layout(*(getattr(self, f.name)[:count] for f in fields(self)))

    def busy(self, batch: int) -> tuple[Ints, Ints]:
        """Return how long the array and the vector unit work in each candidate: [c] cycles."""
        m, n, k = np.moveaxis(np.stack([self.tiles - self.rest, self.rest], axis=2), 1, 0)
        array = np.einsum("cmnk,cm,cn,ck->c", self.compute, m, n, k)
        return batch * array, batch * np.einsum("cmn,cm,cn->c", self.post, m, n)

    def steps(self, flow: Flow) -> tuple[Steps, Ints]:
        """Return the steps of the first candidate, and how often A, W and the output are moved.

        Returns:
            the steps; transfers [3, 2, 2]: A by kind (m, k), W by (n, k), output by (m, n).
        """
        first = (x[0] for x in self.tables())
        *steps, times = lay_out(flow.numbers(), *first)  # type: ignore[call-arg]
        return Steps(*steps), times

    def lengths(self, flow: Flow, stage: Stage, bound: Any, weight: float, cutoff: float) -> Ints:
        """Return the cycles of candidates until those left cannot beat the best of them.

        Where `weight` is that of a cycle, a candidate that ends too late to matter has some number that is too large as well.

        Args:
            flow: what is moved.
            stage: buffers and links; the places are each candidate's own.
            bound: [c] float64, never falling: what `weight` * cycles + other terms is at least.
            weight: of a cycle.
            cutoff: nothing above it is of interest.

        Returns:
            [candidates tried].
        """
        cycles = np.zeros(len(self.order), dtype=np.int64)
        tried = _lengths(  # type: ignore[call-arg]
            flow.numbers(),
            *self.tables(),
            np.ascontiguousarray(self.places),
            *stage.units(),
            *stage.ways(),
            np.ascontiguousarray(bound, dtype=np.float64),
            float(weight),
            float(cutoff),
            cycles,
        )
        return cycles[:tried]


@dataclass(frozen=True, slots=True)
class Flow:
    """What moves between the role memories and those behind them, whatever the candidate.

    `w_fills`: each tile of W comes once, into a place of its own. `constant_cycles` on each link come before the first tile.
    """

    batch: int
    a_streams: bool
    w_streams: bool
    w_fills: bool
    out_streams: bool
    constant_cycles: tuple[int, ...]

    def numbers(self) -> Ints:
        """Return the fields as the compiled loops read them."""
        fields = (
            self.batch,
            self.a_streams,
            self.w_streams or self.w_fills,
            self.w_fills,
            self.out_streams,
            *self.constant_cycles,
        )
        return np.array(fields, dtype=np.int64)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def lay_out(flow, order, tiles, rest, compute, a, w, out, post):  # type: ignore[no-untyped-def]
    """Return the fields of `Steps`, and the transfers [3, 2, 2], of one candidate."""
    batch, a_moves, w_moves, w_fills, out_moves = flow[0], flow[1], flow[2], flow[3], flow[4]
    constants = flow[5:]
    n = batch * tiles[0] * tiles[1] * tiles[2]
    load = np.zeros((2 + constants.shape[0], n), np.int64)
    fresh = np.zeros((2 + constants.shape[0], n), np.bool_)
    work = np.empty(n, np.int64)
    after = np.zeros(n, np.int64)
    store = np.zeros(n, np.int64)
    opens = np.empty(n, np.bool_)
    emits = np.empty(n, np.bool_)
    times = np.zeros((3, 2, 2), np.int64)
    at = np.zeros(3, np.int64)
    kind = np.zeros(3, np.int64)
    outer, middle, inner = _LOOPS[order]
    step = 0
    for _ in range(batch):
        held_m = held_n = held_k = np.int64(-1)
        for x in range(tiles[outer]):
            at[outer] = x
            for y in range(tiles[middle]):
                at[middle] = y
                for z in range(tiles[inner]):
                    at[inner] = z
                    for d in range(3):
                        kind[d] = rest[d] if at[d] == tiles[d] - 1 else 0
                    m, nn, k = kind[0], kind[1], kind[2]
                    work[step] = compute[m, nn, k]
                    opens[step] = at[2] == 0
                    emits[step] = at[2] == tiles[2] - 1
                    if a_moves and (at[0] != held_m or at[2] != held_k):
                        fresh[0, step] = True
                        load[0, step] = a[m, k]
                        times[0, m, k] += 1
                    if w_moves and (at[1] != held_n or at[2] != held_k):
                        fresh[1, step] = True
                        if not w_fills or at[0] == 0:
                            load[1, step] = w[nn, k]
                            times[1, nn, k] += 1
                    if emits[step]:
                        after[step] = post[m, nn]
                        if out_moves:
                            store[step] = out[m, nn]
                            times[2, m, nn] += 1
                    held_m, held_n, held_k = at[0], at[1], at[2]
                    step += 1
    for x in range(constants.shape[0]):
        fresh[2 + x, 0] = constants[x] > 0
        load[2 + x, 0] = constants[x]
    return load, fresh, work, after, store, opens, emits, times


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _lengths(  # type: ignore[no-untyped-def]
    flow,
    order,
    tiles,
    rest,
    compute,
    a,
    w,
    out,
    post,
    places,
    halves,
    owned,
    depth,
    channels,
    overhead,
    handoff,
    wires,
    ports,
    store_on_bus,
    direct,
    bound,
    weight,
    cutoff,
    cycles,
):
    """Fill `cycles` candidate by candidate, and return how many were worth it."""
    nothing = np.empty((6, 0, 4), np.int64)  # no times are recorded
    for c in range(order.shape[0]):
        if bound[c] > cutoff:
            return c
        load, fresh, work, after, store, opens, emits, _ = lay_out(
            flow, order[c], tiles[c], rest[c], compute[c], a[c], w[c], out[c], post[c]
        )
        cycles[c] = recurrence(
            load,
            fresh,
            work,
            after,
            store,
            opens,
            emits,
            halves,
            owned,
            depth,
            channels,
            overhead,
            places[c, 0],
            places[c, 1],
            handoff,
            wires,
            ports,
            store_on_bus,
            direct,
            np.int64(min(cutoff / weight, ENDLESS)) if weight > 0 else ENDLESS,
            nothing,
        )
        if weight > 0:
            cutoff = min(cutoff, weight * cycles[c])
    return order.shape[0]
