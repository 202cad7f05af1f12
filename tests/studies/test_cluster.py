"""A real Dask cluster on this computer: the same view as without it, also when a worker is killed on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import standins

from hwsim.errors import ConfigError
from studies.coordinator import Coordinator
from studies.executor import PlaceOptions
from studies.ledger import Attempt, Ledger
from studies.plan import Plan, make_node
from studies.session import Session, fingerprint, join, unfit

distributed = pytest.importorskip(
    "distributed", reason="Dask is not installed: pip install 'bitwright[cluster]'"
)

HERE = Path(__file__).parent
QUIET = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical"}


@dataclass
class Cluster:
    """A scheduler and its workers, each in a process of its own."""

    address: str
    processes: list[subprocess.Popen[bytes]]


def start_worker(address: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a worker of one thread that nobody starts again when it dies."""
    words = ["worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard", *options]
    return dask(words, environment)


def dask(words: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    search = os.pathsep.join((*sys.path, str(HERE)))
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *words],
        env={**os.environ, **QUIET, **environment, "PYTHONPATH": search},
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    found = folder / "scheduler.json"
    words = ["scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(found)]
    scheduler = dask(words, {})
    try:
        deadline = time.monotonic() + 60
        while not found.exists() or not found.read_text():
            assert time.monotonic() < deadline, "the scheduler does not start"
            time.sleep(0.05)
        address = json.loads(found.read_text())["address"].removeprefix("tcp://")
        cluster = Cluster(address, [scheduler])
        # what a machine with a GPU would start
        cluster.processes.append(
            start_worker(address, "--resources", "GPU=1", CUDA_VISIBLE_DEVICES="5")
        )
        yield cluster
    finally:
        for process in cluster.processes:
            process.kill()
            process.wait()


def run(
    plan: Plan, folder: Path, options: PlaceOptions, functions: Any = standins.FUNCTIONS
) -> dict[str, Attempt]:
    with Ledger(folder) as ledger, options.open(folder) as places:
        Coordinator(plan, folder, ledger, functions).run(places.executor, places.slots, places.gpus)
        return ledger.view()


def declared(view: dict[str, Attempt]) -> dict[str, object]:
    return {k: (a.status, a.result, a.error, a.spec, a.parents) for k, a in view.items()}


def ends(view: dict[str, Attempt]) -> dict[str, tuple[str, int, str | None]]:
    return {a.label: (a.status, a.attempt, a.error) for a in view.values()}


def test_same_view_as_serial_and_pool_though_a_worker_is_killed(
    cluster: Cluster, tmp_path: Path
) -> None:
    victim = start_worker(cluster.address)
    cluster.processes.append(victim)
    with distributed.Client(f"tcp://{cluster.address}", set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    plan = standins.make_plan(tmp_path / "count", ("a", "b", "c", "d"), seconds=0.05)
    there = PlaceOptions(f"dask://{cluster.address}")
    folder = tmp_path / "dask"

    def kill_amid() -> None:
        while not list(folder.glob("nodes/export-*/log.txt")):
            time.sleep(0.02)
        victim.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_amid, daemon=True)
    with Ledger(folder) as ledger, there.open(folder) as places:
        assert places.slots == 2 * 2  # two for each worker
        killer.start()
        Coordinator(plan, folder, ledger, standins.FUNCTIONS).run(places.executor, places.slots)
        view = ledger.view()
    killer.join()
    assert victim.wait() == -signal.SIGKILL
    serial = run(plan, tmp_path / "serial", PlaceOptions(workers=0))
    pool = run(plan, tmp_path / "pool", PlaceOptions(workers=2))
    assert len(view) == len(plan.nodes)
    assert declared(view) == declared(serial) == declared(pool)
    assert not list(folder.glob("cluster-*"))


def test_a_node_that_kills_or_hangs_its_process_spares_the_dask_worker(
    cluster: Cluster, tmp_path: Path
) -> None:
    common = {"counter": str(tmp_path / "count")}
    address = f"dask://{cluster.address}"
    dies = make_node("train", "dies", {"name": "dies", "die": True, **common})
    works = make_node("train", "works", {"name": "works", **common})
    view = run(Plan({"name": "bad"}, (dies, works)), tmp_path / "dies", PlaceOptions(address))
    assert ends(view) == {
        "dies": ("failed", 2, "the worker process died (killed, or out of memory)"),
        "works": ("ok", 1, None),
    }
    # A limit that nothing else must meet: how soon a process starts is the machine's affair.
    dawdles = make_node("train", "dawdles", {"name": "dawdles", "seconds": 600, **common})
    limited = PlaceOptions(address, timeout_s=1.5)
    view = run(Plan({"name": "slow"}, (dawdles,)), tmp_path / "hangs", limited)
    assert ends(view) == {"dawdles": ("failed", 2, "stopped: no result after 1.5 s (--timeout)")}
    assert cluster.processes[1].poll() is None


def test_nodes_with_a_gpu_go_where_one_is_declared(cluster: Cluster, tmp_path: Path) -> None:
    spec = {"counter": str(tmp_path / "count"), "run": {"device": "cuda"}}
    nodes = [make_node("train", f"t{i}", {**spec, "i": i}) for i in range(2)]
    functions = {**standins.FUNCTIONS, "train": standins.gpu}
    options = PlaceOptions(f"dask://{cluster.address}")
    view = run(Plan({"name": "gpu"}, tuple(nodes)), tmp_path / "study", options, functions)
    assert [a.result for a in view.values()] == [{"device": "5"}] * 2


def test_workers_that_do_not_fit_are_refused_by_name(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PlaceOptions(f"dask://{cluster.address}")
    own = fingerprint()
    other = {**own, "torch": "1.0"}
    with monkeypatch.context() as patch:
        patch.setattr("studies.cluster.fingerprint", lambda: other)
        with pytest.raises(
            ConfigError,
            match=rf"worker tcp://.* torch is {re.escape(own['torch'])} there, 1.0 here",
        ):
            options.open(tmp_path)
    session = Session("token", tmp_path / "elsewhere", tmp_path, own, None)
    assert "does not see the study's folder" in str(unfit(session))
    (tmp_path / "elsewhere").write_text("another folder of that name")
    assert "does not see the study's folder" in str(unfit(session))
    (tmp_path / "elsewhere").write_text("token")
    assert unfit(session) is None
    absent = replace(session, token="absent", directory=tmp_path / "nowhere")
    assert "does not see the folder" in str(join(absent))
    assert not list(tmp_path.glob("cluster-*"))


def test_no_scheduler_is_an_error_that_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studies.cluster.CONNECT_SECONDS", 0.3)
    with pytest.raises(
        ConfigError, match=r"no Dask scheduler answers at 127.0.0.1:9 .*dask scheduler"
    ):
        PlaceOptions("dask://127.0.0.1:9").open(tmp_path)
