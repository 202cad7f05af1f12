"""The report's tables of the machines: figures as the evaluations left them, savings against the first student there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwsim.config.load import build_machine, changed_machine, load_machine, machine_bases
from hwsim.report.facts import facts, limits
from studies import synthetic
from studies.iso_accuracy import cost_ratio, gain_difference
from studies.machine_tables import facts_by_machine, facts_table, machine_tables, saving_table
from studies.quantities import Judged, judge
from studies.space import find_study, load_study, shipped_studies
from studies.table import Results, load_results
from studies.text import SPACE, times

STUDENTS = {"W8A8": 0.975, "W2A8 KD": 0.962, "W1A1 BiT": 0.93}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return load_results(synthetic.make_folder(tmp_path_factory.mktemp("s") / "d", (0, 1), STUDENTS))


@pytest.fixture(scope="module")
def judged(results: Results) -> Judged:
    return judge(results)


def changed(results: Results, machine: str, **figures: Any) -> Results:
    """Return results with other figures of one machine."""
    attempts = dict(results.attempts)
    for row in results.rows:
        attempt = attempts[row.node]
        if row.machine == machine and attempt.result is not None:
            known = {**attempt.result["machine"], **figures}
            attempts[row.node] = replace(attempt, result={**attempt.result, "machine": known})
    return replace(results, attempts=attempts)


def test_each_machine_stands_once_with_its_figures(results: Results) -> None:
    table = facts_table(results)
    assert table is not None
    assert [line.cells[0].text for line in table.rows] == results.machines
    shown = [cell.text.replace(SPACE, " ") for cell in table.rows[0].cells[1:]]
    assert shown == ["200 MHz", "main: int 4 x 8 x 16", "weight_sram: 128 KiB", "3.2 GB/s", "10.9"]
    assert table.rows[0].cells[-1].small == "8 to 31"
    assert table.rows[0].cells[2].small == "dot: int 2 x 4 x 8"
    assert "drawn independently" not in table.text


def test_other_off_chip_memories_and_starved_arrays_are_said(results: Results) -> None:
    dram = {"bytes_per_s": 1, "pj_per_bit": [19.4, 8, 47], "unknown": "lpddr5_bit"}
    other = changed(results, "int8_edge", dram=dram, notes=["array main: its port"])
    table = facts_table(other)
    assert table is not None
    assert "drawn independently" in table.text
    assert "int8_edge: array main: its port." in table.text


def test_ledgers_that_do_not_say_it_have_no_such_table(results: Results) -> None:
    old = replace(
        results,
        attempts={
            k: a if a.result is None else replace(a, result={x: y for x, y in a.result.items() if x != "machine"})
            for k, a in results.attempts.items()
        },
    )  # fmt: skip
    assert facts_by_machine(old) == {}
    assert facts_table(old) is None
    assert [t.heading for t in machine_tables(judge(old))] == [
        "What each student saves on a machine"
    ]


def test_savings_are_against_the_first_student_of_the_machine(judged: Judged) -> None:
    table = saving_table(judged)
    assert table is not None
    points = {(p.machine, p.student): p for p in judged.points}
    lines = {line.cells[0].text: line.cells for line in table.rows}
    assert lines.keys() == {f"{machine}, {student}" for machine, student in points}
    first, cheap = points["int8_edge", "W8A8"], points["int8_edge", "W1A1 BiT"]
    cells = lines["int8_edge, W1A1 BiT"]
    head = dict(zip(table.head, cells, strict=False))
    assert head["difference"].text == cheap.metric.difference(gain_difference(cheap, first).mean)
    ratio = cost_ratio(first, cheap, "energy_pj")
    assert cells[4].text == times(ratio.nominal)
    assert ratio.nominal > 1
    assert cells[4].small  # the band
    assert [cell.text for cell in lines["int8_edge, W8A8"][2::2]] == ["–", "–", "–"]


def test_hardware_alone_has_savings_without_scores(tmp_path: Path) -> None:
    hardware = judge(load_results(synthetic.make_hardware_folder(tmp_path / "hw", 8)))
    table = saving_table(hardware)
    assert table is not None
    assert "difference" not in table.head
    assert (
        saving_table(judge(load_results(synthetic.make_hardware_folder(tmp_path / "many", 90))))
        is None
    )


def test_a_port_that_starves_an_array_is_told() -> None:
    assert list(limits(load_machine("bitserial_edge"))) == []
    (note,) = limits(load_machine("bitserial_edge", ["arrays.main.rows=16"]))
    assert note == (
        "array main: a beat of all 16 x 8 x 64 takes 2 cycles (INT8 x INT8, UINT8 x INT8), because its activation port"
        " brings 512 bits a cycle; a smaller array would do as much; see arrays.main.activation_port_bits_per_cycle"
    )
    wide = ["arrays.main.rows=16", "arrays.main.activation_port_bits_per_cycle=1024"]
    assert list(limits(load_machine("bitserial_edge", wide))) == []


def test_a_dma_that_throttles_the_dram_is_told() -> None:
    fast = ["dram.preset=lpddr5_6400_x16"]
    (note,) = limits(load_machine("ternary_edge", fast))
    assert (
        note
        == "dma: 128 bits a cycle carry 4.8 GB/s of the 12.8 GB/s off-chip; see dma.width_bits_per_cycle"
    )
    assert list(limits(load_machine("ternary_edge", [*fast, "dma.width_bits_per_cycle=342"]))) == []


@pytest.mark.parametrize("name", ["toy", "ternary_edge"])
def test_facts_are_those_of_the_file(name: str) -> None:
    machine = load_machine(name)
    found = facts(machine)
    assert found["clock_hz"] == machine.spec.clock_hz
    assert found["memories_bytes"].keys() == machine.spec.memories.keys()
    assert found["dram"]["pj_per_bit"][0] == machine.spec.dram.energy_pj_per_bit.value
    assert found["notes"] == []


@pytest.mark.parametrize("name", shipped_studies())
def test_no_machine_of_a_shipped_study_is_throttled_by_a_part_that_nobody_asks_about(
    name: str,
) -> None:
    for one in load_study(find_study(name)).variants:
        machine = build_machine(changed_machine(machine_bases(one.machine), one.settings))
        assert list(limits(machine)) == [], one
