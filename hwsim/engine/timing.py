"""The event schedule: when every load, compute, post and store step of one operator runs.

All times are integer core cycles; cycle 0 is when the first load is issued. One step is one tile:

    load (DMA channel + bus) -> compute (array) -> post (vector unit) -> store (DMA channel + bus)

Between the stages stand buffers of one half (`single`) or two (`double`): a half belongs to one tile
from the moment that a stage starts to fill it until the next stage lets go of it. A bus is that of the DRAM,
or a port of an on-chip memory that stands behind others. Every resource takes
its steps in program order, and a step starts at the maximum of what it needs, so the schedule is a
max-plus recurrence: making any step shorter never makes the whole longer (docs/machine.md, section 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from numba import njit

from hwsim.arch.component import ceil_div

Cycles = npt.NDArray[np.int64]

UNLIMITED = 0
"""Number of halves of a buffer that every tile has its own place in: nothing ever waits for it."""
ENDLESS = 1 << 56
"""A limit of cycles that no schedule reaches, small enough to be multiplied by the number of channels."""
LOOK_AHEAD = 2
"""Tiles that the loads run ahead of the compute steps where the buffer itself sets no limit."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a data step costs: DMA channel and DRAM (or another memory) behind it.

    `bits_per_cycle` is an exact rational: the narrower of the DMA width and the bandwidth behind it.
    `burst_bits` are those of a burst of the DRAM, or of an access of a memory.
    """

    overhead_cycles: int
    latency_cycles: int
    bits_per_cycle: Fraction
    burst_bits: int

    def moved_bits(self, runs: int, run_bits: int) -> int:
        """Count the bits moved for `runs` contiguous runs, each rounded up to whole bursts."""
        return runs * ceil_div(run_bits, self.burst_bits) * self.burst_bits

    def bus_cycles(self, moved_bits: int) -> int:
        """Return the cycles that the bus is held: latency + ceil(bits / width); 0 bits are no step."""
        if moved_bits == 0:
            return 0
        rate = self.bits_per_cycle
        return self.latency_cycles + ceil_div(moved_bits * rate.denominator, rate.numerator)


def closed_form(n: int, load: int, compute: int, depth: int, post: int, store: int) -> int:
    """Return the length of `n` equal tiles, all buffers double, load and store on separate resources.

    Raises:
        ValueError: 2*max(load, compute, post, store) < compute + depth + post: the accumulators are
            held too long for the closed form, only the recurrence is right.
    """
    period = max(load, compute, post, store)
    if 2 * period < compute + depth + post:
        raise ValueError(
            f"the closed form needs 2*{period} >= compute + depth + post = {compute + depth + post}"
        )
    return load + compute + depth + post + store + (n - 1) * period


@dataclass(frozen=True, slots=True)
class Stage:
    """How the buffers and links around the array behave during one operator.

    `halves` and `owned` have one entry for each loaded operand, in the order A, W, others. An operand
    that is not `owned` keeps a place for each of its tiles (weights that stay on chip), so its loads
    wait for nobody. `accumulator_halves` and `output_halves` count places of one output tile each.
    `handoff_cycles` is added where a filled half changes hands (A, W, others, output). With `direct` the
    array fills the output half itself: no accumulator buffer and no post step stand between.
    `wires` says over which link each operand and the output move, `ports` how many transfers a link
    serves at once.
    """

    depth: int
    channels: int
    overhead: int
    halves: tuple[int, ...]
    owned: tuple[bool, ...]
    accumulator_halves: int
    output_halves: int
    handoff_cycles: tuple[int, ...] = (0, 0, 0, 0)
    store_on_bus: bool = True
    direct: bool = False
    wires: tuple[int, ...] = (0, 0, 0, 0)
    ports: tuple[int, ...] = (1,)

    def units(self) -> tuple[object, ...]:
        """Return halves, owned, depth, channels and overhead as the compiled loops read them.

        Halves and owned stay tuples: the length of a loop over operands is then known to the compiler.
        """
        return self.halves, self.owned, self.depth, self.channels, self.overhead

    def ways(self) -> tuple[object, ...]:
        """Return what the compiled loops read of hand-overs, links and stores."""
        arrays = (self.handoff_cycles, self.wires, self.ports)
        return *(np.array(x, dtype=np.int64) for x in arrays), self.store_on_bus, self.direct


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of one operator in program order, one entry a tile.

    load: [x, n] bus cycles of the load of each operand before this tile, 0 where nothing is loaded.
    fresh: [x, n] whether the tile needs another block of the operand than the tile before it.
    compute, post, store: [n] cycles; `opens` [n] says where an output tile is begun (first K part) and
    `emits` [n] where it is complete (last K part). Output tiles are completed in the order in which
    they are begun.
    """

    load: Cycles
    fresh: npt.NDArray[np.bool_]
    compute: Cycles
    post: Cycles
    store: Cycles
    opens: npt.NDArray[np.bool_]
    emits: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Length of a schedule and how long each resource was busy, in cycles.

    `links_busy` has an entry a link: the DRAM's bus, then all ports of each memory behind others.
    """

    cycles: int
    array_busy: int
    vector_busy: int
    links_busy: tuple[int, ...]

    @property
    def bus_busy(self) -> int:
        """Cycles that the DRAM's bus was held."""
        return self.links_busy[0]

    def then(self, other: Timeline, times: int) -> Timeline:
        """Return this schedule followed by another one, `times` over, without overlap."""
        links = zip(self.links_busy, other.links_busy, strict=True)
        return Timeline(
            self.cycles + times * other.cycles,
            self.array_busy + times * other.array_busy,
            self.vector_busy + times * other.vector_busy,
            tuple(a + times * b for a, b in links),
        )


@dataclass(frozen=True, slots=True)
class Record:
    """When every step of a schedule ran: what `recurrence` fills in as it goes.

    steps: [operands + 3, n, 4], a column a tile. Rows: the loads of A, of W and of other things by the level that they
    come from, then compute, post and store. Of each step the DMA channel (-1: none), the cycles at which it takes its
    channel, at which it takes the link or its unit, and at which it ends.
    All are -1 where the tile has no such step. A load stands at the first tile that uses its block.
    cycles: length of the schedule.
    """

    steps: Cycles
    cycles: int


def simulate(steps: Steps, stage: Stage) -> Timeline:
    """Run the recurrence over all steps of one operator."""
    nothing = np.empty((0, 0, 4), dtype=np.int64)
    end = int(recurrence(*_arguments(steps, stage), ENDLESS, nothing))  # type: ignore[call-arg]
    links = [0] * len(stage.ports)
    for x, wire in enumerate(stage.wires[:-1]):
        links[wire] += int(steps.load[x].sum())
    if stage.store_on_bus:
        links[stage.wires[-1]] += int(steps.store.sum())
    return Timeline(end, int(steps.compute.sum()), int(steps.post.sum()), tuple(links))


def record(steps: Steps, stage: Stage) -> Record:
    """Run the same recurrence and keep when every step ran."""
    times = np.full((len(steps.load) + 3, len(steps.compute), 4), -1, dtype=np.int64)
    end = int(recurrence(*_arguments(steps, stage), ENDLESS, times))  # type: ignore[call-arg]
    return Record(times, end)


def _arguments(steps: Steps, stage: Stage) -> tuple[object, ...]:
    # Contiguous columns throughout, so that the kernel is compiled for one memory layout.
    return (
        np.ascontiguousarray(steps.load),
        np.ascontiguousarray(steps.fresh),
        np.ascontiguousarray(steps.compute),
        np.ascontiguousarray(steps.post),
        np.ascontiguousarray(steps.store),
        np.ascontiguousarray(steps.opens),
        np.ascontiguousarray(steps.emits),
        *stage.units(),
        stage.accumulator_halves,
        stage.output_halves,
        *stage.ways(),
    )


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _note(times, row, column, channel, taken, begin, end):  # type: ignore[no-untyped-def]
    # Number by number: an assignment of a tuple compiles numba's message about shapes, which takes longer than all the rest.
    times[row, column, 0] = channel
    times[row, column, 1] = taken
    times[row, column, 2] = begin
    times[row, column, 3] = end


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def recurrence(  # type: ignore[no-untyped-def]  # noqa: PLR0915  one loop: splitting it hides the order
    load,
    fresh,
    compute,
    post,
    store,
    opens,
    emits,
    halves,
    owned,
    depth,
    channels,
    overhead,
    accumulator_halves,
    output_halves,
    handoff,
    wires,
    ports,
    store_on_bus,
    direct,
    limit,
    times,
):
    """Return the cycle at which the last step ends, or one above `limit` as soon as it is known to end later.

    At each tile it is known that the array and the DMA channels have all that is left still before them.
    `times` [operands + 3, n, 4] is filled as `Record` says; with no columns nothing is recorded.

    Program order of the transfers: a load is issued as soon as the compute step that frees its half has
    been issued, ties by (tile, operand A < W < others); the store of a tile follows those loads.
    """
    n = compute.shape[0]
    keep = times.shape[1] > 0
    operands = len(halves)
    # Blocks of each operand: first[x, q] .. last[x, q] are the tiles that use its q-th block.
    count = np.zeros(operands, np.int64)
    first = np.zeros((operands, n), np.int64)
    last = np.zeros((operands, n), np.int64)
    block = np.full((operands, n), -1, np.int64)
    to_move = np.int64(0)  # cycles that transfers not issued yet hold a channel
    for x in range(operands):
        for i in range(n):
            if fresh[x, i]:
                first[x, count[x]] = i
                count[x] += 1
                if load[x, i] > 0:
                    to_move += overhead + load[x, i]
            if count[x] > 0:
                block[x, i] = count[x] - 1
                last[x, count[x] - 1] = i
    to_compute = np.int64(0)
    for i in range(n):
        to_compute += compute[i]
        if emits[i] and store[i] > 0 and store_on_bus:
            to_move += overhead + store[i]
    loaded = np.zeros((operands, n), np.int64)  # cycle at which a block is usable
    issued = np.zeros(operands, np.int64)
    released = np.zeros(n, np.int64)  # cycle at which a tile lets go of its input halves
    posted = np.zeros(n + 1, np.int64)  # by output tile: accumulators free
    stored = np.zeros(n + 1, np.int64)  # by output tile: output half free
    channel = np.zeros(channels, np.int64)
    bus = np.zeros((ports.shape[0], ports.max()), np.int64)  # cycle at which a port is free
    store_port = np.int64(0)
    array = np.int64(0)
    vector = np.int64(0)
    begun = 0  # output tiles begun so far
    group = 0  # output tiles completed so far
    end = np.int64(0)
    for i in range(-1, n):
        if i >= 0:
            start = array
            for x in range(operands):
                if block[x, i] >= 0:
                    start = max(start, loaded[x, block[x, i]])
            if opens[i]:
                # The accumulators' place: an output tile frees it when its result has left it.
                if direct:
                    if output_halves > 0 and begun >= output_halves:
                        start = max(start, stored[begun - output_halves])
                elif accumulator_halves > 0 and begun >= accumulator_halves:
                    start = max(start, posted[begun - accumulator_halves])
                begun += 1
            array = start + compute[i]
            to_compute -= compute[i]
            if array + to_compute > limit or channel.sum() + to_move > channels * limit:
                return limit + 1
            if keep:
                _note(times, operands, i, -1, start, start, array)
            released[i] = array
            end = max(end, array + depth)
            if emits[i]:
                begin = max(vector, array + depth)
                if not direct and output_halves > 0 and group >= output_halves:
                    begin = max(begin, stored[group - output_halves])
                posted[group] = begin + post[i]
                if keep and post[i] > 0:
                    _note(times, operands + 1, i, -1, begin, begin, posted[group])
                if not direct:
                    vector = posted[group]
                end = max(end, posted[group])
        while True:
            best = -1
            for x in range(operands):
                q = issued[x]
                if q >= count[x]:
                    continue
                ahead = halves[x] if halves[x] > 0 else LOOK_AHEAD
                if q >= ahead and last[x, q - ahead] > i:
                    continue
                if best < 0 or first[x, q] < first[best, issued[best]]:
                    best = x
            if best < 0:
                break
            q = issued[best]
            issued[best] += 1
            ready = np.int64(0)
            if owned[best] and halves[best] > 0 and q >= halves[best]:
                ready = released[last[best, q - halves[best]]]
            held = load[best, first[best, q]]
            if held == 0:  # this block is on chip already
                loaded[best, q] = ready
                continue
            c = np.argmin(channel)
            link = wires[best]
            port = 0
            for other in range(1, ports[link]):
                if bus[link, other] < bus[link, port]:
                    port = other
            taken = max(channel[c], ready)
            begin = max(taken + overhead, bus[link, port])
            arrived = begin + held
            if keep:
                _note(times, best, first[best, q], c, taken, begin, arrived)
            bus[link, port] = channel[c] = arrived
            to_move -= overhead + held
            loaded[best, q] = arrived + handoff[best]
            end = max(end, arrived)
        if i >= 0 and emits[i]:
            stored[group] = posted[group]
            if store[i] > 0 and store_on_bus:
                c = np.argmin(channel)
                link = wires[operands]
                port = 0
                for other in range(1, ports[link]):
                    if bus[link, other] < bus[link, port]:
                        port = other
                taken = max(channel[c], posted[group] + handoff[operands])
                begin = max(taken + overhead, bus[link, port])
                stored[group] = begin + store[i]
                bus[link, port] = channel[c] = stored[group]
                to_move -= overhead + store[i]
                if keep:
                    _note(times, operands + 2, i, c, taken, begin, stored[group])
            elif store[i] > 0:
                begin = max(store_port, posted[group] + handoff[operands])
                store_port = begin + overhead + store[i]
                if keep:
                    _note(times, operands + 2, i, -1, begin, begin + overhead, store_port)
                stored[group] = store_port
            end = max(end, stored[group])
            group += 1
    return end
