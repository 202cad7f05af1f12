"""A child process that makes one call after another, watched by whoever started it.

A loop of numba or torch that hangs holds the interpreter, so no thread and no signal handler of its own process can
end it: only another process can. A process for each attempt would cost the import of torch each time (3 s); this one
lives on from call to call, and is killed and replaced when a call takes too long.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from hwsim.errors import ConfigError
from studies.host import THREAD_VARIABLES

P = ParamSpec("P")
R = TypeVar("R")

ONE_THREAD = dict.fromkeys(THREAD_VARIABLES, "1")
IDLE_SECONDS = 600.0
"""a child without work for so long ends itself: its sweep may have been killed where it could not say so"""
SAY_WHERE = signal.SIGUSR1
"""sent to a child that took too long: an attempt in it writes into its log where it is"""
SAY_WHERE_SECONDS = 0.3
WORKER_DIED = "the worker process died (killed, or out of memory)"


class AttemptLost(Exception):
    """A call that got no answer: its process died, or was stopped because it took too long.

    Three plain arguments, so that it can be pickled on its way back from another computer.
    """

    def __init__(self, reason: str, seconds: float, host: str) -> None:
        super().__init__(reason, seconds, host)
        self.reason = reason
        self.seconds = seconds
        self.host = host

    def __str__(self) -> str:
        return self.reason


def pickled(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> bytes:
    """Return a call as a child reads it.

    Raises:
        ConfigError: a function that a new process could not find.
    """
    for part in (fn, *args):
        if getattr(part, "__module__", None) == "__main__":
            raise ConfigError(
                f"{getattr(part, '__qualname__', part)}: must be in a module that worker processes can import, "
                "not in the script that was started; move it into a file of its own"
            )
    return pickle.dumps((fn, args, kwargs))


class Child:
    """One process, ready for calls; one call at a time."""

    def __init__(self, environment: Mapping[str, str], directory: Path | None = None) -> None:
        ours, theirs = Pipe()
        self._connection = ours
        search = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "studies.child", str(theirs.fileno())],
                env={**os.environ, **ONE_THREAD, **environment, "PYTHONPATH": search},
                cwd=directory,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C in the terminal is for the coordinator, which decides
            )

    def call(self, message: bytes, timeout_s: float | None) -> Any:
        """Send a pickled call and return what it returns, or raise what it raises.

        Raises:
            AttemptLost: the process died, or did not answer within `timeout_s` of having begun and was killed.
        """
        start = time.monotonic()

        def lost(reason: str) -> AttemptLost:
            self.kill()
            return AttemptLost(reason, time.monotonic() - start, socket.gethostname())

        try:
            self._connection.send_bytes(message)
            self._connection.recv()  # begun: a new process starts and imports at nobody's expense
            start = time.monotonic()
            if not self._connection.poll(timeout_s):
                self.process.send_signal(SAY_WHERE)
                time.sleep(SAY_WHERE_SECONDS)
                raise lost(f"stopped: no result after {timeout_s:g} s (--timeout)")
            returned, answer = self._connection.recv()
        except (EOFError, OSError):
            raise lost(WORKER_DIED) from None
        if returned:
            return answer
        raise answer

    def kill(self) -> None:
        """End the process now, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._connection.close()


class Children:
    """Gives each call an idle child, or a new one; several threads may call at the same time.

    Args:
        environment: what its children see besides this process's environment, with one thread for each library.
        directory: where they work; None: where this process works.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.environment = environment or {}
        self.directory = directory
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._stopped = False

    def call(self, message: bytes, timeout_s: float | None) -> Any:
        """Make a call, as `pickled` wrote it, in a child; return what it returns, or raise what it raises.

        Raises:
            AttemptLost: the child died, or did not answer within `timeout_s` (None: any time) and was killed.
        """
        child = self._take()
        try:
            return child.call(message, timeout_s)
        finally:
            self._give_back(child)

    def _take(self) -> Child:
        with self._lock:
            if self._stopped:
                raise AttemptLost("the sweep was stopped", 0.0, socket.gethostname())
            while self._idle:
                child = self._idle.pop()
                if child.process.poll() is None:
                    break
                child.kill()
            else:
                child = Child(self.environment, self.directory)
            self._busy.add(child)
        return child

    def _give_back(self, child: Child) -> None:
        with self._lock:
            self._busy.discard(child)
            if child.process.poll() is None and not self._stopped:
                self._idle.append(child)
            else:
                child.kill()

    def stop(self) -> None:
        """Kill all children, those at work as well: their calls end as `AttemptLost`."""
        with self._lock:
            self._stopped = True
            for child in self._idle:
                child.kill()
            self._idle.clear()
            for child in self._busy:
                child.process.kill()  # the thread that waits for it sees the end and tidies up


def serve(descriptor: int) -> None:
    """Make the calls that come over a connection until it ends: the child's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        while True:
            try:
                calls.put(connection.recv_bytes())
            except (EOFError, OSError):
                # an orphan must not go on writing where the next coordinator works
                os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        try:
            message = calls.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return
        with suppress(BrokenPipeError):  # whoever waited is gone, and `listen` ends this process
            _make(message, connection)


def _make(message: bytes, connection: Connection) -> None:
    """Make a call; send word that it begins, then whether it returned, and what it returned or raised."""
    unread: Exception | None = None
    try:
        fn, args, kwargs = pickle.loads(message)  # imports what the call needs
    except Exception as fault:
        unread = fault
    connection.send("begun")
    try:
        if unread is not None:
            raise unread
        answer = pickle.dumps((True, fn(*args, **kwargs)))
    except Exception as fault:
        answer = _pickled_fault(fault)
    connection.send_bytes(answer)


def _pickled_fault(fault: Exception) -> bytes:
    try:
        text = pickle.dumps((False, fault))
        pickle.loads(text)  # some exceptions can be written but not read
    except Exception:
        return pickle.dumps((False, RuntimeError(f"{type(fault).__name__}: {fault}")))
    return text


if __name__ == "__main__":
    serve(int(sys.argv[1]))
