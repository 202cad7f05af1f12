"""Where nodes run: what is stopped is really stopped, who sees which GPU, options that do not go together."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import standins

from hwsim.errors import ConfigError, MissingExtra
from studies.allowance import Allowance
from studies.child import IDLE_SECONDS, AttemptLost
from studies.coordinator import Coordinator, ExecutorGone, ReadyNodes
from studies.executor import LocalPool, PlaceOptions, SerialExecutor, visible_gpus
from studies.ledger import Attempt, Ledger, read
from studies.plan import Plan, make_node
from studies.worker import Call, run_attempt


def run(
    plan: Plan,
    folder: Path,
    options: PlaceOptions,
    retries: int = 1,
    functions: Any = standins.FUNCTIONS,
) -> list[Attempt]:
    with Ledger(folder) as ledger, options.open(folder) as places:
        coordinator = Coordinator(plan, folder, ledger, functions, retries=retries)
        coordinator.run(places.executor, places.slots, places.gpus)
        return ledger.attempts


def test_a_compiled_loop_that_hangs_is_stopped_and_its_neighbour_is_not(tmp_path: Path) -> None:
    common = {"counter": str(tmp_path / "count")}
    hangs = make_node("train", "hangs", {"name": "hangs", "hang": True, **common})
    works = make_node("train", "works", {"name": "works", "seconds": 1.0, **common})
    options = PlaceOptions(workers=2, timeout_s=20.0)
    attempts = run(Plan({"name": "x"}, (hangs, works)), tmp_path / "study", options, retries=0)
    ends = {a.label: (a.attempt, a.status, a.error) for a in attempts}
    assert ends == {
        "hangs": (1, "failed", "stopped: no result after 20 s (--timeout)"),
        "works": (1, "ok", None),
    }
    lost = next(a for a in attempts if a.status == "failed")
    assert 20.0 <= lost.volatile["seconds"] < 60
    log = (tmp_path / "study" / "nodes" / hangs.folder_name / "log.txt").read_text()
    assert re.search(r'standins\.py", line \d+ in train', log)  # where it hung


def test_a_pool_goes_on_after_a_call_was_stopped() -> None:
    with LocalPool(1, timeout_s=0.3) as pool:
        slow, quick = pool.submit(time.sleep, 30), pool.submit(os.getpid)
        with pytest.raises(AttemptLost, match=r"stopped: no result after 0\.3 s"):
            slow.result()
        first = quick.result()
        assert pool.submit(os.getpid).result() == first  # one process serves call after call
        assert first != os.getpid()
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()


def test_one_death_is_one_failed_attempt(tmp_path: Path) -> None:
    common = {"counter": str(tmp_path / "count")}
    dies = make_node("train", "dies", {"name": "dies", "die": True, **common})
    works = [
        make_node("train", f"w{i}", {"name": f"w{i}", "seconds": 0.1, **common}) for i in range(3)
    ]
    plan = Plan({"name": "x"}, (dies, *works))
    attempts = run(plan, tmp_path / "study", PlaceOptions(workers=2), retries=2)
    assert [(a.attempt, a.status) for a in attempts if a.label == "dies"] == [
        (1, "failed"), (2, "failed"), (3, "failed"),
    ]  # fmt: skip
    assert [(a.attempt, a.status) for a in attempts if a.label != "dies"] == [(1, "ok")] * 3


@pytest.mark.parametrize("retries", [0, 2])
def test_retries_bound_the_attempts_of_one_sweep(tmp_path: Path, retries: int) -> None:
    plan = standins.make_plan(tmp_path / "count", ("a",), fail=True)
    attempts = run(plan, tmp_path / "study", PlaceOptions(workers=0), retries)
    failed = [(a.label, a.attempt, a.error) for a in attempts if a.status == "failed"]
    error = "ValueError: loss is nan at step 7"
    assert failed == [("student a", i + 1, error) for i in range(retries + 1)]


def test_each_gpu_serves_one_training_at_a_time_and_shows_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 7,9")
    spec = {"counter": str(tmp_path / "count"), "seconds": 0.1}
    nodes = [
        make_node("train", f"g{i}", {**spec, "run": {"device": "cuda"}, "i": i}) for i in range(6)
    ]
    beside = make_node("train", "c", {**spec, "run": {"device": "cpu"}})
    functions = {**standins.FUNCTIONS, "train": standins.gpu}
    plan = Plan({"name": "x"}, (*nodes, beside))
    options = PlaceOptions(workers=1, gpus=2)
    attempts = run(plan, tmp_path / "study", options, 0, functions)
    seen = {a.label: a.result["device"] for a in attempts if a.result}
    assert seen.pop("c") == "2, 7,9"  # a node on the CPU sees what the command saw
    assert len(seen) == 6
    assert set(seen.values()) == {"2", "7"}


def test_gpus_that_are_missing_are_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"counter": str(tmp_path / "count"), "name": "t", "run": {"device": "cuda"}}
    plan = Plan({"name": "x"}, (make_node("train", "student on cuda", spec),))
    with pytest.raises(
        ConfigError, match=r"1 nodes? trains? on a GPU \('student on cuda'.*--gpus N"
    ):
        run(plan, tmp_path / "study", PlaceOptions(workers=0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(ConfigError, match=r"must be at most 1, .*, not 2"):
        PlaceOptions(gpus=2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus(2) == ["0", "1"]


def test_options_that_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for options, text in (
        ({"name": "dask"}, "not 'dask'; did you mean 'dask-local'"),
        ({"timeout_s": 0.0}, "more than 0 seconds"),
        ({"workers": 0, "timeout_s": 1.0}, "--workers 1 or more"),
        ({"name": "dask-local", "gpus": 1}, "--resources GPU=1"),
        ({"name": "dask-local", "workers": 0}, "at least 1"),
        ({"name": "dask://host:1", "workers": 3}, "has its own"),
    ):
        with pytest.raises(ConfigError, match=text):
            PlaceOptions(**options)
    monkeypatch.setattr("studies.executor.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'bitwright\[cluster\]'"):
        PlaceOptions("dask-local")


def test_any_executor_runs_a_plan_and_a_broken_one_ends_with_a_message(tmp_path: Path) -> None:
    plan = standins.make_plan(tmp_path / "count", ("a",))
    with Ledger(tmp_path / "study") as ledger, ThreadPoolExecutor(1) as threads:
        coordinator = Coordinator(plan, tmp_path / "study", ledger, standins.FUNCTIONS)
        assert coordinator.run(threads, 1) == []
    with Ledger(tmp_path / "gone") as ledger, pytest.raises(ExecutorGone, match="same command"):
        Coordinator(plan, tmp_path / "gone", ledger, standins.FUNCTIONS).run(threads, 1)


def test_longest_chains_go_first_and_nothing_before_its_parents(tmp_path: Path) -> None:
    plan = standins.make_plan(tmp_path / "count", ("a", "bb"))
    ready = ReadyNodes(plan.nodes)
    order = []
    while node := ready.take("cpu", Allowance()):
        order.append(node.label)
        ready.finished(node)
    assert order[:5] == ["teacher", "student a", "student bb", "export a", "export bb"]
    assert sorted(order) == sorted(n.label for n in plan.nodes)


def test_time_of_the_coordinator_grows_with_the_plan_not_with_its_square() -> None:
    def calls(count: int) -> int:
        """Return how many function calls handing a plan out takes."""
        nodes = [make_node("train", "t", {"name": "t"})]
        nodes += [make_node("evaluate", f"e{i}", {"i": i}, nodes[:1]) for i in range(count)]
        ready = ReadyNodes(tuple(nodes))
        made = 0

        def count_calls(frame: Any, event: str, what: Any) -> None:
            nonlocal made
            made += 1

        sys.setprofile(count_calls)
        try:
            while node := ready.take("cpu", Allowance()):
                ready.finished(node)
        finally:
            sys.setprofile(None)
        return made

    assert calls(2000) < 2.5 * calls(1000)


ORPHAN = """
import os, time
from studies.child import Children, pickled
children = Children()
print(children.call(pickled(os.getpid), None), flush=True)
time.sleep(60)
"""


def test_a_child_ends_with_whoever_started_it() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", ORPHAN], env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and _state(child) != "Z":
        assert time.monotonic() < deadline, "an orphan goes on"
        time.sleep(0.02)
    assert IDLE_SECONDS > 60  # it was not idleness that ended it


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_serial_executor_keeps_a_fault_in_its_future() -> None:
    with pytest.raises(ZeroDivisionError):
        SerialExecutor().submit(divmod, 1, 0).result()


def test_a_twin_that_still_works_is_waited_for_and_its_outcome_taken(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    spec = {"counter": str(counter), "name": "n", "seconds": 0.5}
    node = make_node("train", "n", spec)
    call = Call(spec, tmp_path / "node", ())
    with LocalPool(2) as pool:
        twins = [pool.submit(run_attempt, standins.train, node.id, call) for _ in range(2)]
        first, second = (twin.result() for twin in twins)
    assert first == second
    assert counter.read_text() == "."
    assert "another process still works in this folder" in (call.folder / "log.txt").read_text()


def test_every_attempt_of_a_sweep_is_in_the_ledger_on_disk(tmp_path: Path) -> None:
    plan = standins.make_plan(tmp_path / "count", ("a",), die_once=str(tmp_path / "died"))
    attempts = run(plan, tmp_path / "study", PlaceOptions(workers=1))
    assert read(tmp_path / "study" / "ledger.jsonl") == attempts
    numbers = [a.attempt for a in attempts if a.label == "student a"]
    assert numbers == [1, 2]
