"""Scaling laws: no unit energy, leakage or area falls with size or voltage, and none is used out of its range."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.arch.machine import Machine
from hwsim.arch.memory import Memory, MemorySpec
from hwsim.arch.operating_point import at_operating_point
from hwsim.config.load import load_machine
from hwsim.engine.energy import Prices
from hwsim.errors import ConfigError

QUIET = settings(derandomize=True, deadline=None, max_examples=60)
SRAM = load_machine("int8_edge").memories["weight_sram"].spec
ARRAY = load_machine("xnor_edge").arrays["main"]
KIB = 1024


def numbers(spec: MemorySpec) -> list[float]:
    """Read and write energy, leakage and area, nominal and both bounds."""
    memory = Memory("m", spec)
    assert memory.area_um2 is not None
    parts = (memory.read_pj, memory.write_pj, memory.leakage_mw, memory.area_um2)
    return [x for q in parts for x in (q.low, q.value, q.high)]


@QUIET
@given(
    st.tuples(st.integers(8 * KIB, 2048 * KIB), st.integers(8 * KIB, 2048 * KIB)),
    st.tuples(st.integers(1, 4096), st.integers(1, 4096)),
    st.tuples(st.floats(0, 2), st.floats(0, 2), st.floats(0, 2), st.floats(0, 2)),
)
def test_a_larger_or_wider_memory_never_costs_less(
    capacities: tuple[int, int],
    widths: tuple[int, int],
    exponents: tuple[float, float, float, float],
) -> None:
    names = ("energy_capacity", "energy_width", "leakage_capacity", "area_capacity")
    assert SRAM.scaling is not None
    law = SRAM.scaling.model_copy(
        update={f"{n}_exponent": e for n, e in zip(names, exponents, strict=True)}
    )
    small, large = (
        SRAM.model_copy(
            update={"scaling": law, "capacity_bytes": c, "read_width_bits": w, "write_width_bits": w}
        )
        for c, w in zip(sorted(capacities), sorted(widths), strict=True)
    )  # fmt: skip
    for a, b in zip(numbers(small), numbers(large), strict=True):
        assert b >= a * (1 - 1e-12)


def test_a_negative_exponent_is_refused() -> None:
    for key in ("energy_capacity", "energy_width", "leakage_capacity", "area_capacity"):
        with pytest.raises(
            ConfigError, match=rf"{key}_exponent: must be at least 0|greater than or equal to 0"
        ):
            load_machine("int8_edge", [f"memories.weight_sram.scaling.{key}_exponent=-0.1"])


@pytest.mark.parametrize(("size", "given_bytes"), [("4KiB", 4096), ("4MiB", 4 << 20)])
def test_out_of_its_range_a_law_is_refused(size: str, given_bytes: int) -> None:
    message = (
        r"memories\.weight_sram: must have capacity_bytes within its scaling's validity, 8192 to 2097152,"
        rf" not {given_bytes}: stay within it, or state"
    )
    with pytest.raises(ConfigError, match=message):
        load_machine("int8_edge", [f"memories.weight_sram.capacity_bytes={size}"])
    for edge in ("8KiB", "2MiB"):
        load_machine("int8_edge", [f"memories.weight_sram.capacity_bytes={edge}"])


@QUIET
@given(st.integers(1, 64), st.integers(1, 64))
def test_an_array_of_more_lanes_never_leaks_or_takes_less(first: int, second: int) -> None:
    few, many = sorted((first, second))
    small, large = (
        type(ARRAY)("main", ARRAY.spec.model_copy(update={"rows": n})) for n in (few, many)
    )
    for a, b in ((small.leakage_mw, large.leakage_mw), (small.area_um2, large.area_um2)):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert b.value >= a.value


POINTS = "operating_points=[{{name: a, voltage_v: {}, clock_hz: 1000000, dynamic_scale: {}, leakage_scale: {}}}]"


@pytest.mark.parametrize(
    ("point", "key"),
    [((0.6, 1.1, 0.5), "dynamic_scale"), ((0.6, 0.5, 1.1), "leakage_scale"), ((1.0, 0.9, 1.2), "dynamic_scale")],
)  # fmt: skip
def test_a_lower_voltage_never_costs_more(point: tuple[float, float, float], key: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"operating_points\.0\.{key}: must not fall where the voltage rises"
    ):
        load_machine("toy", [POINTS.format(*point)])


def test_energies_follow_the_points_of_a_machine() -> None:
    machine = load_machine("toy", [POINTS.format(0.6, 0.5, 0.5)])
    low = Machine(at_operating_point(machine.spec, "a"))
    for component, action in (
        ("memory:buffer", "read"),
        ("memory:buffer", "write"),
        ("dma", "bit"),
    ):
        prices = [Prices(m).price(component, action).pj for m in (low, machine)]
        assert prices[0] <= prices[1]
