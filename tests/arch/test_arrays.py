"""Arrays: closed forms of beats, passes and ports, supported formats, and exact products."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.arch.component import ArrayComponent, covers, signed_bits
from hwsim.arch.int_array import IntArray
from hwsim.config.load import load_machine
from hwsim.errors import GraphError, OverflowRefused
from hwsim.graph.dtype import BIPOLAR, TERNARY, UNIPOLAR, DataType, int_, parse, uint

INT8, UINT8 = int_(8), uint(8)
TYPES = [BIPOLAR, UNIPOLAR, TERNARY, int_(2), int_(4), INT8, int_(8, narrow=True), uint(3), UINT8]
EDGES = ["xnor_edge", "ternary_edge", "bitserial_edge", "int8_edge"]


def main_array(machine: str, *overrides: str) -> ArrayComponent:
    """Return the main array of a shipped machine."""
    return load_machine(machine, overrides).arrays["main"]


def codes(dtype: DataType, shape: tuple[int, int], seed: int) -> npt.NDArray[Any]:
    """Draw codes of a type, as they lie in memory."""
    drawn = np.random.default_rng(seed).choice(np.array(dtype.levels), shape)
    return drawn.astype(np.uint8 if dtype.qmax > 127 else np.int8)


def test_worked_example_takes_12_beats_and_is_done_at_cycle_15() -> None:
    array = main_array("toy")
    assert array.beats(6, 5, 20, INT8, INT8) == 12
    assert array.cycles(6, 5, 20, INT8, INT8) + array.spec.pipeline_depth_cycles == 15


@pytest.mark.parametrize(
    ("m", "n", "k", "beats"),
    [(1, 1, 1, 1), (4, 4, 8, 1), (5, 4, 8, 2), (4, 5, 8, 2), (4, 4, 9, 2), (8, 8, 16, 8)],
)
def test_beats_are_a_product_of_ceilings(m: int, n: int, k: int, beats: int) -> None:
    assert main_array("toy").beats(m, n, k, INT8, INT8) == beats


@pytest.mark.parametrize(
    ("r", "c", "lanes", "port", "cycles"),
    [
        (4, 4, 8, 256, 1),  # 4 x 8 x 8 bits is the port
        (4, 4, 8, 255, 2),
        (4, 4, 8, 64, 4),
        (
            1,
            4,
            8,
            64,
            1,
        ),  # the columns' port is wide: a quarter of the rows needs a quarter of the bits
        (4, 4, 1, 64, 1),
    ],
)
def test_a_narrow_port_lengthens_the_initiation_interval(
    r: int,
    c: int,
    lanes: int,
    port: int,
    cycles: int,
) -> None:
    array = main_array("toy", f"arrays.main.activation_port_bits_per_cycle={port}")
    assert array.initiation_interval(INT8, INT8, r, c, lanes) == cycles


def test_only_the_lanes_really_used_load_the_port() -> None:
    array = main_array("toy", "arrays.main.weight_port_bits_per_cycle=64")
    assert array.cycles(4, 4, 8, INT8, INT8) == 4  # 4 x 8 x 8 bits through 64
    assert array.cycles(4, 4, 2, INT8, INT8) == 1  # 4 x 2 x 8 bits
    assert array.cycles(4, 4, 8, INT8, TERNARY) == 1  # 4 x 8 x 2 bits


def test_a_stated_interval_is_a_floor() -> None:
    array = main_array("toy", "arrays.main.initiation_interval_cycles=3")
    assert array.cycles(4, 4, 16, INT8, INT8) == 2 * 3


@pytest.mark.parametrize(
    ("a", "w", "passes"),
    [
        ("INT8", "INT8", 64),
        ("UINT8", "TERNARY", 16),
        ("BIPOLAR", "BIPOLAR", 1),
        ("UINT3", "INT4", 12),
    ],
)
def test_bit_serial_takes_a_pass_for_every_pair_of_planes(a: str, w: str, passes: int) -> None:
    array = main_array("bitserial_edge")
    assert array.passes(parse(a), parse(w)) == passes
    assert array.cycles(8, 8, 64, parse(a), parse(w)) == passes


class _InTwoSteps(IntArray):
    """Both operands whole, the product in two passes."""

    def passes(self, a: DataType, w: DataType) -> int:
        return 2


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (9, 5, 17), (4, 4, 40), (12, 8, 16)])
def test_a_second_pass_finds_the_operands_in_their_registers(m: int, n: int, k: int) -> None:
    once = main_array("int8_edge")
    twice = _InTwoSteps("main", once.spec)
    a = w = int_(8)
    single, double = once.work(m, n, k, a, w), twice.work(m, n, k, a, w)
    assert (double.activation, double.weight) == (single.activation, single.weight)
    assert double.lane_ops == 2 * single.lane_ops
    assert double.accumulator_updates == 2 * single.accumulator_updates
    beats = list(twice.schedule(m, n, k, a, w))
    assert len(beats) == twice.beats(m, n, k, a, w) == 2 * once.beats(m, n, k, a, w)
    assert sum(b.work.weight.register_bits for b in beats) == double.weight.register_bits


@pytest.mark.parametrize("machine", EDGES)
def test_edge_machines_take_the_same_operand_bits_a_cycle(machine: str) -> None:
    array = main_array(machine)
    spec = array.spec
    pair = spec.formats[0]
    a_bits, w_bits = array.operand_bits(parse(pair.activation), parse(pair.weight))
    assert spec.rows * spec.lanes * a_bits == spec.activation_port_bits_per_cycle == 512
    assert spec.cols * spec.lanes * w_bits == spec.weight_port_bits_per_cycle == 512


def test_edge_machines_share_all_but_the_main_array() -> None:
    shared = []
    for name in EDGES:
        data = load_machine(name).spec.model_dump(by_alias=True)
        for own in ("name", "description", "validation"):
            del data[own]
        del data["arrays"]["main"]
        shared.append(data)
    assert all(data == shared[0] for data in shared)
    dot = load_machine("xnor_edge").arrays["dot"].spec
    assert dot.rows * dot.cols * dot.lanes == 64


@pytest.mark.parametrize(
    ("machine", "a", "w", "supported"),
    [
        ("xnor_edge", "BIPOLAR", "BIPOLAR", True),
        ("xnor_edge", "UNIPOLAR", "BIPOLAR", True),
        ("xnor_edge", "BIPOLAR", "UNIPOLAR", False),
        ("xnor_edge", "UINT8", "TERNARY", False),
        ("ternary_edge", "UINT8", "TERNARY", True),
        ("ternary_edge", "INT4", "BIPOLAR", True),
        ("ternary_edge", "BIPOLAR", "BIPOLAR", True),
        ("ternary_edge", "INT8", "INT8", False),
        ("ternary_edge", "INT9", "TERNARY", False),
        ("bitserial_edge", "INT8", "INT8", True),
        ("bitserial_edge", "INT16", "INT8", False),
        ("int8_edge", "UINT8", "INT8N", True),
        ("int8_edge", "UINT8", "UINT8", False),
    ],
)
def test_supported_formats(machine: str, a: str, w: str, supported: bool) -> None:
    assert main_array(machine).supports(parse(a), parse(w)) is supported


def test_a_format_covers_exactly_the_types_whose_codes_it_has() -> None:
    for fmt in TYPES:
        for dtype in TYPES:
            assert covers(fmt, dtype) == (set(dtype.levels) <= set(fmt.levels)), (fmt, dtype)


@pytest.mark.parametrize("machine", EDGES)
@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    a=st.sampled_from(TYPES),
    w=st.sampled_from(TYPES),
    m=st.integers(1, 5),
    n=st.integers(1, 5),
    k=st.sampled_from([1, 7, 63, 64, 65, 129, 200]),
    seed=st.integers(0, 99),
)
def test_products_are_exact(
    machine: str, a: DataType, w: DataType, m: int, n: int, k: int, seed: int
) -> None:
    array = main_array_cached(machine)
    a_codes, w_codes = codes(a, (m, k), seed), codes(w, (n, k), seed + 1)
    if not array.supports(a, w):
        with pytest.raises(GraphError, match=f"probe: array main does not multiply {a} by {w}"):
            array.gemm(a_codes, w_codes, a, w, where="probe")
        return
    expected = a_codes.astype(np.int64) @ w_codes.astype(np.int64).T
    got = array.gemm(a_codes, w_codes, a, w)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, expected)
    # The chunked twin agrees wherever nothing overflows.
    profiled = array._profiled(a_codes, w_codes, a, w, "probe", 0)
    np.testing.assert_array_equal(profiled, expected)
    assert np.abs(expected).max() <= array.static_bound(w_codes, k, a, w)
    assert np.abs(expected).max() <= array.static_bound(None, k, a, w)


_arrays: dict[str, ArrayComponent] = {}


def main_array_cached(machine: str) -> ArrayComponent:
    """Return the main array, read once: hypothesis asks for it many times."""
    return _arrays.setdefault(machine, main_array(machine))


def ones(k: int) -> npt.NDArray[np.int8]:
    """Return one row of k codes of 127."""
    return np.full((1, k), 127, np.int8)


def test_overflow_is_refused_by_name_with_the_bits_that_it_needs() -> None:
    # The static bound takes the type's largest activation: 9 * 127 * 128 = 146304.
    array = main_array("toy", "arrays.main.accumulator_bits=18")
    fits = array.gemm(ones(8), ones(8), INT8, INT8)
    assert fits[0, 0] == 8 * 127 * 127 == 129032  # 2^17 = 131072
    with pytest.raises(OverflowRefused) as caught:
        array.gemm(ones(9), ones(9), INT8, INT8, where="encoder.3.ffn1")
    assert str(caught.value) == (
        "encoder.3.ffn1: accumulator [0, 0] of array main must hold 145161, which needs 19 bits,"
        " 1 more than its accumulator_bits 18; the operator's static bound is 146304 (19 bits):"
        " widen the accumulator to that, or choose overflow wrap or clamp"
    )


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("wrap", 145161 - (1 << 18)), ("clamp", (1 << 17) - 1)],
)
def test_overflow_rules_do_what_they_say(rule: str, expected: int) -> None:
    array = main_array("toy", "arrays.main.accumulator_bits=18", f"arrays.main.overflow={rule}")
    assert array.gemm(ones(9), ones(9), INT8, INT8)[0, 0] == expected


def test_a_clamped_sum_depends_on_the_lanes() -> None:
    a = np.array([[100, 100, -100, -100]], np.int8)
    w = np.full((1, 4), 100, np.int8)
    narrow, wide = (
        main_array(
            "toy",
            "arrays.main.accumulator_bits=15",
            "arrays.main.overflow=clamp",
            f"arrays.main.lanes={lanes}",
        )
        for lanes in (2, 4)
    )
    assert wide.gemm(a, w, INT8, INT8)[0, 0] == 0
    assert narrow.gemm(a, w, INT8, INT8)[0, 0] == 16383 - 20000


def test_signed_bits_is_the_narrowest_width() -> None:
    for value in range(-300, 300):
        bits = signed_bits(value)
        assert -(1 << (bits - 1)) <= value < (1 << (bits - 1))
        assert bits == 1 or not -(1 << (bits - 2)) <= value < (1 << (bits - 2))


def test_mismatched_operands_are_refused() -> None:
    with pytest.raises(GraphError, match=r"probe: operands must be \[M, K\] and \[N, K\]"):
        main_array("toy").gemm(ones(8), ones(9), INT8, INT8, where="probe")
