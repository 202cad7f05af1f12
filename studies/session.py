"""The worker's side of a cluster: what a worker must know of a sweep, and whether it can work for it.

Nothing here imports Dask, so that the child processes of its workers start quickly.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hwsim.errors import ConfigError
from studies.child import Children, pickled
from studies.plan import NUMERIC_DISTRIBUTIONS, SOURCES, source_sha256


@dataclass(frozen=True, slots=True)
class Session:
    """What a worker must know of a sweep; it goes along with each node, since workers come and go."""

    token: str
    marker: Path
    """a file of the study's folder that holds the token: whoever reads it there shares the file system"""
    directory: Path
    """where the sweep was started, which relative paths of a study start from"""
    fingerprint: Mapping[str, str]
    timeout_s: float | None


def fingerprint() -> dict[str, str]:
    """Return what the ids of nodes depend on beside the study: versions, and hashes of the sources."""
    versions: dict[str, str] = {}
    for name in ("bitwright", *NUMERIC_DISTRIBUTIONS):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions | {f"sources of {kind}": source_sha256(kind) for kind in SOURCES}


def unfit(session: Session) -> str | None:
    """Say why this process cannot work for a sweep; None if it can."""
    try:
        seen = session.marker.read_text(encoding="utf-8")
    except OSError as fault:
        seen = str(fault)
    if seen != session.token:
        return f"does not see the study's folder {session.marker.parent} ({seen})"
    own = fingerprint()
    unlike = [
        f"{name} is {own.get(name, 'missing')[:16]} there, {wanted[:16]} here"
        for name, wanted in session.fingerprint.items()
        if own.get(name) != wanted
    ]
    return "; ".join(unlike) or None


_sessions: dict[str, Children] = {}
_joining = threading.Lock()


def join(session: Session) -> str | None:
    """In a worker: make ready for a sweep; return why it cannot be, or None."""
    with _joining:
        if session.token in _sessions:
            return None
        children = Children(directory=session.directory)
        try:
            # asked of a new process: this one may have been started before the sources were changed
            reason: str | None = children.call(pickled(unfit, session), None)
        except OSError as fault:
            reason = f"does not see the folder {session.directory} ({fault})"
        if reason is None:
            _sessions[session.token] = children
        else:
            children.stop()
        return reason


def leave(token: str) -> None:
    """In a worker: stop all that a sweep still runs here."""
    with _joining:
        if token in _sessions:
            _sessions[token].stop()


def call_joined(session: Session, message: bytes) -> Any:
    """In a worker: make a sweep's call in a child process, as `Children.call` does.

    Raises:
        AttemptLost: the child died or took too long.
        ConfigError: this worker came after the check at the start, and does not fit.
    """
    reason = join(session)
    if reason is not None:
        raise ConfigError(f"{_here()}: joined later and {reason}")
    return _sessions[session.token].call(message, session.timeout_s)


def _here() -> str:
    return f"worker process {os.getpid()} on {socket.gethostname()}"
