"""The event schedule against closed forms, examples worked by hand, and its own monotonicity."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.arch.dram import DmaSpec, Dram, DramSpec
from hwsim.arch.machine import Machine
from hwsim.arch.spec import Quantity
from hwsim.config.load import load_machine
from hwsim.engine import timing
from hwsim.engine.timing import Link, Stage, Steps, closed_form, record, simulate
from hwsim.graph.dtype import parse

SMALL = st.integers(1, 12)
QUIET = settings(derandomize=True, deadline=None, max_examples=60)


def equal_tiles(n: int, load: int, compute: int, post: int, store: int) -> Steps:
    def column(value: int) -> np.ndarray:
        return np.full(n, value, dtype=np.int64)

    loads = np.stack([column(load), column(0), column(0)])
    fresh = np.zeros((3, n), dtype=np.bool_)
    fresh[0] = True
    return Steps(
        loads,
        fresh,
        column(compute),
        column(post),
        column(store),
        opens=np.ones(n, dtype=np.bool_),
        emits=np.ones(n, dtype=np.bool_),
    )


def stage(depth: int = 0, halves: int = 2, **changes: object) -> Stage:
    settings_: dict[str, object] = {
        "depth": depth,
        "channels": 1,
        "overhead": 0,
        "halves": (halves, halves, halves),
        "owned": (True, True, True),
        "accumulator_halves": halves,
        "output_halves": halves,
        "store_on_bus": False,
    }
    return Stage(**(settings_ | changes))  # type: ignore[arg-type]


@QUIET
@given(SMALL, SMALL, SMALL, st.integers(0, 12), st.integers(0, 12), SMALL)
def test_double_buffers_meet_the_closed_form(
    n: int, load: int, compute: int, depth: int, post: int, store: int
) -> None:
    got = simulate(equal_tiles(n, load, compute, post, store), stage(depth)).cycles
    try:
        wanted = closed_form(n, load, compute, depth, post, store)
    except ValueError:
        # Accumulators are held too long: only slower than the formula, never faster.
        period = max(load, compute, post, store)
        assert got >= load + compute + depth + post + store + (n - 1) * period
    else:
        assert got == wanted


def test_closed_form_refuses_what_it_does_not_cover() -> None:
    with pytest.raises(ValueError, match=r"needs 2\*3 >= compute \+ depth \+ post = 12"):
        closed_form(4, load=3, compute=3, depth=8, post=1, store=1)


def test_single_buffer_by_hand() -> None:
    # One half each: load 0-3, compute 3-7, post at 7+2=9..10, store 10-15;
    # the second load waits for the half until 7: 7-10, compute waits for the accumulators until 10: 10-14,
    # visible 16, post waits for the store: 16-17, store 17-22.
    steps = equal_tiles(2, load=3, compute=4, post=1, store=5)
    assert simulate(steps, stage(depth=2, halves=1)).cycles == 22


def test_one_bus_serves_one_transfer_at_a_time() -> None:
    # Loads 0-4 and 4-8; compute 4-5 and 8-9; the first store 8-12 waits for the bus, the second 12-16.
    steps = equal_tiles(2, load=4, compute=1, post=0, store=4)
    assert simulate(steps, stage(store_on_bus=True)).cycles == 16


def test_a_second_channel_hides_the_set_up() -> None:
    # One channel: (2+3) * 4 loads, then compute. Two: the set-up of the next runs during the transfer.
    steps = equal_tiles(4, load=3, compute=1, post=0, store=0)
    one = simulate(steps, stage(overhead=2, halves=0)).cycles
    two = simulate(steps, stage(overhead=2, halves=0, channels=2)).cycles
    assert (one, two) == (4 * 5 + 1, 2 + 4 * 3 + 1)


def test_handing_a_half_over_costs_its_cycles() -> None:
    steps = equal_tiles(1, load=3, compute=4, post=0, store=5)
    assert simulate(steps, stage(handoff_cycles=(2, 0, 0, 7))).cycles == 3 + 2 + 4 + 7 + 5


def test_a_direct_result_waits_for_the_output_half() -> None:
    # compute 0-1, store 1-11; with one half the second compute starts only at 11: 11-12, store 12-22.
    steps = equal_tiles(2, load=0, compute=1, post=0, store=10)
    assert simulate(steps, stage(halves=1, direct=True)).cycles == 22
    assert simulate(steps, stage(halves=2, direct=True)).cycles == 21


@QUIET
@given(
    st.lists(st.tuples(SMALL, SMALL, SMALL, SMALL), min_size=1, max_size=6),
    st.integers(0, 5),
    st.integers(0, 3),
    st.integers(1, 2),
)
def test_a_shorter_step_never_makes_the_whole_longer(
    tiles: list[tuple[int, int, int, int]], which: int, column: int, halves: int
) -> None:
    def run(rows: list[tuple[int, int, int, int]]) -> int:
        values = np.array(rows, dtype=np.int64).T
        n = values.shape[1]
        zero = np.zeros(n, dtype=np.int64)
        fresh = np.zeros((3, n), dtype=np.bool_)
        fresh[0] = True
        steps = Steps(
            np.stack([values[0], zero, zero]),
            fresh,
            values[1],
            values[2],
            values[3],
            np.ones(n, dtype=np.bool_),
            np.ones(n, dtype=np.bool_),
        )
        return simulate(steps, stage(1, halves, channels=2, overhead=1, store_on_bus=True)).cycles

    longer = list(tiles)
    i = which % len(tiles)
    row = list(longer[i])
    row[column] += 3
    longer[i] = (row[0], row[1], row[2], row[3])
    assert run(tiles) <= run(longer)


def test_bandwidth_is_an_exact_rational() -> None:
    # 3.2 GB/s at 300 MHz is 256/3 bits a cycle: 256 bits take exactly 3 cycles, one more bit takes 4.
    link = Link(16, 30, Fraction(3_200_000_000 * 8, 300_000_000), 1)
    assert link.bus_cycles(256) == 30 + 3
    assert link.bus_cycles(257) == 30 + 4
    assert link.bus_cycles(0) == 0


def test_runs_are_rounded_up_to_bursts_one_by_one() -> None:
    link = Link(0, 0, Fraction(64), 256)
    assert link.moved_bits(1, 3 * 100) == 512
    assert link.moved_bits(3, 100) == 3 * 256


@QUIET
@given(st.integers(1, 5000), st.integers(1, 10**10), st.integers(1, 512))
def test_data_step_agrees_with_the_dram_component(bits: int, bandwidth: int, width: int) -> None:
    energy = Quantity(value=1.0, low=1.0, high=1.0, kind="assumed", source="test")
    dram = Dram(
        DramSpec(
            bandwidth_bytes_per_s=bandwidth,
            burst_bytes=32,
            latency_cycles=9,
            energy_pj_per_bit=energy,
        ),
        300_000_000,
    )
    dma = DmaSpec(
        channels=1, overhead_cycles=5, width_bits_per_cycle=width, energy_pj_per_bit=energy
    )
    link = Link(5, 9, min(dram.bits_per_cycle, Fraction(width)), 256)
    moved = link.moved_bits(1, bits)
    assert moved == dram.bus_bits(bits)
    assert link.overhead_cycles + link.bus_cycles(moved) == dram.transfer_cycles(moved, dma)


def test_worked_example_of_the_compute_step() -> None:
    # R = C = 4, L = 8, II = 1, D = 3; M, N, K = 6, 5, 20: 2*2*3 = 12 beats, done at cycle 15.
    machine: Machine = load_machine("toy")
    array = machine.arrays["main"]
    assert (array.spec.rows, array.spec.cols, array.spec.lanes) == (4, 4, 8)
    int8 = parse("INT8")
    assert array.beats(6, 5, 20, int8, int8) == 12
    steps = equal_tiles(1, load=0, compute=array.cycles(6, 5, 20, int8, int8), post=0, store=0)
    assert simulate(steps, stage(array.spec.pipeline_depth_cycles, direct=True)).cycles == 15


def test_a_record_by_hand() -> None:
    # The example of the single buffer: (channel, channel taken, bus or unit taken, end) of each step.
    steps = equal_tiles(2, load=3, compute=4, post=1, store=5)
    kept = record(steps, stage(depth=2, halves=1))
    assert kept.cycles == 22
    assert kept.steps[0].tolist() == [[0, 0, 0, 3], [0, 7, 7, 10]]
    assert (kept.steps[1:3] == -1).all()  # nothing else is loaded
    assert kept.steps[3].tolist() == [[-1, 3, 3, 7], [-1, 10, 10, 14]]
    assert kept.steps[4].tolist() == [[-1, 9, 9, 10], [-1, 16, 16, 17]]
    assert kept.steps[5].tolist() == [[-1, 10, 10, 15], [-1, 17, 17, 22]]


def test_a_record_tells_set_up_from_transfer() -> None:
    # Two channels: the set-up of the second load (0-2) runs beside the first's; then it waits for the bus.
    steps = equal_tiles(3, load=3, compute=1, post=0, store=0)
    kept = record(steps, stage(overhead=2, halves=0, channels=2))
    assert kept.steps[0].tolist() == [[0, 0, 2, 5], [1, 0, 5, 8], [0, 5, 8, 11]]


def test_a_schedule_that_is_known_to_be_too_long_is_left() -> None:
    """Ten tiles of 7 cycles on the array and as many on the bus: after the first all others are known to follow."""
    for load, compute in ((1, 7), (7, 1)):
        steps = equal_tiles(10, load, compute, post=0, store=0)
        given_ = timing._arguments(steps, stage())
        ends = [
            int(timing.recurrence(*given_, limit, np.empty((6, 0, 4), np.int64)))  # type: ignore[call-arg]
            for limit in (40, 70, 71)
        ]
        assert ends == [41, 71, 71]  # 71 is the end


@QUIET
@given(
    st.lists(st.tuples(*[st.integers(0, 9)] * 6, st.booleans()), min_size=1, max_size=12),
    st.integers(1, 2),
    st.integers(1, 2),
    st.booleans(),
    st.booleans(),
)
def test_a_record_is_the_schedule(
    rows: list[tuple[int, ...]], halves: int, channels: int, on_bus: bool, direct: bool
) -> None:
    values = np.array(rows, dtype=np.int64).T
    n = len(rows)
    last_k = values[6].astype(np.bool_)
    last_k[-1] = True
    opens = np.concatenate([[True], last_k[:-1]])
    ends = np.where(last_k, values[4], 0) * (not direct), np.where(last_k, values[5], 0)
    fresh = np.stack([np.ones(n, np.bool_), np.arange(n) % 2 == 0, np.arange(n) == 0])
    steps = Steps(values[:3] * fresh, fresh, values[3], *ends, opens, last_k)
    how = stage(2, halves, channels=channels, overhead=1, store_on_bus=on_bus, direct=direct,
                handoff_cycles=(1, 0, 2, 1))  # fmt: skip
    timeline, kept = simulate(steps, how), record(steps, how)
    times = kept.steps
    assert kept.cycles == timeline.cycles
    assert times[..., 3].max() <= kept.cycles
    for limit in (kept.cycles // 2, kept.cycles - 1, kept.cycles, kept.cycles + 1):
        stopped = timing.recurrence(*timing._arguments(steps, how), limit, times[:, :0])  # type: ignore[call-arg]
        assert (stopped == kept.cycles) if kept.cycles <= limit else (stopped > limit)
    length = times[..., 3] - times[..., 2]
    for row, cycles in ((3, steps.compute), (4, steps.post), (5, steps.store)):
        assert length[row][cycles > 0].tolist() == cycles[cycles > 0].tolist()
        assert row == 3 or (times[row][cycles == 0] == -1).all()
    assert (length[:3] == steps.load).all()

    def apart(spans: np.ndarray) -> bool:
        spans = spans[spans[:, 0].argsort(kind="stable")]
        return bool((spans[1:, 0] >= spans[:-1, 1]).all())

    moving = times[[0, 1, 2, 5] if on_bus else [0, 1, 2]].reshape(-1, 4)
    moving = moving[moving[:, 1] >= 0]
    assert apart(moving[:, 2:])
    assert all(apart(moving[moving[:, 0] == c][:, [1, 3]]) for c in range(channels))
    assert (moving[:, 2] - moving[:, 1] >= 1).all()  # the set-up
    assert apart(times[3][:, 2:])
    assert apart(times[4][times[4][:, 2] >= 0][:, 2:])
