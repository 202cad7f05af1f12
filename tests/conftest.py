"""How the workers of one run share what numba compiles."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_compiler_at_a_time(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A worker that finds another compiling waits, then loads what that one has written into numba's cache.

    Without it all workers compile the same kernels at the same time, 60 s of CPU each in a fresh checkout.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    from filelock import FileLock
    from numba.core import event

    class Turns(event.Listener):
        """Holds the file while this process holds numba's own lock, in which it looks into its cache, too."""

        def __init__(self, lock: FileLock) -> None:
            self.lock = lock

        def on_start(self, event: event.Event) -> None:
            self.lock.acquire()

        def on_end(self, event: event.Event) -> None:
            self.lock.release()

    turns = Turns(FileLock(tmp_path_factory.getbasetemp().parent / "numba.lock"))
    event.register("numba:compiler_lock", turns)
    yield
    event.unregister("numba:compiler_lock", turns)
