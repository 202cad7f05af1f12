"""The machine that a result was measured on, and the process that computed it."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any

from studies.plan import numeric_versions

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def describe_host() -> dict[str, Any]:
    """Return processor, number of cores and system."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
    }


@cache
def _software() -> dict[str, Any]:
    from hwsim.graph.document import SCHEMA

    return {
        "python": platform.python_version(),
        **numeric_versions(),
        "platform": platform.platform(terse=True),
        "processor": _processor(),
        "graph_schema": SCHEMA,
    }


def describe_process() -> dict[str, Any]:
    """Return what this process computes with: versions, platform, processor, and its numbers of threads.

    Threads are those of torch and numba, where they are loaded, and the variables that bound OpenMP and BLAS.
    """
    threads = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    if "torch" in sys.modules:
        threads["torch"] = str(sys.modules["torch"].get_num_threads())
    if "numba" in sys.modules:
        threads["numba"] = str(sys.modules["numba"].get_num_threads())
    return {**_software(), "threads": threads}


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "unknown"
    )
