"""The worker's side of a node: run its function in its folder, end with an atomic marker.

The marker, not the ledger, says that the outputs are whole. A coordinator that dies between marker and
ledger line loses nothing: the next one reads the marker.
"""

from __future__ import annotations

import json
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studies.host import describe_process
from studies.ledger import FINAL, Status
from studies.plan import write_atomically

MARKER_FILE = "done.json"
LOG_FILE = "log.txt"


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


def run_attempt(function: NodeFunction, node_id: str, call: Call) -> Outcome:
    """Run one node in this process. Never raises for a fault of the node; leaves a marker if it ended."""
    start = time.monotonic()
    call.folder.mkdir(parents=True, exist_ok=True)
    status: Status = "ok"
    result: dict[str, Any] | None = None
    error: str | None = None
    with (
        (call.folder / LOG_FILE).open("a", encoding="utf-8", buffering=1) as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        try:
            result = function(call)
        except Refused as reason:
            status, error = "refused", str(reason)
        except Exception as fault:
            status, error = "failed", f"{type(fault).__name__}: {fault}"
            traceback.print_exc()
    seconds = time.monotonic() - start
    outcome = Outcome(status, result, error, seconds, socket.gethostname(), describe_process())
    if status in FINAL:
        marker = {
            "id": node_id,
            "status": status,
            "result": result,
            "error": error,
            "seconds": outcome.seconds,
            "host": outcome.host,
            "environment": outcome.environment,
        }
        write_atomically(call.folder / MARKER_FILE, json.dumps(marker, ensure_ascii=False) + "\n")
    return outcome


def read_marker(folder: Path, node_id: str) -> Outcome | None:
    """Return the outcome that a node's folder holds, or None if its work is not whole."""
    try:
        data = json.loads((folder / MARKER_FILE).read_text(encoding="utf-8"))
        if data.pop("id") != node_id:
            return None
        return Outcome(**data)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
