"""The other tools: each in an environment of its own, and run as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from hwsim.errors import ConfigError
from studies.crosstool import scalesim
from studies.crosstool.products import Product
from studies.plan import write_atomically


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool by what pip installs for it; versions are pinned, since a record names them."""

    name: str
    requirements: tuple[str, ...]


ZIGZAG = Tool("zigzag", ("zigzag-dse==3.9.1", "six==1.17.0", "numpy==2.4.6", "networkx==3.6.1"))
"""`six` is imported and not declared by what it depends on."""
SCALESIM = Tool("scalesim", ("scalesim==3.0.0", "numpy==1.26.4", "pandas==3.0.6"))
"""Breaks with numpy 2."""
INSTALLED = "installed.json"


def default_folder() -> Path:
    """Return where environments are kept: the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "bitwright" / "crosstool"


def environment(tool: Tool, folder: Path, limit_s: float) -> Path:
    """Return the interpreter of a tool's environment, made first where there is none.

    Raises:
        ConfigError: it cannot be installed.
    """
    home = folder / tool.name
    python, mark = home / "bin" / "python", home / INSTALLED
    wanted = json.dumps(tool.requirements)
    if not mark.is_file() or mark.read_text(encoding="utf-8") != wanted:
        call([sys.executable, "-m", "venv", "--clear", str(home)], folder, limit_s)
        pip = [str(python), "-m", "pip", "install", "--quiet", *tool.requirements]
        call(pip, folder, limit_s)
        write_atomically(mark, wanted)
    return python


def call(command: Sequence[str], folder: Path, limit_s: float) -> str:
    """Run a command in a folder and return what it prints.

    Raises:
        ConfigError: it fails or takes too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # another tool must not see our packages
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    shown = " ".join(Path(part).name for part in command[:4])
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=outside,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{shown}: must end within {limit_s:.0f} s; give it more with --limit"
        ) from None
    except subprocess.CalledProcessError as fault:
        said = (fault.stderr or fault.stdout).strip().splitlines()
        raise ConfigError(f"{shown}: failed: {said[-1] if said else fault}") from None
    return done.stdout


def run_zigzag(
    python: Path, work: Path, jobs: Sequence[Mapping[str, Any]], limit_s: float
) -> list[dict[str, Any]]:
    """Let ZigZag evaluate jobs one after the other.

    Args:
        python: its interpreter.
        work: folder for its inputs and answers.
        jobs: each {accelerator, workload, mapping: data, opt: latency or energy, lpf_limit}.
        limit_s: seconds that all of them may take.

    Returns:
        An answer a job, as the driver writes it.
    """
    work.mkdir(parents=True, exist_ok=True)
    written = []
    for index, job in enumerate(jobs):
        row = dict(job)
        for part in ("accelerator", "workload", "mapping"):
            # JSON is YAML, and nothing in it is misread
            path = work / f"{part}{index}.yaml"
            path.write_text(json.dumps(job[part], indent=1), encoding="utf-8")
            row[part] = str(path)
        written.append(row)
    (work / "jobs.json").write_text(json.dumps(written), encoding="utf-8")
    driver = str(files("studies.crosstool") / "zigzag_driver.py")
    # -P: our own modules lie beside the driver, one of them called zigzag
    call([str(python), "-P", driver, "jobs.json", "answers.json"], work, limit_s)
    answers: list[dict[str, Any]] = json.loads((work / "answers.json").read_text(encoding="utf-8"))
    return answers


def run_scalesim(
    python: Path, work: Path, config: str, products: Sequence[Product], limit_s: float
) -> tuple[list[scalesim.Report], float]:
    """Let SCALE-Sim run some products; return its reports, and the seconds of the process with its start."""
    work.mkdir(parents=True, exist_ok=True)
    inputs = {
        "run.cfg": config,
        "run.csv": scalesim.topology(products),
        "layout.csv": scalesim.LAYOUT,
    }
    for name, text in inputs.items():
        (work / name).write_text(text, encoding="utf-8")
    options = ["-c", "run.cfg", "-t", "run.csv", "-l", "layout.csv", "-i", "gemm", "-p", "out"]
    begin = time.perf_counter()
    call([str(python), "-m", "scalesim.scale", *options], work, limit_s)
    seconds = time.perf_counter() - begin
    (folder,) = (work / "out").iterdir()
    compute = (folder / "COMPUTE_REPORT.csv").read_text(encoding="utf-8")
    accesses = (folder / "DETAILED_ACCESS_REPORT.csv").read_text(encoding="utf-8")
    return scalesim.read_reports(compute, accesses, products), seconds


def packages(python: Path, limit_s: float) -> list[str]:
    """Return what is installed in an environment, with versions."""
    return call([str(python), "-m", "pip", "freeze"], python.parent, limit_s).split()
