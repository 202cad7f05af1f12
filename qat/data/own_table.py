"""The files of a user's own table: its classes and the rows of its two parts. No torch here: a study looks before it trains."""

from __future__ import annotations

from pathlib import Path

from hwsim.errors import DataError
from qat.data.spec import TableTask
from qat.data.tsv import CLASSES_SHOWN, Rows, label_values, read_rows

Classes = tuple[str, ...] | None
"""raw labels in class order; None where labels are scores"""


def classes(spec: TableTask) -> Classes:
    """Return the classes of a table: those that it lists, else the distinct values of the training file.

    Raises:
        DataError: the training file cannot be read, or lacks the column; it is the held-out one, too.
    """
    train, dev = Path(spec.train), Path(spec.dev)
    if train.is_file() and dev.is_file() and train.samefile(dev):
        raise DataError(f"train and dev must be two files, not both {spec.train}")
    if spec.is_regression:
        return None
    return spec.labels or tuple(label_values(Path(spec.train), spec.label))


def rows(spec: TableTask, path: str, labels: Classes) -> Rows:
    """Read one part of a table.

    Raises:
        DataError: as `read_rows` does.
    """
    mapping = None if labels is None else {label: label for label in labels}
    return read_rows(Path(path), spec.text, spec.label, mapping)


def summary(train: Rows, dev: Rows, labels: Classes) -> str:
    """Say what a table holds: rows of its two parts, classes, and texts that are in both parts."""
    kind = "labels are scores"
    if labels is not None:
        more = f" and {len(labels) - CLASSES_SHOWN} more" if len(labels) > CLASSES_SHOWN else ""
        kind = f"classes {'/'.join(labels[:CLASSES_SHOWN])}{more}"
    seen = set(train.texts)
    again = sum(text in seen for text in dev.texts)
    leak = f"; {again:,} of the dev texts are train texts, too" if again else ""
    return f"{len(train.texts):,} train rows, {len(dev.texts):,} dev rows, {kind}{leak}"
