"""Running plans: serial and pool agree, finished work is kept, faults are attempts, death is survived."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import standins

from studies.coordinator import Coordinator, blocked_by
from studies.executor import LocalPool, SerialExecutor
from studies.host import THREAD_VARIABLES
from studies.ledger import Attempt, Ledger, LedgerError
from studies.plan import NUMERIC_DISTRIBUTIONS, Plan, load_plan, make_node, source_sha256
from studies.progress import Progress
from studies.worker import LOG_FILE, MARKER_FILE, Outcome


def run(plan: Plan, folder: Path, workers: int = 0) -> tuple[dict[str, Attempt], list[str]]:
    executor = LocalPool(workers) if workers else SerialExecutor()
    with Ledger(folder) as ledger, executor:
        unfinished = Coordinator(plan, folder, ledger, standins.FUNCTIONS).run(
            executor, max(workers, 1)
        )
        return ledger.view(), [n.label for n in unfinished]


def results(view: dict[str, Attempt]) -> dict[str, object]:
    return {k: (a.status, a.result, a.error, a.spec, a.parents) for k, a in view.items()}


def test_serial_and_pool_give_the_same_view(tmp_path: Path) -> None:
    plan = standins.make_plan(tmp_path / "count")
    serial, left = run(plan, tmp_path / "serial")
    pool, left_pool = run(plan, tmp_path / "pool", workers=2)
    assert left == left_pool == []
    assert results(serial) == results(pool)
    assert len(serial) == len(plan.nodes) == 11


def test_second_run_does_nothing_again(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    plan = standins.make_plan(counter)
    first, _ = run(plan, tmp_path / "runs")
    done = counter.stat().st_size
    assert done == 9  # 11 nodes, of which two are refused before they count
    second, left = run(plan, tmp_path / "runs")
    assert counter.stat().st_size == done
    assert left == []
    assert first == second  # volatile fields too: nothing was appended


def test_refusal_is_a_result_with_its_reason(tmp_path: Path) -> None:
    plan = standins.make_plan(tmp_path / "count", ("a",))
    view, left = run(plan, tmp_path / "runs")
    refused = [a for a in view.values() if a.status == "refused"]
    assert left == []
    assert [a.error for a in refused] == ["softmax: no unit runs it"]
    assert refused[0].result is None


def test_failure_is_an_attempt_and_the_rest_goes_on(tmp_path: Path) -> None:
    plan = standins.make_plan(tmp_path / "count", fail=True)
    view, left = run(plan, tmp_path / "runs")
    failed = [a for a in view.values() if a.status == "failed"]
    assert [(a.label, a.error) for a in failed] == [
        ("student bb", "ValueError: loss is nan at step 7")
    ]
    assert left == ["student bb", "export bb", "bb on x", "bb on y", "bb on refuser"]
    ((id_, waiting),) = blocked_by([n for n in plan.nodes if n.label in left], view).items()
    assert plan.by_id[id_].label == "student bb"
    assert [n.label for n in waiting] == left[1:]
    log = next((tmp_path / "runs" / "nodes").glob("student-bb-*")) / LOG_FILE
    assert "training bb" in log.read_text()
    assert "Traceback" in log.read_text()
    again, _ = run(plan, tmp_path / "runs")
    assert [a.attempt for a in again.values() if a.status == "failed"] == [4]  # two a sweep


def test_a_line_tells_what_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher, student = standins.make_plan(tmp_path / "count", ("a",)).nodes[:2]
    with Progress(2) as progress:
        for event in ("start", "running", "end"):
            progress.report(event, teacher, Outcome("ok", {}, None, 3.0, "here"))
        progress.report("start", student, None)
        progress.report("running", student, None)
    assert capsys.readouterr().out.splitlines() == [
        "[0/2] running: teacher",
        "[1/2] teacher: ok in 3.0 s",
        "[1/2] running: student a",
    ]


@pytest.mark.parametrize(
    ("error", "attempts"), [("DataError", 1), ("ConfigError", 1), ("ValueError", 2)]
)
@pytest.mark.parametrize("workers", [0, 1])
def test_what_only_the_user_can_mend_is_not_tried_again(
    error: str, attempts: int, workers: int, tmp_path: Path
) -> None:
    plan = standins.make_plan(tmp_path / "count", ("a",), fail=error)
    view, left = run(plan, tmp_path / "runs", workers)
    assert left[0] == "student a"
    (failed,) = [a for a in view.values() if a.status == "failed"]
    assert (failed.attempt, failed.error) == (attempts, f"{error}: loss is nan at step 7")


def test_a_node_that_takes_long_is_told_while_it_runs_and_a_quick_one_is_not(
    tmp_path: Path,
) -> None:
    plan = standins.make_plan(tmp_path / "count", ("a", "bb"), seconds=1.5)
    events: list[tuple[str, str]] = []
    with Ledger(tmp_path / "runs") as ledger, LocalPool(1) as executor:
        Coordinator(
            plan,
            tmp_path / "runs",
            ledger,
            standins.FUNCTIONS,
            lambda event, node, _: events.append((event, node.label)),
        ).run(executor, 2)
    long = ("running", "student bb")
    assert events.count(long) == 1
    assert events.index(("start", "student bb")) < events.index(long)
    assert events.index(long) < events.index(("end", "student bb"))
    # the first node waits for its process to start, which is long as well; all others take no time
    told = {label for event, label in events if event == "running"}
    assert told <= {"teacher", "student bb"}


def test_a_worker_that_dies_is_tried_once_more(tmp_path: Path) -> None:
    plan = standins.make_plan(tmp_path / "count", die_once=str(tmp_path / "died"))
    view, left = run(plan, tmp_path / "runs", workers=1)
    assert left == []
    assert max(a.attempt for a in view.values()) == 2


def test_a_worker_that_always_dies_is_a_failure(tmp_path: Path) -> None:
    plan = standins.make_plan(tmp_path / "count", ("a",), die=True)
    view, left = run(plan, tmp_path / "runs", workers=1)
    assert left[0] == "student a"
    dead = [a for a in view.values() if a.status == "failed"]
    assert [(a.attempt, a.error) for a in dead] == [
        (2, "the worker process died (killed, or out of memory)")
    ]


def test_a_marker_without_its_ledger_line_is_taken_over(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    plan = standins.make_plan(counter, ("a",))
    first, _ = run(plan, tmp_path / "runs")
    (tmp_path / "runs" / "ledger.jsonl").unlink()
    done = counter.stat().st_size
    second, left = run(plan, tmp_path / "runs")
    assert counter.stat().st_size == done
    assert left == []
    assert results(first) == results(second)


def test_outputs_without_a_marker_are_made_again_only_when_missed(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    plan = standins.make_plan(counter, ("a",))
    run(plan, tmp_path / "runs")
    nodes = tmp_path / "runs" / "nodes"
    shutil.rmtree(next(nodes.glob("teacher-*")))
    done = counter.stat().st_size
    run(plan, tmp_path / "runs")
    assert counter.stat().st_size == done  # nobody below needs it: all have their results
    export = plan.of_kind("export")[0]
    extra = make_node("evaluate", "a on z", {"machine": "z", "counter": str(counter)}, [export])
    (next(nodes.glob("export-a-*")) / MARKER_FILE).unlink()
    larger = Plan(plan.study, (*plan.nodes, extra))
    view, left = run(larger, tmp_path / "runs")
    assert left == []
    assert counter.stat().st_size == done + 2  # the export, and the new evaluation
    assert view[extra.id].status == "ok"


def test_second_coordinator_is_refused(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path),
        pytest.raises(LedgerError, match=r"another sweep is running .*process \d+"),
    ):
        Ledger(tmp_path)
    Ledger(tmp_path).close()


def test_plan_survives_its_file_and_ids_depend_on_content(tmp_path: Path) -> None:
    plan = standins.make_plan(tmp_path / "count")
    plan.save(tmp_path)
    assert load_plan(tmp_path) == plan
    data = tmp_path / "table.tsv"
    data.write_text("a\t1\n")
    before = make_node("train", "t", {"x": 1}, inputs=[data]).id
    assert make_node("train", "another label", {"x": 1}, inputs=[data]).id == before
    assert make_node("train", "t", {"x": 2}, inputs=[data]).id != before
    data.write_text("a\t2\n")
    assert make_node("train", "t", {"x": 1}, inputs=[data]).id != before


def test_workers_have_one_thread_for_each_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    with LocalPool(1) as pool:
        for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
            assert pool.submit(os.getenv, name).result() == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "NUMBA_NUM_THREADS" not in os.environ


SLOW_SWEEP = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import standins
from studies.coordinator import Coordinator
from studies.executor import LocalPool
from studies.ledger import Ledger

if __name__ == "__main__":
    folder = Path({folder!r})
    plan = standins.make_plan(folder / "count", ("a", "b", "c"), seconds=60)
    with Ledger(folder) as ledger, LocalPool(1) as pool:
        Coordinator(plan, folder, ledger, standins.FUNCTIONS).run(pool, 1)
"""


def test_killed_coordinator_loses_nothing_and_leaves_no_orphan(tmp_path: Path) -> None:
    script = tmp_path / "sweep_slowly.py"
    script.write_text(SLOW_SWEEP.format(here=str(Path(__file__).parent), folder=str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, str(script)], env=environment)
    ledger = tmp_path / "ledger.jsonl"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not list(tmp_path.glob("nodes/student-c-*/log.txt")):
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = ledger.read_bytes().count(b"\n")
    assert finished >= 3  # the teacher and two students at least
    plan = standins.make_plan(tmp_path / "count", ("a", "b", "c"))
    before = (tmp_path / "count").stat().st_size
    view, left = run(plan, tmp_path)
    assert left == []
    assert set(view) >= {n.id for n in plan.nodes}
    # only the cut-off student (whose 60 s are gone from its spec here) and what hangs below it was run
    assert (tmp_path / "count").stat().st_size - before <= len(plan.nodes) - finished


def test_an_attempt_says_when_where_and_with_what_it_was_computed(tmp_path: Path) -> None:
    view, _ = run(standins.make_plan(tmp_path / "count", ("a",)), tmp_path / "runs", workers=1)
    for attempt in view.values():
        assert attempt.volatile.keys() == {
            "seconds",
            "host",
            "date",
            "git_revision",
            "sources_sha256",
            "environment",
        }
        made = attempt.volatile["environment"]
        assert [made[name] for name in NUMERIC_DISTRIBUTIONS] == [
            version(name) for name in NUMERIC_DISTRIBUTIONS
        ]
        assert made["python"] == sys.version.split()[0]
        assert made.keys() > {"platform", "processor", "graph_schema"}
        # the worker's own threads, which are not this process's
        assert made["threads"].items() >= dict.fromkeys(THREAD_VARIABLES, "1").items()
    sources = {a.kind: a.volatile["sources_sha256"] for a in view.values()}
    assert sources == {kind: source_sha256(kind) for kind in ("train", "export", "evaluate")}
