"""`energy: {from: table.csv}`: the same machine as with the numbers written out, and every fault at its cell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwsim.arch.machine import Machine
from hwsim.config.load import compose_machine, load_machine
from hwsim.config.schema import machine_schema
from hwsim.errors import ConfigError

HEADER = "action,value,unit,low,high,kind,source\n"
ROWS = (
    'lane_op,0.0012,pJ/op,0.0006,0.0031,post_synth,"report of March, corner tt"\n'
    "accumulator_update,10,fJ/op,,,assumed,a guess\n"
    "operand_register,1e-6,nJ/bit,,,measured,chip 7\n"
)
MACHINE = "schema: hwsim/accelerator/1\nextends: toy\nname: tabled\narrays:\n  main:\n    energy: {from: tables/main.csv}\n"
INLINE = """
schema: hwsim/accelerator/1
extends: toy
name: tabled
arrays:
  main:
    energy:
      lane_op_fj: {value: 1.2, low: 0.6, high: 3.1, kind: post_synth, source: "report of March, corner tt"}
      accumulator_update_fj: {value: 10.0, kind: assumed, source: a guess}
      operand_register_fj_per_bit: {value: 1.0, kind: measured, source: chip 7}
"""


def with_table(folder: Path, table: str, machine: str = MACHINE) -> Path:
    (folder / "tables").mkdir(exist_ok=True)
    (folder / "tables" / "main.csv").write_text(table, encoding="utf-8")
    path = folder / "tabled.yaml"
    path.write_text(machine, encoding="utf-8")
    return path


def load(folder: Path, table: str, machine: str = MACHINE) -> Machine:
    return load_machine(with_table(folder, table, machine))


def test_a_table_is_the_numbers_written_out(tmp_path):
    energy = load(tmp_path, HEADER + ROWS).spec.arrays["main"].energy
    inline = tmp_path / "inline.yaml"
    inline.write_text(INLINE, encoding="utf-8")
    written = load_machine(inline).spec.arrays["main"].energy
    for name in type(energy).model_fields:
        got, want = getattr(energy, name), getattr(written, name)
        if want is None:  # an optional part that is no quantity
            assert got is None
            continue
        assert got.model_dump(exclude={"source"}) == want.model_dump(exclude={"source"})
        assert got.source.startswith(f"{want.source} [main.csv, SHA-256 ")


def test_columns_may_stand_in_any_order_and_have_blanks(tmp_path):
    turned = "source , kind,high,low,unit,value,action\r\n"
    for line in ROWS.splitlines():
        cells = line.split('"')[0].split(",")[:6]
        source = '"a ""b"", c"' if '"' in line else line.split(",")[6]
        turned += ", ".join([source, *cells[::-1]]) + "\r\n"
    energy = load(tmp_path, turned + "\n\n").spec.arrays["main"].energy
    assert energy.lane_op_fj.value == 1.2
    assert energy.lane_op_fj.source.startswith('a "b", c [')


def test_the_machine_is_another_when_the_table_is(tmp_path):
    first = load(tmp_path, HEADER + ROWS).sha256
    assert load(tmp_path, HEADER + ROWS).sha256 == first
    assert load(tmp_path, HEADER + ROWS.replace("0.0012,pJ", "1.2,fJ").replace("0.0006,0.0031", "0.6,3.1")).sha256 != first  # fmt: skip
    assert load(tmp_path, HEADER + ROWS.replace("chip 7", "chip 8")).sha256 != first


def test_a_path_starts_at_the_file_that_names_it(tmp_path, monkeypatch):
    """Also where another folder's machine extends that file, and wherever one works."""
    base = tmp_path / "base"
    base.mkdir()
    with_table(base, HEADER + ROWS)
    top = tmp_path / "top.yaml"
    top.write_text(
        "schema: hwsim/accelerator/1\nextends: base/tabled.yaml\nname: top\narrays:\n  main:\n    energy:\n"
        "      lane_op_fj: {value: 7.0, kind: assumed, source: mine}\n",
        encoding="utf-8",
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    energy = load_machine(top).spec.arrays["main"].energy
    assert energy.lane_op_fj.value == 7.0
    assert energy.lane_op_fj.low == 7.0, "nothing is left of the table's bounds"
    assert energy.accumulator_update_fj.value == 10.0

    (tmp_path / "elsewhere" / "own.csv").write_text(HEADER + ROWS.replace("10,fJ", "11,fJ"))
    energy = load_machine("toy", ["arrays.main.energy={from: own.csv}"]).spec.arrays["main"].energy
    assert energy.accumulator_update_fj.value == 11.0


def test_what_expands_is_a_machine_by_itself(tmp_path):
    from hwsim.config.dump import to_yaml

    path = with_table(tmp_path, HEADER + ROWS)
    document = compose_machine(path)
    alone = tmp_path / "alone" / "alone.yaml"
    alone.parent.mkdir()
    alone.write_text(to_yaml(document.data), encoding="utf-8")
    assert load_machine(alone).sha256 == load_machine(path).sha256
    place = document.place(("arrays", "main", "energy", "lane_op_fj", "value"))
    assert str(place) == f"{tmp_path / 'tables' / 'main.csv'}:2:9"


def test_a_kind_with_an_action_of_its_own_needs_it(tmp_path):
    lut = (Path(__file__).parents[1] / "machines" / "lut_bits.yaml").read_text(encoding="utf-8")
    (tmp_path / "lut_base.yaml").write_text(lut, encoding="utf-8")
    machine = (
        "schema: hwsim/accelerator/1\nextends: lut_base.yaml\nname: tabled\narrays:\n  main:\n"
        "    energy: {from: tables/main.csv}\n"
    )
    own = ROWS + "table_entry,3,fJ/op,,,assumed,a guess\n"
    energy = load(tmp_path, HEADER + own, machine).spec.arrays["main"].energy
    assert energy.model_dump()["table_entry_fj"]["value"] == 3.0


LANE, UPDATE, REGISTER = ROWS.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("", ":1:1: must start with the columns action, value, unit, low, high, kind, source"),
        (
            HEADER.replace("unit,", "") + ROWS,
            ":1:1: must have the columns action, value, unit, low, high, kind, source; lacks unit",
        ),
        (
            HEADER.replace("source", "sauce") + ROWS,
            ":1:33: must be a known column, not 'sauce'; did you mean 'source'?",
        ),
        (HEADER.replace("source", "source,low") + ROWS, ":1:40: column 'low' is given twice"),
        (
            HEADER + ROWS.replace("lane_op", "lane_up"),
            ", not 'lane_up'; did you mean 'lane_op'?",
        ),
        (
            HEADER + ROWS + UPDATE,
            ":5:1: action: 'accumulator_update' is given twice; the first is at FILE:3:1",
        ),
        (HEADER + ROWS.replace("10,fJ", "ten,fJ"), ":3:20: value: must be a number, not 'ten'"),
        (HEADER + ROWS.replace("10,fJ", ",fJ"), ":3:20: value: must be a number, not an empty cell"),
        (HEADER + ROWS.replace("0.0006", "low"), ":2:22: low: must be a number, not 'low'"),
        (
            HEADER + ROWS.replace("fJ/op", ""),
            ":3:23: unit: of accumulator_update must be one of fJ/op, pJ/op, nJ/op, not an empty cell",
        ),
        (
            HEADER + ROWS.replace("nJ/bit", "nJ/op"),
            ":4:23: unit: of operand_register must be one of fJ/bit, pJ/bit, nJ/bit, not 'nJ/op'",
        ),
        (HEADER + ROWS.replace("fJ/op", "J/op"), "not 'J/op'"),
        (HEADER + ROWS.replace(",a guess", ""), ":3:1: must have 7 cells as the header has, not 6"),
        (HEADER + '"lane_op,1', ":2:1: a quoted cell must end with a quotation mark"),
        (HEADER + '"lane_op"x,1', ":2:10: must be a comma or the end of the line behind a cell"),
        (
            HEADER + ROWS.replace("assumed", "guessed"),
            ":3:31: arrays.main.energy.accumulator_update_fj.kind: must be 'measured', 'post_layout'",
        ),
        (
            HEADER + ROWS.replace("a guess", ""),
            ":3:39: arrays.main.energy.accumulator_update_fj.source: must be text of at least 1 characters",
        ),
        (
            HEADER + ROWS.replace("assumed", ""),
            ":3:31: arrays.main.energy.accumulator_update_fj.kind: must be 'measured', 'post_layout'",
        ),
        (HEADER + ROWS.replace("0.0031", "0.0011"), ":2:1: arrays.main.energy.lane_op_fj: must have low <= value <= high"),
        (HEADER + LANE + UPDATE.replace("10", "-10") + REGISTER, "must have low > 0, or low = high = 0"),
    ],
)  # fmt: skip
def test_every_fault_has_its_place(tmp_path, table, fault):
    path = with_table(tmp_path, table)
    csv = str(tmp_path / "tables" / "main.csv")
    with pytest.raises(ConfigError) as caught:
        load_machine(path)
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].startswith(csv)
    assert fault.replace("FILE", csv) in caught.value.faults[0]


def test_faults_of_several_rows_come_together(tmp_path):
    table = HEADER + ROWS.replace("lane_op", "lane").replace("10,fJ", "x,fJ")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, table)
    assert [fault.split(":")[1] for fault in caught.value.faults] == ["2", "3"]


def test_a_missing_row_is_a_missing_key(tmp_path):
    """Of a machine that inherits nothing for it."""
    whole = load_machine("toy").spec.model_dump(mode="json", by_alias=True)
    whole["arrays"]["main"]["energy"] = {"from": "tables/main.csv"}
    with pytest.raises(ConfigError, match=r"operand_register_fj_per_bit"):
        load(tmp_path, HEADER + LANE + UPDATE, json.dumps(whole))


@pytest.mark.parametrize(
    ("energy", "fault"),
    [
        ("{from: tables/none.csv}", "none.csv cannot be read: No such file or directory"),
        ("{from: tables/main.txt}", "arrays.main.energy.from: must be a .csv file, not 'tables/main.txt'"),
        ("{from: 3}", "arrays.main.energy.from: must be a .csv file, not 3"),
        (
            "{from: tables/main.csv, lane_op_fj: {value: 1.0, kind: assumed, source: s}}",
            "arrays.main.energy.lane_op_fj: is given twice; the other is at",
        ),
    ],
)  # fmt: skip
def test_faults_of_the_machine_file_point_there(tmp_path, energy, fault):
    machine = MACHINE.replace("{from: tables/main.csv}", energy)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, HEADER + ROWS, machine)
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].startswith(f"{tmp_path / 'tabled.yaml'}:6:")
    assert fault in caught.value.faults[0]


def test_the_schema_for_editors_knows_it():
    energy = machine_schema()["$defs"]["ArrayEnergySpec"]
    assert "from" in energy["properties"]
    assert {"required": ["from"]} in energy["anyOf"]
