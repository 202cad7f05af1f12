"""A few of the cases of `fuzz.py`, every time; and that a case would be seen to fail."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import cases
import numpy as np
import pytest
from fuzz import MACHINES
from graph_maker import attention_block

from hwsim.errors import ConfigError
from hwsim.graph.serialize import Samples, save


def test_mutated_machines_run_or_are_refused_with_a_place(tmp_path: Path) -> None:
    graph = attention_block("INT8", "INT8", width=16, length=6)
    folder = tmp_path / "cases"
    folder.mkdir()
    ends = Counter(
        cases.machine_case(MACHINES[seed % len(MACHINES)], graph, folder, seed)
        for seed in range(40)
    )
    assert ends["valid"] > 0
    assert ends["refused"] > ends["valid"]


def test_mutated_models_run_or_are_refused_by_name(tmp_path: Path) -> None:
    small, folder = tmp_path / "small", tmp_path / "cases"
    folder.mkdir()
    ids = np.arange(24, dtype=np.int64).reshape(4, 6)
    graph = attention_block("INT8", "INT8", width=16, length=6)
    save(small, graph, Samples({"ids": ids}, None, np.array([6, 1, 3, 5])))
    ends = Counter(cases.model_case(small, folder, seed) for seed in range(60))
    assert ends["valid"] + ends["unfit"] > 0
    assert ends["refused"] > 0


@pytest.mark.parametrize(
    "fault",
    ["rows: must be positive", "{path}:99:1: rows: must be positive", "{path}:1:1: not mine"],
)
def test_a_fault_without_its_place_is_a_finding(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("name: x\narrays:\n  main:\n    cols: 1\n    rows: 0\n", encoding="utf-8")
    cases.check_places(ConfigError(f"{path}:5:5: arrays.main.rows: must be positive"), path, 5)
    with pytest.raises(AssertionError):
        cases.check_places(ConfigError(fault.format(path=path)), path, 5)


def test_a_hang_a_death_and_a_traceback_are_findings(tmp_path: Path) -> None:
    """The runner itself, on an export whose folder is missing: every case fails, and none stops the run."""
    command = [sys.executable, str(Path(cases.__file__).with_name("fuzz.py")), "models"]
    run = subprocess.run(
        [*command, "--count", "3", "--model", str(tmp_path / "nothing")],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert run.returncode == 1
    assert '"finding": 1' in run.stdout  # the small export has the even seeds
    assert "FileNotFoundError" in run.stderr
