"""The worker's side of a node: run its function in its folder, end with an atomic marker.

The marker, not the ledger, says that the outputs are whole. A coordinator that dies between marker and
ledger line loses nothing: the next one reads the marker.
"""

from __future__ import annotations

import faulthandler
import fcntl
import json
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hwsim.errors import CheckpointError, ConfigError, DataError, MissingExtra
from studies.child import SAY_WHERE
from studies.host import describe_process
from studies.ledger import FINAL, Status
from studies.plan import write_atomically
from studies.storage import says_full, storage_error, writing

MARKER_FILE = "done.json"
LOG_FILE = "log.txt"
LASTING = (ConfigError, DataError, CheckpointError, MissingExtra)
"""faults of what the user gave, which no further attempt mends"""


class Refused(Exception):
    """Raised by a node function: the question has a definite "no" (a machine cannot run the model)."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a node function is given: its spec, its own folder and its parents' folders.

    After an attempt that was cut off the folder is as that one left it: a training goes on from its last
    checkpoint, everything else clears its place first.
    """

    spec: Mapping[str, Any]
    folder: Path
    parents: tuple[Path, ...]


NodeFunction = Callable[[Call], dict[str, Any]]
"""Pure, at module level (it is pickled), returns JSON; its files go into `Call.folder`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended, as the worker tells the coordinator."""

    status: Status
    result: dict[str, Any] | None
    error: str | None
    seconds: float
    host: str
    environment: Mapping[str, Any] = field(default_factory=dict)
    """`describe_process` of the worker; empty if it died"""
    lasting: bool = False
    """whether it failed for something that only the user can change: another attempt would end the same"""


def run_attempt(function: NodeFunction, node_id: str, call: Call) -> Outcome:
    """Run one node in this process; leave a marker if it ended. Never raises for a fault of the node.

    If another process still works in the folder (on a cluster a node may be started twice), its end is waited for,
    and its outcome taken if it has one.

    Raises:
        StorageError: the folder cannot be written.
    """
    with writing(call.folder):
        call.folder.mkdir(parents=True, exist_ok=True)
        with (call.folder / LOG_FILE).open("a", encoding="utf-8", buffering=1) as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.write("another process still works in this folder: waiting for its end\n")
                fcntl.flock(log, fcntl.LOCK_EX)
            found = read_marker(call.folder, node_id)
            if found is not None:
                return found
            # written by the signal's handler itself, so that a compiled loop that hangs is shown, too
            faulthandler.register(SAY_WHERE, log)
            try:
                with redirect_stdout(log), redirect_stderr(log):
                    outcome = _attempt(function, call)
            finally:
                faulthandler.unregister(SAY_WHERE)
            if outcome.status in FINAL:
                marker = {"id": node_id, **asdict(outcome)}
                text = json.dumps(marker, ensure_ascii=False) + "\n"
                write_atomically(call.folder / MARKER_FILE, text)
    return outcome


def _attempt(function: NodeFunction, call: Call) -> Outcome:
    start = time.monotonic()
    status: Status = "ok"
    result: dict[str, Any] | None = None
    error: str | None = None
    lasting = False
    try:
        result = function(call)
    except Refused as reason:
        status, error = "refused", str(reason)
    except Exception as fault:
        if says_full(fault):
            raise storage_error(call.folder, str(fault), None) from fault
        status, error = "failed", f"{type(fault).__name__}: {fault}"
        lasting = isinstance(fault, LASTING)
        traceback.print_exc()
    seconds = time.monotonic() - start
    host = socket.gethostname()
    return Outcome(status, result, error, seconds, host, describe_process(), lasting)


def read_marker(folder: Path, node_id: str) -> Outcome | None:
    """Return the outcome that a node's folder holds, or None if its work is not whole."""
    try:
        data = json.loads((folder / MARKER_FILE).read_text(encoding="utf-8"))
        if data.pop("id") != node_id:
            return None
        return Outcome(**data)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
