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
from studies.report import build_report
from studies.sql import where, write_parquet
from studies.synthetic import STUDENTS, make_folder, many_machines
from studies.table import load_results, write_csv

SEEDS = (0, 1, 2, 3, 4)
CONDITION = "score > 0.95 AND machine LIKE '%7'"
FRONT = "score:max,energy_pj:min,latency_s_steady:min"
BYTES_OF_MAXRSS = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step took: imports that it alone needs are in the time, interpreter and all imports in the memory."""

    step: str
    seconds: float
    cpu_s: float
    """of all threads; less than `seconds` where other programs had the processor"""
    peak_mb: float
    """largest resident set of its process, 10^6 bytes"""


def _ask(folder: Path) -> None:
    columns, records = load([folder])
    on_front(where(records, columns, CONDITION), parse_front(FRONT, columns))


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
    """Make a study of at least `rows` rows and yield what each step costs.

    Args:
        rows: one student of one seed on one machine each; the machines become many.
        report: whether to build the report, which draws every point.
    """
    machines = -(-rows // (len(SEEDS) * len(STUDENTS)))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "study"
        # a process of its own each: its peak is then its own
        with ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
        ) as pool:
            pool.submit(_make, folder, machines).result()
            for step in STEPS:
                if report or step != "report":
                    yield pool.submit(_measure, step, folder).result()


def _make(folder: Path, machines: int) -> None:
    make_folder(folder, SEEDS, machines=many_machines(machines))


def _measure(step: str, folder: Path) -> Cost:
    call = STEPS[step](folder)
    begin, cpu_begin = time.perf_counter(), time.process_time()
    call()
    seconds, cpu_s = time.perf_counter() - begin, time.process_time() - cpu_begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_OF_MAXRSS
    return Cost(step, seconds, cpu_s, peak / 1e6)
