"""The ledger: every attempt of every node, one JSON object a line, only ever appended to.

A node may be attempted many times; the *view* keeps the attempt that counts. One coordinator writes; a
lock file keeps a second one out. What was appended survives the death of the process at once and the
death of the machine after at most `SYNC_SECONDS`.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TextIO

from hwsim.errors import BitwrightError

Status = Literal["ok", "refused", "failed"]
FINAL: tuple[Status, ...] = ("ok", "refused")
"""statuses that a later run does not try again"""

SYNC_SECONDS = 1.0
FILE_NAME = "ledger.jsonl"
LOCK_NAME = "ledger.lock"


class LedgerError(BitwrightError):
    """The ledger is damaged before its end, or another coordinator holds it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one node. `volatile` (when, where and with what it ran) is left out of comparisons."""

    id: str
    attempt: int
    status: Status
    kind: str
    label: str
    spec: Mapping[str, Any]
    parents: tuple[str, ...]
    result: Mapping[str, Any] | None = None
    error: str | None = None
    volatile: Mapping[str, Any] = field(default_factory=dict)

    def to_line(self) -> str:
        """Return the JSON text of this attempt, with its newline."""
        # not `asdict`, which copies spec and result in depth
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps(values, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Attempt:
        """Build an attempt from one parsed line.

        Raises:
            TypeError: a field is missing or unknown.
        """
        return cls(**{**data, "parents": tuple(data["parents"])})


def _scan(path: Path) -> Iterator[tuple[Attempt, int]]:
    """Yield each attempt with the length in bytes of the file up to its end; holds one line at a time.

    A last line that cannot be read was cut off by a crash while it was written: its node simply counts
    as not finished. An unreadable line anywhere else cannot come from a crash and is an error.
    """
    if not path.exists():
        return
    sound_bytes = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                attempt = Attempt.from_json(json.loads(line.decode()))
            except (ValueError, TypeError, KeyError) as fault:
                if next(stream, None) is None:
                    return
                raise LedgerError(
                    f"{path}:{number}: not an attempt ({fault}); "
                    "restore the file, or start again with --fresh"
                ) from None
            sound_bytes += len(line)
            yield attempt, sound_bytes


def attempts_in(path: Path) -> Iterator[Attempt]:
    """Yield the attempts in the order in which they were made; a torn last line is left out.

    Raises:
        LedgerError: a line before the last one is unreadable.
    """
    return (attempt for attempt, _ in _scan(path))


def read(path: Path) -> list[Attempt]:
    """Return all attempts of `attempts_in` at once."""
    return list(attempts_in(path))


def view(attempts: Iterable[Attempt]) -> dict[str, Attempt]:
    """Map each node id to the attempt that counts: the last final one, else the last one."""
    chosen: dict[str, Attempt] = {}
    for attempt in attempts:
        held = chosen.get(attempt.id)
        if held is None or attempt.status in FINAL or held.status not in FINAL:
            chosen[attempt.id] = attempt
    return chosen


class Ledger:
    """The open ledger of a study folder, held by one coordinator.

    Raises:
        LedgerError: another coordinator holds the folder, or the file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE_NAME
        self._lock = self._acquire(folder / LOCK_NAME)
        try:
            scanned = list(_scan(self.path))
            self._file = self.path.open("a+b", buffering=0)
        except BaseException:
            self._lock.close()
            raise
        self.attempts = [attempt for attempt, _ in scanned]
        self._mend_tail(scanned[-1][1] if scanned else 0)
        self._tries = Counter(a.id for a in self.attempts)
        self._dirty = False
        self._synced_at = time.monotonic()

    @staticmethod
    def _acquire(path: Path) -> TextIO:
        # flock, not the file's existence: the system drops it when the holder dies, however it dies
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "an unknown process"
            lock.close()
            raise LedgerError(
                f"{path.parent}: another sweep is running in this folder ({holder}); "
                "wait for it, or give another --out"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        return lock

    def _mend_tail(self, sound_bytes: int) -> None:
        """Cut a torn last line off; end a whole last line that lacks its newline."""
        self._file.truncate(sound_bytes)
        if sound_bytes:
            self._file.seek(sound_bytes - 1)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def append(self, attempt: Attempt) -> None:
        """Write one attempt. It reaches the system now and the disk within `SYNC_SECONDS`.

        Raises:
            OSError: it cannot be written whole (a full disk); then nothing of it is left in the file.
        """
        rest = attempt.to_line().encode()
        end = self._file.seek(0, os.SEEK_END)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(end)
            raise
        self.attempts.append(attempt)
        self._tries[attempt.id] += 1
        self._dirty = True
        self.sync_if_due()

    def sync_if_due(self) -> None:
        """Group commit: one fsync for all that was appended since the last, at most once a second."""
        if self._dirty and time.monotonic() - self._synced_at >= SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Force what was appended to the disk."""
        os.fsync(self._file.fileno())
        self._dirty = False
        self._synced_at = time.monotonic()

    def view(self) -> dict[str, Attempt]:
        """Map each node id to the attempt that counts."""
        return view(self.attempts)

    def next_attempt(self, node_id: str) -> int:
        """Return the number of a node's next attempt, counted from 1."""
        return 1 + self._tries[node_id]

    def close(self) -> None:
        """Sync, close and let the next coordinator in."""
        if not self._file.closed:
            try:
                self.sync()
            finally:
                self._file.close()
                self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
