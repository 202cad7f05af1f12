"""Whole models on each further datapath: every tensor equals the reference, and the cost adds up."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim import api
from hwsim.config.load import load_machine

MACHINES = Path(__file__).parents[1] / "machines"
ROOMY = [
    f"memories.{name}={{capacity_bytes: 1MiB, read_width_bits: 64, write_width_bits: 64, buffering: double,"
    " read_pj: {value: 1.0, kind: assumed, source: s}, write_pj: {value: 2.0, kind: assumed, source: s},"
    " leakage_mw: {value: 0.1, kind: assumed, source: s}}"
    for name in ("buffer", "weights")
]


@pytest.mark.parametrize("name", sorted(path.stem for path in MACHINES.glob("*.yaml")))
@pytest.mark.parametrize("recipe", ["kd_w2a8", "bit_w1a1"])
def test_no_tensor_is_unequal(student, name, recipe):
    made = student("bert", recipe)
    machine = load_machine(MACHINES / f"{name}.yaml", ROOMY)
    found = api.verify(made.model, machine, samples=4)
    assert found.unequal == []
    assert found.profiles == {}


@pytest.mark.parametrize("name", sorted(path.stem for path in MACHINES.glob("*.yaml")))
def test_narrow_accumulators_clamp_like_the_reference(student, name):
    """The chunks that an array sums at a time are its own: rows x lanes where sums run down a column."""
    made = student("bert", "kd_w2a8")
    narrow = ["arrays.main.accumulator_bits=9", "arrays.main.overflow=clamp"]
    machine = load_machine(MACHINES / f"{name}.yaml", [*ROOMY, *narrow])
    found = api.verify(made.model, machine, samples=2)
    assert found.unequal == []
    assert found.profiles


@pytest.mark.parametrize("name", sorted(path.stem for path in MACHINES.glob("*.yaml")))
def test_the_main_array_takes_time_and_energy(student, name):
    made = student("bert", "kd_w2a8")
    machine = load_machine(MACHINES / f"{name}.yaml", ROOMY)
    result = api.run(made.model, machine, cost_only=True).result.cost
    main = result.arrays["main"]
    assert main["operators"] > 0
    assert main["cycles"] > 0
    assert main["energy_pj"] > 0
    total = result.energy_pj.nominal
    parts = result.steady.ledger.by_component()
    parts_pj = sum(band.nominal for band in parts.values())
    assert abs(parts_pj - total) <= 1e-12 * total
