"""What a study says when its folder cannot be written: a full disk is no node's fault."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwsim.errors import BitwrightError

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


class StorageError(BitwrightError):
    """The study's folder cannot be written. Says what to do; what is finished is kept."""


def storage_error(folder: Path, reason: str, number: int | None) -> StorageError:
    """Return the error that names the folder and what helps."""
    cure = (
        "make it writable, or give another --out" if number in CLOSED else "free space on its disk"
    )
    return StorageError(
        f"{folder}: must be writable, but: {reason}; {cure}. "
        "What is finished is kept: the same command goes on from there"
    )


def says_full(fault: Exception) -> bool:
    """Tell whether an exception comes of a full disk, also if a library made an error of its own of it."""
    if isinstance(fault, OSError) and fault.errno in FULL:
        return True
    return any(os.strerror(number) in str(fault) for number in FULL)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a full disk, a lack of rights or a file in the way into a `StorageError`; let all else pass."""
    try:
        yield
    except OSError as fault:
        if fault.errno not in FULL + CLOSED:
            raise
        raise storage_error(folder, str(fault), fault.errno) from fault
