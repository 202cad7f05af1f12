"""What the commands write: a place that takes nothing is found before the work, not after it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hwsim.errors import DataError


def output_file(path: Path | None) -> Path | None:
    """Return the value of an option that names a file to write: its callback.

    Raises:
        DataError: it is a folder, lies below a file, or may not be written.
    """
    if path is not None:
        with writing(path):
            if path.is_dir():
                raise DataError(
                    f"{path}: is a folder; name a file, for example {path / 'result.json'}"
                )
            _check_place(path)
    return path


def output_folder(path: Path | None) -> Path | None:
    """Return the value of an option that names a folder to write into: its callback.

    Raises:
        DataError: it is a file, lies below one, or may not be written.
    """
    if path is not None:
        with writing(path):
            if path.exists() and not path.is_dir():
                raise DataError(f"{path}: is a file; name a folder")
            _check_place(path)
    return path


def _check_place(path: Path) -> None:
    """Make sure that what is there, or else the nearest folder above, may be written."""
    place = next(p for p in (path, *path.parents) if p.exists())
    if place != path and not place.is_dir():
        raise DataError(f"{path}: {place} is a file, not a folder; give another path")
    if not os.access(place, os.W_OK):
        raise DataError(f"{path}: {place} may not be written to; give another path")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says while a path is written, a full disk for example, into a user's error."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}; give another path") from None


def write_json(data: Any, path: Path) -> None:
    """Write plain data to a file, whose folder is made if need be.

    Raises:
        DataError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
