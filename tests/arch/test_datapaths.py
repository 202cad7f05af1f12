"""Every datapath against plain loops: cycles and counts of hundreds of shapes, and all promises of an array."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import naive
import numpy as np
import pytest

from hwsim.arch.component import ArrayComponent
from hwsim.arch.machine import Machine
from hwsim.config.load import load_machine
from hwsim.conformance import check_array
from hwsim.errors import ConfigError
from hwsim.graph.dtype import BIPOLAR, TERNARY, UNIPOLAR, DataType, int_, parse, uint

MACHINES = Path(__file__).parents[1] / "machines"
FILES = sorted(path.stem for path in MACHINES.glob("*.yaml"))
INT8, UINT8 = int_(8), uint(8)


@cache
def machine(name: str, *overrides: str) -> Machine:
    return load_machine(MACHINES / f"{name}.yaml", overrides)


def main(name: str, *overrides: str) -> ArrayComponent:
    return machine(name, *overrides).arrays["main"]


def shapes(count: int = 100) -> list[tuple[int, int, int]]:
    rng = np.random.default_rng(11)
    drawn = [tuple(int(x) for x in rng.integers(0, (14, 14, 40))) for _ in range(count)]
    return [(m, n, k) for m, n, k in drawn]


def by_hand(
    array: ArrayComponent, shape: tuple[int, int, int], a: DataType, w: DataType
) -> tuple[int, naive.Tally]:
    s, bits = array.spec, (a.bits, w.bits)
    if s.kind == "lut":
        planes = 1 if s.index == "trits" else w.bits
        return naive.tables(s, shape, bits, planes)
    if s.kind == "weight_stationary":
        port = s.weight_port_bits_per_cycle
        return naive.held_weights(s, shape, bits, lambda c, x: naive.up(c * x * w.bits, port))
    if s.kind == "unrolled":
        word = s.weight_word_bits
        return naive.held_weights(s, shape, bits, lambda _, x: naive.up(x * w.bits, word))
    return naive.systolic(s, shape, bits)


VARIANTS = [
    ("lut_bits", ()),
    ("lut_bits", ("arrays.main.table_shadow=false", "arrays.main.builders=1")),
    ("lut_bits", ("arrays.main.activation_port_bits_per_cycle=16",)),
    ("lut_trits", ()),
    ("lut_trits", ("arrays.main.table_shadow=true", "arrays.main.build_rate=100")),
    ("systolic_output", ()),
    ("systolic_output", ("arrays.main.overlap_folds=true",)),
    ("systolic_output", ("arrays.main.lanes=1", "arrays.main.rows=3")),
    ("systolic_weight", ()),
    ("systolic_weight", ("arrays.main.overlap_folds=false",)),
    ("systolic_weight", ("arrays.main.lanes=1", "arrays.main.weight_port_bits_per_cycle=16")),
    ("weight_stationary", ()),
    ("weight_stationary", ("arrays.main.weight_shadow=false",)),
    ("weight_stationary", ("arrays.main.activation_port_bits_per_cycle=50",)),
    ("unrolled", ()),
    ("unrolled", ("arrays.main.weight_shadow=true",)),
]


@pytest.mark.parametrize(("name", "overrides"), VARIANTS)
def test_cycles_and_counts_are_those_of_plain_loops(name: str, overrides: tuple[str, ...]) -> None:
    array = main(name, *overrides)
    w = TERNARY if name in ("lut_trits", "unrolled") else int_(4)
    for shape in shapes():
        cycles, counts = by_hand(array, shape, INT8, w)
        assert array.cycles(*shape, INT8, w) == cycles, shape
        assert naive.tally(array.work(*shape, INT8, w)) == +counts, shape


@pytest.mark.parametrize("name", FILES)
def test_every_promise_is_kept(name: str) -> None:
    on = machine(name)
    for check in check_array(on.arrays["main"], on, ("TERNARY", "INT8")):
        assert check.cases >= 24
        assert not check.faults, check.text()


# -- by hand


def test_a_systolic_fold_takes_2r_c_t_minus_2() -> None:
    """6 x 5 x 20 on 4 x 4 cells: four folds, each with a stream of ten steps of two lanes."""
    wide = "arrays.main.weight_port_bits_per_cycle=64"
    array = main("systolic_output", wide)
    folds = [(4, 4), (4, 1), (2, 4), (2, 1)]
    assert array.cycles(6, 5, 20, INT8, INT8) == sum(2 * r + c + 10 - 2 for r, c in folds) == 66
    overlapping = main("systolic_output", wide, "arrays.main.overlap_folds=true")
    assert overlapping.cycles(6, 5, 20, INT8, INT8) == 4 * 10 + (2 * 4 + 4 - 2)
    # the port of the file takes 32 of the 4 x 2 x 8 bits of a step
    assert main("systolic_output").cycles(6, 5, 20, INT8, INT8) == 2 * 66


def test_weights_that_stay_let_m_go_by() -> None:
    """K = 20 is 8 + 8 + 4: rows of cells 4, 4, 2; N = 5 is 4 + 1; T = M = 6."""
    array = main("systolic_weight", "arrays.main.overlap_folds=false")
    folds = [(r, c) for c in (4, 1) for r in (4, 4, 2)]
    assert array.cycles(6, 5, 20, INT8, INT8) == sum(2 * r + c + 6 - 2 for r, c in folds) == 79


def test_a_block_of_weights_is_loaded_behind_the_beats_of_the_one_before() -> None:
    """M = 6 on 2 rows: 3 beats a block. A block of 4 x 8 x 8 bits through 32 takes 8 cycles."""
    assert main("weight_stationary").cycles(6, 4, 16, INT8, INT8) == 8 + max(3, 8) + 3
    assert main("weight_stationary").cycles(40, 4, 16, INT8, INT8) == 8 + 20 + 20
    plain = main("weight_stationary", "arrays.main.weight_shadow=false")
    assert plain.cycles(6, 4, 16, INT8, INT8) == 2 * (8 + 3)


def test_an_unrolled_array_takes_a_cycle_a_position_and_loads_its_columns_side_by_side() -> None:
    """As in CUTIE: 864 ternary weights an output channel, 48 to a word, load in 18 cycles."""
    cutie = (
        "arrays.main.cols=96",
        "arrays.main.lanes=864",
        "arrays.main.weight_word_bits=96",
        "arrays.main.activation_port_bits_per_cycle=6912",
        "memories.weights={capacity_bytes: 64KiB, read_width_bits: 64, write_width_bits: 64, buffering: double,"
        " read_pj: {value: 1.0, kind: assumed, source: s}, write_pj: {value: 1.0, kind: assumed, source: s},"
        " leakage_mw: {value: 0.1, kind: assumed, source: s}}",
    )
    array = main("unrolled", *cutie)
    assert array.cycles(1024, 96, 864, INT8, TERNARY) == 18 + 1024
    assert array.cycles(1024, 1, 864, INT8, TERNARY) == 18 + 1024


@pytest.mark.parametrize(("index", "group", "entries"), [("bits", 4, 16), ("trits", 2, 9)])
def test_a_table_has_2_to_the_g_or_3_to_the_g_entries(index: str, group: int, entries: int) -> None:
    array = main("lut_bits" if index == "bits" else "lut_trits")
    work = array.work(1, 1, group, INT8, TERNARY)
    assert dict(work.own) == {"table_entry": entries}
    assert work.lane_ops == (2 if index == "bits" else 1)  # a lookup a plane
    # built 5 a cycle by one of three builders, or 4 a cycle; then a beat a plane
    expected = -(-16 // 5) + 2 if index == "bits" else -(-9 // 4) + 1
    assert array.cycles(1, 1, group, INT8, TERNARY) == expected


def test_each_mode_has_lanes_and_energy_of_its_own() -> None:
    array = main("multi_mode")
    for a, w, lanes, fj in (
        (BIPOLAR, BIPOLAR, 64, 5.0),
        (UNIPOLAR, BIPOLAR, 64, 5.0),
        (INT8, TERNARY, 16, 20.0),
        (parse("INT2"), BIPOLAR, 16, 20.0),
        (UINT8, int_(4), 8, 100.0),
    ):
        assert array.block(a, w) == (4, 4, lanes)
        assert array.lane_op_fj(a, w).value == fj
        assert array.profile(a, w).lanes == lanes
        assert array.cycles(4, 4, 128, a, w) == 128 // lanes


# -- descriptions that cannot be


@pytest.mark.parametrize(
    ("name", "override", "text"),
    [
        ("lut_bits", "group=3", "must have lanes that are a multiple of group, not lanes 8 and group 3"),
        ("lut_trits", "formats.1.weight=INT4", "must have TERNARY or BIPOLAR weights where index is trits, not INT4"),
        ("unrolled", "rows=2", "rows: must be 1, not 2"),
        ("unrolled", "formats.0.weight=INT4",
         "must be at most 8 bits x TERNARY or BIPOLAR on an unrolled array, not INT8 x INT4"),
        ("multi_mode", "formats.0.weight=INT9", "must be at most 8 bits x at most 8 bits on a multi_mode array"),
        ("multi_mode", "formats.2.weight=INT8",
         "must list INT8 x INT8 before INT8 x INT8, which has all its codes and would always be chosen"),
        ("systolic_output", "dataflow=weight", "must be a known key"),
        ("lut_bits", "energy.table_entry_fj=null", "table_entry_fj"),
    ],
)  # fmt: skip
def test_descriptions_that_cannot_be_are_refused(name: str, override: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_machine(MACHINES / f"{name}.yaml", [f"arrays.main.{override}"])
    assert text in str(caught.value)
