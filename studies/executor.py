"""Where nodes run: any `concurrent.futures.Executor`. Here are this very process, and a local pool."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from hwsim.errors import ConfigError, MissingExtra, nearest
from studies.child import Children, pickled

P = ParamSpec("P")
R = TypeVar("R")

GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"
LOCAL, DASK_LOCAL, DASK_SCHEME = "local", "dask-local", "dask://"
HANDED_OUT_AHEAD = 2
"""nodes handed out for each that can run: a worker finds the next one waiting, and a stop loses none of those"""


class SerialExecutor(Executor):
    """Runs each call in the calling thread, at once: `--workers 0`, debuggers and tests."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run now and return a future that is done."""
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as fault:
            future.set_exception(fault)
        return future


class LocalPool(Executor):
    """Spawned local processes with one thread for each library. One that dies or hangs takes no other with it.

    Args:
        workers: how many calls run at the same time.
        timeout_s: a call that takes longer is stopped with its process, and ends as `AttemptLost`; None: never.
        environment: what the processes see besides this one's environment.
    """

    def __init__(
        self,
        workers: int,
        timeout_s: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._children = Children(environment)
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(workers)  # each waits for one child

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Hand the call to a worker process."""
        return self._threads.submit(
            self._children.call, pickled(fn, *args, **kwargs), self._timeout_s
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close the pool; with `cancel_futures` the running workers are stopped, not waited for."""
        self._threads.shutdown(wait=wait and not cancel_futures, cancel_futures=cancel_futures)
        if wait or cancel_futures:
            self._children.stop()
        self._threads.shutdown(wait=wait)


@dataclass(frozen=True)
class Places(AbstractContextManager["Places"]):
    """What a sweep runs on. Closes its executors at the end, and stops what runs if it ends by an exception."""

    executor: Executor
    """runs all nodes but those that need a GPU"""
    slots: int
    """how many nodes the executor is given at a time"""
    gpus: tuple[Executor, ...] = ()
    """one executor a GPU, each given one node at a time"""
    close: Callable[[], None] = lambda: None
    """called when the executors are shut down"""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for executor in dict.fromkeys((self.executor, *self.gpus)):
            executor.shutdown(wait=True, cancel_futures=kind is not None)
        self.close()


@dataclass(frozen=True)
class PlaceOptions:
    """Where a sweep's nodes shall run, as the command line says it.

    Raises:
        ConfigError: an unknown name, or options that do not go together.
        MissingExtra: Dask is asked for and not installed.
    """

    name: str = LOCAL
    """`local`, `dask-local` or `dask://HOST:PORT`"""
    workers: int | None = None
    """processes on this computer; None: the usable cores; 0: this very process"""
    gpus: int = 0
    """GPUs of this computer, one process for each"""
    timeout_s: float | None = None
    """limit of an attempt; None: none"""

    def __post_init__(self) -> None:
        name, workers = self.name, self.workers
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise ConfigError(f"--timeout: must be more than 0 seconds, not {self.timeout_s:g}")
        if name == LOCAL:
            visible_gpus(self.gpus)
            if workers == 0 and self.timeout_s is not None:
                raise ConfigError(
                    "--timeout: needs a process that can be stopped; give --workers 1 or more, not 0"
                )
            return
        if name != DASK_LOCAL and not name.startswith(DASK_SCHEME):
            raise ConfigError(
                f"--executor: must be {LOCAL}, {DASK_LOCAL} or {DASK_SCHEME}HOST:PORT, not '{name}'"
                f"{nearest(name, [LOCAL, DASK_LOCAL])}"
            )
        if self.gpus:
            raise ConfigError(
                "--gpus: is for --executor local; workers of a cluster say themselves what they have: "
                "start one a GPU, with CUDA_VISIBLE_DEVICES set and `--resources GPU=1`"
            )
        if name == DASK_LOCAL and workers == 0:
            raise ConfigError("--workers: must be at least 1 with --executor dask-local, not 0")
        if name != DASK_LOCAL and workers is not None:
            raise ConfigError(
                "--workers: a running cluster has its own; leave it out with --executor dask://"
            )
        if find_spec("distributed") is None:
            raise MissingExtra("distributed", "cluster")

    def open(self, folder: Path) -> Places:
        """Start the workers, or reach those that run.

        Raises:
            ConfigError: a cluster that does not answer, or whose workers do not see `folder` or run other versions.
        """
        workers = default_workers() if self.workers is None else self.workers
        if self.name == LOCAL:
            gpus = tuple(
                LocalPool(1, self.timeout_s, {GPU_VARIABLE: device})
                for device in visible_gpus(self.gpus)
            )
            if workers == 0:
                return Places(SerialExecutor(), 1, gpus)
            pool = LocalPool(workers, self.timeout_s)
            return Places(pool, HANDED_OUT_AHEAD * workers, gpus)
        from studies.cluster import connect, start_cluster

        cluster = (
            start_cluster(workers, folder, self.timeout_s)
            if self.name == DASK_LOCAL
            else connect(self.name.removeprefix(DASK_SCHEME), folder, self.timeout_s)
        )
        return Places(
            cluster.executor, HANDED_OUT_AHEAD * cluster.threads, cluster.gpus, cluster.close
        )


def visible_gpus(count: int) -> list[str]:
    """Return the names of the first GPUs, as CUDA_VISIBLE_DEVICES takes them; a limit that is set there holds.

    Raises:
        ConfigError: that variable shows fewer.
    """
    shown = os.environ.get(GPU_VARIABLE)
    if shown is None:
        return [str(device) for device in range(count)]
    devices = [device.strip() for device in shown.split(",") if device.strip()]
    if len(devices) < count:
        raise ConfigError(
            f"--gpus: must be at most {len(devices)}, which {GPU_VARIABLE}={shown!r} shows, not {count}"
        )
    return devices[:count]


def default_workers() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
