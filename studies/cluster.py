"""Dask as an executor (the extra `cluster`): workers of its own on this computer, or those of a running scheduler.

A Dask worker is one process with several threads and cannot stop a call. So its threads only wait, each for a child
process of its own that runs the node, as the local pool's do.
"""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import ParamSpec, TypeVar

from distributed import Client, LocalCluster

from hwsim.errors import ConfigError
from studies.child import pickled
from studies.session import Session, call_joined, fingerprint, join, leave

P = ParamSpec("P")
R = TypeVar("R")

CONNECT_SECONDS = 10.0
WORKERS_SECONDS = 60.0
"""how long the first worker of a scheduler is waited for"""
GPU_RESOURCE = "GPU"
MARKER_PATTERN = "cluster-*.txt"
GONE = (OSError, RuntimeError, TimeoutError, CancelledError)
"""what a client raises whose scheduler went away: nothing is left to be tidied up there"""


class DaskExecutor(Executor):
    """Hands calls to the threads of a cluster's workers, or to those that have a GPU.

    Args:
        client: connected.
        session: what the workers joined.
        resources: what a call takes of its worker, as `dask worker --resources` names it.
    """

    def __init__(self, client: Client, session: Session, resources: Mapping[str, int]) -> None:
        self._client = client
        self._session = session
        # pure=False: Dask must not answer a second attempt with what it remembers of the first
        self._inner = client.get_executor(pure=False, resources=dict(resources))

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Hand the call to the cluster.

        Raises:
            BrokenExecutor: the scheduler is gone.
        """
        if self._client.status != "running":
            raise BrokenExecutor(f"the Dask scheduler is {self._client.status}")
        future: Future[R] = self._inner.submit(
            call_joined, self._session, pickled(fn, *args, **kwargs)
        )
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with `cancel_futures` those that run are stopped, not waited for."""
        with suppress(*GONE):
            self._inner.shutdown(wait=wait and not cancel_futures)


class Cluster:
    """A sweep's connection to a scheduler, whose workers have been checked.

    Args:
        client: connected.
        folder: the study's, into which the marker is written that workers are checked by.
        timeout_s: limit of a call; None: none.
        own: the cluster to close at the end, if it is ours.

    Raises:
        ConfigError: no workers, or some that do not see the folder or run other versions: all of them.
    """

    def __init__(
        self, client: Client, folder: Path, timeout_s: float | None, own: LocalCluster | None = None
    ) -> None:
        self._client = client
        self._own = own
        for left_behind in folder.glob(MARKER_PATTERN):
            left_behind.unlink()
        token = uuid.uuid4().hex
        marker = folder.resolve() / MARKER_PATTERN.replace("*", token)
        marker.write_text(token, encoding="utf-8")
        self._session = Session(token, marker, Path.cwd(), fingerprint(), timeout_s)
        try:
            self._check()
        except BaseException:
            self.close()
            raise
        info = client.scheduler_info(n_workers=-1)["workers"].values()
        self.threads = sum(int(worker["nthreads"]) for worker in info)
        gpus = sum(int(worker["resources"].get(GPU_RESOURCE, 0)) for worker in info)
        self.executor = DaskExecutor(client, self._session, {})
        self.gpus = (DaskExecutor(client, self._session, {GPU_RESOURCE: 1}),) * gpus

    def _check(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=WORKERS_SECONDS)
        except TimeoutError:
            raise ConfigError(
                f"--executor: the scheduler has no workers after {WORKERS_SECONDS:.0f} s; "
                f"start some: dask worker HOST:PORT"
            ) from None
        answers = self._client.run(join, self._session, on_error="return")
        faults = [
            f"--executor: Dask worker {address} {answer}"
            if isinstance(answer, str)
            else f"--executor: Dask worker {address} cannot run bitwright ({type(answer).__name__}: {answer})"
            for address, answer in answers.items()
            if answer is not None
        ]
        if faults:
            raise ConfigError(faults)

    def close(self) -> None:
        """Stop what still runs of this sweep, and leave the workers as they were found."""
        with suppress(*GONE):
            self._client.run(leave, self._session.token)
        with suppress(*GONE):
            self._client.close()
        if self._own is not None:
            self._own.close()
        self._session.marker.unlink(missing_ok=True)


def connect(address: str, folder: Path, timeout_s: float | None) -> Cluster:
    """Connect to a running scheduler at HOST:PORT.

    Raises:
        ConfigError: nothing answers there, or its workers do not fit.
    """
    try:
        client = Client(f"tcp://{address}", timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as fault:
        raise ConfigError(
            f"--executor: no Dask scheduler answers at {address} ({fault}); "
            "start one (dask scheduler), and workers (dask worker HOST:PORT)"
        ) from None
    return Cluster(client, folder, timeout_s)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Let threads and processes that start within never hear Ctrl-C: it is for the coordinator, which hears it after."""
    resource_tracker.ensure_running()  # started by the first process otherwise, and then unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_cluster(workers: int, folder: Path, timeout_s: float | None) -> Cluster:
    """Start a scheduler and workers on this computer, one thread each."""
    with _deaf_to_ctrl_c():
        own = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=None,
            memory_limit=0,  # the nodes' memory is their child processes', which Dask does not see
        )
    return Cluster(Client(own, set_as_default=False), folder, timeout_s, own)
