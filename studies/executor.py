"""Where nodes run: any `concurrent.futures.Executor`. Here are this very process, and a local pool."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import ParamSpec, TypeVar

from studies.host import THREAD_VARIABLES

P = ParamSpec("P")
R = TypeVar("R")

PARENT_POLL_SECONDS = 1.0


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


def _start_worker(coordinator: int) -> None:
    """Prepare a worker: one thread, deaf to Ctrl-C (the coordinator decides), dead with its coordinator."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def follow() -> None:
        while os.getppid() == coordinator:
            time.sleep(PARENT_POLL_SECONDS)
        os._exit(1)  # an orphan must not go on writing where the next coordinator works

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def pinned_threads() -> Iterator[None]:
    """Let processes that start within see one thread for OpenMP, MKL, OpenBLAS and numba."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class LocalPool(Executor):
    """Spawned local processes with pinned threads. A pool whose worker died is replaced at next use."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._strangers: set[BaseProcess] = set()

    def _open(self) -> ProcessPoolExecutor:
        self._strangers = set(multiprocessing.active_children())
        # spawn, not fork: forking a process that holds OpenMP or numba threads hangs
        return ProcessPoolExecutor(
            self.workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(os.getpid(),),
        )

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Hand the call to a worker process."""
        with pinned_threads():
            if self._pool is None:
                self._pool = self._open()
            try:
                return self._pool.submit(fn, *args, **kwargs)
            except BrokenExecutor:
                self._pool.shutdown(wait=False)
                self._pool = self._open()
                return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close the pool; with `cancel_futures` the running workers are stopped, not waited for."""
        if self._pool is None:
            return
        if cancel_futures:
            for child in set(multiprocessing.active_children()) - self._strangers:
                child.terminate()
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)
        self._pool = None


def local_executor(workers: int) -> Executor:
    """Return the executor for `--workers N`: this very process for 0, spawned processes otherwise."""
    return LocalPool(workers) if workers else SerialExecutor()


def default_workers() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
