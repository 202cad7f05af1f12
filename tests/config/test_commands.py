"""The command line: what it prints, how it ends, and that it answers quickly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hwsim.config.load import list_dram, list_machines, load_machine
from hwsim.config.schema import machine_schema


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["run", "--help"]])
def test_a_quick_answer_imports_nothing_heavy(arguments: list[str]) -> None:
    """Nothing that takes a second to import: this, not a time that depends on the computer, is what a test can hold."""
    code = (
        "import sys, hwsim.cli\n"
        "try: hwsim.cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'scipy', 'numba', 'networkx', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "hwsim" in done.stdout or "Published:" in done.stdout


def test_list_names_every_machine_with_its_description(hwsim) -> None:
    lines = hwsim("list").stdout.splitlines()
    split = lines.index("Published:")
    presets = lines.index("Off-chip memory, for dram.preset:")
    for part, listed in (
        (lines[1:split], list_machines(published=False)),
        (lines[split + 1 : presets], list_machines(published=True)),
        (lines[presets + 1 :], list_dram()),
    ):
        expected = [list(m) for m in listed]
        assert [line.split(maxsplit=1) for line in part] == expected


def test_an_expanded_machine_is_the_same_machine(hwsim, tmp_path: Path) -> None:
    done = hwsim("expand", "ternary_edge", "--set", "clock_hz=123")
    assert done.returncode == 0
    assert "extends" not in done.stdout
    path = tmp_path / "expanded.yaml"
    path.write_text(done.stdout, encoding="utf-8")
    assert load_machine(path).sha256 == load_machine("ternary_edge", ["clock_hz=123"]).sha256


def test_origins_name_the_file_or_the_option_of_every_key(hwsim) -> None:
    lines = hwsim("expand", "ternary_edge", "--set", "clock_hz=123", "--origin").stdout.splitlines()
    assert "clock_hz: 123  # --set clock_hz=123" in lines
    assert any("ternary_edge.yaml:" in line for line in lines)
    assert any("base/edge_platform.yaml:" in line for line in lines)


def test_schema_is_json(hwsim) -> None:
    assert json.loads(hwsim("schema").stdout) == machine_schema()


def test_check_prints_what_was_understood(hwsim, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: published/yodann\nname: mine\noutput_stage: [requant]\n")
    lines = hwsim("check", str(path)).stdout.splitlines()
    assert lines[0].startswith("mine: ok, 65 nm at 1.2 V, 480 MHz, sha256 ")
    assert "  output stage: requant; vector unit: none" in lines
    assert "  operating point low: 0.6 V, 17.5 MHz" in lines
    assert any(line.startswith("  published: peak energy at 0.6 V, 61.2 ") for line in lines)
    assert any(line.startswith("  dram: 3.2 GB/s, ") for line in lines)


def test_alias_dispatches_and_suggests() -> None:
    alias = [sys.executable, "-c", "from hwsim.bitwright_cli import main; main()"]
    listed = subprocess.run([*alias, "hwsim", "list"], capture_output=True, text=True, check=False)
    assert listed.returncode == 0
    assert "xnor_edge" in listed.stdout
    wrong = subprocess.run([*alias, "swep"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr == (
        "bitwright: COMMAND must be one of hwsim, qat, sweep, not 'swep'; did you mean 'sweep'?\n"
    )
