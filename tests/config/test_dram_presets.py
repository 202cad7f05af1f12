"""Off-chip memories by name: every file is sound, and what stands beside `preset:` changes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.arch.dram import DramSpec
from hwsim.arch.machine import Machine
from hwsim.config.load import compose_machine, list_dram, load_machine
from hwsim.config.schema import machine_schema
from hwsim.errors import ConfigError

NAMES = [name for name, _ in list_dram()]


def dram(*overrides: str, machine: str | Path = "int8_edge") -> DramSpec:
    return load_machine(machine, overrides).spec.dram


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_states_all_and_its_doubts(name: str) -> None:
    spec = dram(f"dram.preset={name}")
    energy = spec.energy_pj_per_bit
    assert energy.low < energy.high  # tools disagree about every one of them
    assert energy.source
    assert energy.shared
    assert spec.latency_ns == 100


def test_published_figures_of_the_presets() -> None:
    # Transfers a second x bits / 8, and pJ a bit as the tables have them.
    wanted = {
        "lpddr4_1600_x16": (1600e6 * 16 / 8, 10.9),
        "lpddr5_6400_x16": (6400e6 * 16 / 8, 19.4),
        "ddr4_2400_x64": (2400e6 * 64 / 8, 37.4),
        "gddr6_14000_x32": (14e9 * 32 / 8, 14.0),
        "hbm2": (2e9 * 1024 / 8, 4.94),
        "hbm3": (6.4e9 * 1024 / 8, 4.05),
    }
    found = {n: dram(f"dram.preset={n}") for n in NAMES}
    assert {
        n: (s.bandwidth_bytes_per_s, s.energy_pj_per_bit.value) for n, s in found.items()
    } == wanted


def test_a_preset_replaces_what_was_inherited_and_later_keys_change_it() -> None:
    assert dram().latency_cycles == 30
    plain = dram("dram.preset=hbm2")
    assert (plain.latency_cycles, plain.burst_bytes) == (None, 32)
    changed = dram("dram.preset=hbm2", "dram.burst_bytes=64")
    assert changed == plain.model_copy(update={"burst_bytes": 64})
    assert (
        dram("dram.burst_bytes=64", "dram.preset=hbm2") == plain
    )  # in order: the preset came later
    cheap = dram(
        "dram.preset=hbm2", "dram.energy_pj_per_bit={value: 1.0, kind: assumed, source: s}"
    )
    assert (cheap.energy_pj_per_bit.low, cheap.energy_pj_per_bit.shared) == (1.0, None)


def test_presets_pass_through_extends(tmp_path: Path) -> None:
    base, top, other = (tmp_path / f"{n}.yaml" for n in ("base_file", "top", "other"))
    base.write_text("extends: int8_edge\ndram: {preset: hbm2, burst_bytes: 64}\n", encoding="utf-8")
    top.write_text("extends: base_file\ndram: {latency_ns: 80}\n", encoding="utf-8")
    other.write_text("extends: base_file\ndram: {preset: ddr4_2400_x64}\n", encoding="utf-8")
    hbm2 = dram("dram.preset=hbm2")
    assert dram(machine=top) == hbm2.model_copy(update={"burst_bytes": 64, "latency_ns": 80})
    assert dram(machine=other) == dram("dram.preset=ddr4_2400_x64")


def test_an_unknown_preset_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("extends: toy\ndram: {preset: hmb2}\n", encoding="utf-8")
    with pytest.raises(
        ConfigError,
        match=r"m\.yaml:2:16: dram\.preset: must be one of .* not 'hmb2'; did you mean 'hbm2'",
    ):
        load_machine(path)
    with pytest.raises(ConfigError, match=r"--set dram\.preset=3: dram\.preset: must be one of"):
        load_machine("toy", ["dram.preset=3"])


def test_faults_in_what_changes_a_preset_have_their_place() -> None:
    with pytest.raises(
        ConfigError, match=r"--set dram\.burst_bytes=0: dram\.burst_bytes: must be greater"
    ):
        load_machine("toy", ["dram.preset=hbm2", "dram.burst_bytes=0"])
    with pytest.raises(
        ConfigError, match="must have one of latency_cycles and latency_ns, not both"
    ):
        load_machine("toy", ["dram.latency_ns=100"])


def test_nanoseconds_become_whole_cycles_of_each_clock() -> None:
    spec = load_machine("toy", ["dram.preset=hbm2"]).spec
    for clock_hz, cycles in ((100_000_000, 10), (300_000_000, 30), (333_333_333, 34), (1, 1)):
        assert Machine(spec.model_copy(update={"clock_hz": clock_hz})).dram.latency_cycles == cycles


def test_an_expanded_machine_needs_no_preset() -> None:
    data = compose_machine("int8_edge", ["dram.preset=hbm3"]).data
    assert "preset" not in data["dram"]
    assert DramSpec.model_validate(data["dram"]) == dram("dram.preset=hbm3")


def test_the_schema_lists_the_presets() -> None:
    part = machine_schema()["$defs"]["DramSpec"]
    assert part["properties"]["preset"]["enum"] == NAMES
    assert {"required": ["preset"]} in part["anyOf"]
