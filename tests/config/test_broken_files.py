"""Broken machine files: each fault is one message with its file, line, column, key and what must be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from hwsim.config.load import load_machine, machines_folder
from hwsim.errors import ConfigError

TOY = (machines_folder() / "toy.yaml").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Broken:
    """An edit of toy.yaml and the message it must give, as `line:column: key: pattern`."""

    name: str
    old: str
    new: str
    key: str
    pattern: str
    at: str
    """the text that the reported line and column must point at, as it stands in the broken file"""

    def text(self) -> str:
        assert self.old in TOY, f"{self.old!r} is not in toy.yaml"
        return TOY.replace(self.old, self.new, 1)


CASES = [
    Broken(
        "duplicate key",
        "    rows: 4\n",
        "    rows: 4\n    rows: 5\n",
        "arrays.main.rows",
        r"key is given twice; the first is at .*toy.yaml:\d+:5",
        "rows: 5",
    ),
    Broken(
        "unknown key close to a known one",
        "    rows: 4\n",
        "    zero_skiping: true\n    rows: 4\n",
        "arrays.main.zero_skiping",
        r"must be a known key \(.*zero_skipping\), not 'zero_skiping'; did you mean 'zero_skipping'\?",
        "zero_skiping",
    ),
    Broken(
        "missing unit in the key",
        "    capacity_bytes: 8KiB\n",
        "    capacity: 8KiB\n",
        "memories.buffer.capacity",
        r"must be a known key; did you mean 'capacity_bytes'\? \(that one is missing\)",
        "capacity: 8KiB",
    ),
    Broken(
        "unit that means two things",
        "capacity_bytes: 8KiB",
        "capacity_bytes: 8KB",
        "memories.buffer.capacity_bytes",
        r"must be a positive whole number of bytes, or one with a unit of B, KiB, MiB, GiB, not '8KB'",
        "8KB",
    ),
    Broken(
        "wrong type",
        "    lanes: 8\n",
        "    lanes: eight\n",
        "arrays.main.lanes",
        "must be a whole number, not 'eight'",
        "eight",
    ),
    Broken(
        "fraction where a count is meant",
        "    cols: 4\n",
        "    cols: 4.0\n",
        "arrays.main.cols",
        "must be a whole number, not 4.0",
        "4.0",
    ),
    Broken(
        "octal-looking number is text",
        "    cols: 4\n",
        "    cols: 010\n",
        "arrays.main.cols",
        "must be a whole number, not '010'",
        "010",
    ),
    Broken(
        "word that YAML 1.1 takes for a truth value",
        "    buffering: double\n",
        "    buffering: on\n",
        "memories.buffer.buffering",
        "must be 'single' or 'double', not 'on'",
        "on\n",
    ),
    Broken(
        "zero size",
        "    rows: 4\n",
        "    rows: 0\n",
        "arrays.main.rows",
        "must be greater than 0, not 0",
        "0\n    cols",
    ),
    Broken(
        "negative size",
        "capacity_bytes: 8KiB",
        "capacity_bytes: -64",
        "memories.buffer.capacity_bytes",
        "must be a positive whole number of bytes, .* not -64",
        "-64",
    ),
    Broken(
        "a size beyond all counts",
        "capacity_bytes: 8KiB",
        "capacity_bytes: 1000000000000000000000000000000",
        "memories.buffer.capacity_bytes",
        "must be at most 1000000000000000, not 1000000000000000000000000000000",
        "1000000000000000000000000000000",
    ),
    Broken(
        "unknown kind",
        "    kind: int\n",
        "    kind: xnor_popcont\n",
        "arrays.main.kind",
        r"must be a known array kind \(.*\), not 'xnor_popcont'; did you mean 'xnor_popcount'\?",
        "xnor_popcont",
    ),
    Broken(
        "capacity too small for one tile",
        "  weights:\n    capacity_bytes: 8KiB",
        "  weights:\n    capacity_bytes: 60",
        "memories.weights.capacity_bytes",
        r"must hold one cols x lanes block of array main \(32 bytes\) in a half .*, not 30 bytes",
        "60\n",
    ),
    Broken(
        "number without provenance",
        "read_pj: {value: 1.0, kind: assumed, source: *round}",
        "read_pj: 1.0",
        "memories.buffer.read_pj",
        r"must be a mapping with value, kind and source \(a bare number has no provenance\), not 1.0",
        "1.0\n    write_pj",
    ),
    Broken(
        "bounds that do not enclose the value",
        "read_pj: {value: 1.0, kind",
        "read_pj: {value: 1.0, low: 2.0, kind",
        "memories.buffer.read_pj",
        "must have low <= value <= high, not 2, 1, 1",
        "{value: 1.0, low: 2.0",
    ),
    Broken(
        "role of a memory that is not there",
        "activation: buffer, weight",
        "activation: bufer, weight",
        "roles.activation",
        r"must name a memory of this machine \(buffer, weights\), not 'bufer'; did you mean 'buffer'\?",
        "bufer, weight",
    ),
    Broken(
        "operator that does not exist",
        "    threshold:\n",
        "    treshold:\n",
        "vector_unit.operators.treshold",
        r"must be a vector operator \(.*\), not 'treshold'; did you mean 'threshold'\?",
        "treshold",
    ),
    Broken(
        "format that the array cannot multiply",
        "- {activation: INT8, weight: INT8}",
        "- {activation: INT16, weight: INT8}",
        "arrays.main.formats.0",
        "must be at most 8 bits x at most 8 bits on an int array, not INT16 x INT8",
        "{activation: INT16",
    ),
    Broken(
        "format that is none",
        "- {activation: INT8, weight: INT8}",
        "- {activation: INT8, weight: FLOAT8}",
        "arrays.main.formats.0.weight",
        "a number type must be BIPOLAR, UNIPOLAR, TERNARY, INTn, INTnN or UINTn, not 'FLOAT8'",
        "FLOAT8",
    ),
    Broken(
        "Python tag",
        "name: toy",
        "name: !!python/object/apply:os.system [ls]",
        "",
        "tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed",
        "!!python",
    ),
    Broken(
        "merge key",
        "roles: {activation",
        "roles: {<<: *round, activation",
        "roles.<<",
        "merge keys are not allowed; use `extends:`",
        "<<",
    ),
    Broken(
        "second document",
        "dram:\n",
        "---\ndram:\n",
        "",
        "must hold one document, but a second one starts here",
        "---",
    ),
    Broken(
        "key that is a number",
        "dram:\n",
        "7: seven\ndram:\n",
        "7",
        "a key must be text, not 7; put it in quotes",
        "7: seven",
    ),
    Broken(
        "no YAML at all",
        "roles: {activation: buffer",
        "roles: {activation: [buffer",
        "",
        "is not YAML: while parsing a flow sequence, expected ',' or ']'",
        "}\ncontrol_pj_per_step",
    ),
    Broken(
        "other layout version",
        "hwsim/accelerator/1",
        "hwsim/accelerator/9",
        "schema",
        "must be 'hwsim/accelerator/1', not 'hwsim/accelerator/9'",
        "hwsim/accelerator/9",
    ),
    Broken(
        "missing key",
        "    pipeline_depth_cycles: 3\n",
        "",
        "arrays.main.pipeline_depth_cycles",
        r"must be given: this key is missing \(cycles from a compute step's last beat to its visible result\)",
        "main:\n",
    ),
    Broken(
        "energy with memories in it",
        "lane_op_fj: {value: 100.0, ",
        "lane_op_fj: {value: 100.0, scope: soc, ",
        "arrays.main.energy.lane_op_fj.scope",
        "must be datapath, or come with `split:` .*, not soc: they are modelled apart",
        "soc,",
    ),
    Broken(
        "not a number",
        "lane_op_fj: {value: 100.0, ",
        "lane_op_fj: {value: .nan, ",
        "arrays.main.energy.lane_op_fj.value",
        "must be a finite number, not nan",
        ".nan",
    ),
]


def faults_of(path: Path, *overrides: str) -> tuple[str, ...]:
    """Return the faults that loading a machine reports."""
    with pytest.raises(ConfigError) as caught:
        load_machine(path, overrides)
    return caught.value.faults


def position(text: str, at: str) -> str:
    """Return `line:column` of the first place where `at` stands in a text, both from 1."""
    offset = text.index(at)
    line_start = text.rfind("\n", 0, offset) + 1
    return f"{text.count(chr(10), 0, offset) + 1}:{offset - line_start + 1}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_fault_has_its_place_key_and_message(case: Broken, tmp_path: Path) -> None:
    text = case.text()
    path = tmp_path / "toy.yaml"
    path.write_text(text, encoding="utf-8")
    faults = faults_of(path)
    expected = re.escape(f"{path}:{position(text, case.at)}: ")
    key = re.escape(f"{case.key}: ") if case.key else ""
    assert len(faults) == 1, faults
    assert re.match(expected + key + case.pattern, faults[0]), faults[0]


def test_all_faults_are_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    text = TOY.replace("rows: 4", "rows: 0").replace("lanes: 8", "lanes: x", 1)
    path.write_text(text.replace("  burst_bytes: 8\n", ""), encoding="utf-8")
    faults = faults_of(path)
    assert [f.split(": ")[1] for f in faults] == [
        "arrays.main.rows",
        "arrays.main.lanes",
        "dram.burst_bytes",
    ]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "1:1: must be a mapping of keys, not an empty file"),
        (b"# nothing\n", "1:1: must be a mapping of keys, not an empty file"),
        (b"- a\n- b\n", "1:1: must be a mapping of keys at its top, not a list"),
        (b"\njust text\n", "2:1: must be a mapping of keys at its top, not a single value"),
        (
            b"name: toy\ndescription: caf\xe9\n",
            "2:17: must be UTF-8 text, not a byte 0xE9 (invalid continuation byte)",
        ),
        (b"name: a\nb: \x07\n", "2:4: character U+0007 is not allowed in YAML"),
        (b"a: " + b"[" * 60 + b"]" * 60, "1:43: must be nested at most 40 deep"),
        (b"a: &x [1, *x]\n", "1:8: aliases expand to more than 20000 values or 40 levels"),
    ],
    ids=["empty", "comment", "list", "text", "not_utf8", "control", "deep", "recursive"],
)
def test_what_is_no_mapping_is_refused_with_its_place(
    raw: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.yaml"
    path.write_bytes(raw)
    (fault,) = faults_of(path)
    assert fault.startswith(f"{path}:{message}"), fault


def test_alias_bomb_is_refused_quickly(tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 12):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    path.write_text("\n".join(lines), encoding="utf-8")
    (fault,) = faults_of(path)
    assert re.match(re.escape(str(path)) + r":\d+:\d+: aliases expand to more than 20000", fault)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "no_such"], "machine must be a YAML file or one of .*, not 'no_such'"),
        (["check", "ternary_egde"], "did you mean 'ternary_edge'"),
        (["check", "no/such.yaml"], "machine file must exist, not 'no/such.yaml'\\n"),
        (["expand", "toy", "--set", "clock_hz=0"], "--set clock_hz=0: clock_hz: must be greater"),
        (["check", "toy", "--set", "clock_hz"], "--set clock_hz: must be PATH=VALUE"),
    ],
)
def test_command_line_says_what_is_wrong_and_exits_with_2(
    hwsim, arguments: list[str], message: str
) -> None:
    done = hwsim(*arguments)
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert "Traceback" not in done.stderr


def test_a_folder_in_place_of_a_machine_is_called_one(hwsim, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dir.yaml").mkdir()
    done = hwsim("check", "dir.yaml")
    assert done.returncode == 2
    assert done.stderr == "machine must be a YAML file or a shipped name; 'dir.yaml' is a folder\n"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine.yaml").touch()
    assert "did you mean 'mine.yaml'?" in hwsim("check", "mine").stderr


def test_command_line_points_into_a_broken_file(hwsim, tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(TOY.replace("    rows: 4\n", "    rows: -1\n"), encoding="utf-8")
    done = hwsim("check", path)
    place = position(TOY, "4\n    cols")
    assert done.returncode == 2
    assert done.stderr == (f"{path}:{place}: arrays.main.rows: must be greater than 0, not -1\n")
