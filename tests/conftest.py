"""How the workers of one run share what numba compiles, and two ways to run a command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--kills 10` before a release: each of them costs the start of a process."""
    parser.addoption("--kills", type=int, default=4, help="how often a training is killed")


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


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Hwsim = Callable[..., Done]


@pytest.fixture
def hwsim(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Hwsim:
    """`hwsim(*arguments)` runs the command's `main` in this process: no second import of torch."""
    from hwsim.cli import main

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["hwsim", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run


@pytest.fixture
def hwsim_process(tmp_path_factory: pytest.TempPathFactory) -> Hwsim:
    """The same in a new process, in a folder that is not the repository."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*arguments: object) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "hwsim", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=elsewhere,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run
