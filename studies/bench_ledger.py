"""How long a large study takes to read, to ask and to report, and how much memory: each in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from studies.columns import all_columns, result_records
from studies.ledger import FILE_NAME, read, view
from studies.query import load, on_front, parse_front
from studies.report import REPORT_FILE, build_report
from studies.row import write_csv
from studies.sql import where, write_parquet
from studies.synthetic import (
    STUDENTS,
    add_operators,
    make_folder,
    make_hardware_folder,
    many_machines,
)
from studies.table import load_results

SEEDS = (0, 1, 2, 3, 4)
MODELS = ("W1A1", "W2A8")
QUESTIONS = {
    True: ("score > 0.95 AND machine LIKE '%7'", "score:max,energy_pj:min,latency_s_steady:min"),
    False: ("machine NOT LIKE '%7'", "energy_pj:min,latency_s_steady:min,area_um2:min"),
}  # fmt: skip
"""whether models are trained -> condition and front that are asked"""
BYTES_OF_MAXRSS = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step took: imports that it alone needs are in the time, interpreter and all imports in the memory."""

    shape: str
    step: str
    seconds: float
    cpu_s: float
    """of all threads; less than `seconds` where other programs had the processor"""
    peak_mb: float
    """largest resident set of its process, 10^6 bytes"""
    page_mb: float | None = None
    """size of the report's page, 10^6 bytes; None: the step writes none"""


def _make_trained(folder: Path, rows: int) -> None:
    machines = -(-rows // (len(SEEDS) * len(STUDENTS)))
    make_folder(folder, SEEDS, machines=many_machines(machines))


def _make_hardware(folder: Path, rows: int) -> None:
    make_hardware_folder(folder, -(-rows // len(MODELS)), MODELS)
    add_operators(folder)


SHAPES: dict[str, Callable[[Path, int], None]] = {
    "trained": _make_trained,
    "hardware": _make_hardware,
}
"""What the studies are that are timed, each with so many rows at least: students of five seeds, a fifth as many points, on machines
that all differ; and untrained models on variants of one machine, as many points as rows, each with its operators."""


def _ask(folder: Path) -> None:
    columns, records = load([folder])
    condition, front = QUESTIONS[any(r["score"] is not None for r in records)]
    on_front(where(records, columns, condition), parse_front(front, columns))


def _view(folder: Path) -> Callable[[], object]:
    return partial(view, read(folder / FILE_NAME))


def _csv(folder: Path) -> Callable[[], object]:
    return partial(write_csv, folder / "bench.csv", load_results(folder).rows)


def _parquet(folder: Path) -> Callable[[], object]:
    results = load_results(folder)
    path = folder / "bench.parquet"
    return lambda: write_parquet(path, result_records(results), all_columns())


STEPS: dict[str, Callable[[Path], Callable[[], object]]] = {
    "read the ledger": lambda folder: partial(read, folder / FILE_NAME),
    "view": _view,
    "load_results": lambda folder: partial(load_results, folder),
    "query: filter and front": lambda folder: partial(_ask, folder),
    "CSV": _csv,
    "Parquet": _parquet,
    "report": lambda folder: partial(build_report, folder),
}
"""what is timed -> from a folder to the call; what the call is given is made before"""


def costs(rows: int, report: bool = True) -> Iterator[Cost]:
    """Make a study of each shape, of at least `rows` rows, and yield what each step costs.

    Args:
        rows: one student of one seed on one machine each; the machines become many.
        report: whether to build the report, which draws every point.
    """
    for shape, make in SHAPES.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "study"
            # a process of its own each: its peak is then its own
            with ProcessPoolExecutor(
                1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
            ) as pool:
                pool.submit(make, folder, rows).result()
                for step in STEPS:
                    if report or step != "report":
                        yield pool.submit(_measure, shape, step, folder).result()


def _measure(shape: str, step: str, folder: Path) -> Cost:
    call = STEPS[step](folder)
    begin, cpu_begin = time.perf_counter(), time.process_time()
    call()
    seconds, cpu_s = time.perf_counter() - begin, time.process_time() - cpu_begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_OF_MAXRSS
    page_mb = (folder / REPORT_FILE).stat().st_size / 1e6 if step == "report" else None
    return Cost(shape, step, seconds, cpu_s, peak / 1e6, page_mb)
