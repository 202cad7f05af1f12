"""The list of predictions: append only, one JSON object a line, written before a target is looked at.

The first line about a target is what was said when nothing was known; later lines say that the model has
changed since. No line is ever edited.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from hwsim.arch.machine import Machine
from hwsim.arch.targets import QuestionSpec
from hwsim.errors import DataError
from hwsim.provenance import source_revision
from hwsim.validation.predict import Prediction
from hwsim.workload import Workload

LOCK_NAME = "predictions.lock"
SAME = 1e-9
"""relative difference up to which two predictions are the same: float64 sums in another order"""


@dataclass(frozen=True)
class Entry:
    """One line: who was asked what, the answer, and when."""

    machine: str
    target: str
    metric: str
    value: float
    low: float
    high: float
    machine_sha256: str
    workload_sha256: str | None
    revision: str | None
    date: str

    def agrees(self, prediction: Prediction) -> bool:
        """Tell whether this line says what the model says now."""
        pairs = (
            (self.value, prediction.value),
            (self.low, prediction.low),
            (self.high, prediction.high),
        )
        return all(abs(a - b) <= SAME * abs(a) for a, b in pairs)


class Lock:
    """The predictions in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries = list(_read(path)) if path.exists() else []

    def of(self, machine: str, question: QuestionSpec) -> list[Entry]:
        """Return all predictions for a target, the first one first."""
        key = (machine, question.name, question.metric)
        return [e for e in self._entries if (e.machine, e.target, e.metric) == key]

    def append(
        self,
        machine: Machine,
        question: QuestionSpec,
        workload: Workload | None,
        prediction: Prediction,
    ) -> None:
        """Write a prediction down as the last line.

        Raises:
            DataError: the file cannot be written.
        """
        entry = Entry(
            machine=machine.name,
            target=question.name,
            metric=question.metric,
            value=prediction.value,
            low=prediction.low,
            high=prediction.high,
            machine_sha256=machine.sha256,
            workload_sha256=None if workload is None else workload.sha256,
            revision=source_revision(),
            date=datetime.now(UTC).date().isoformat(),
        )
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(entry)) + "\n")
        except OSError as error:
            raise DataError(
                f"{self.path}: must be writable: a prediction is written down before it is compared"
                f" ({error.strerror})"
            ) from None
        self._entries.append(entry)


def _read(path: Path) -> list[Entry]:
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            raise DataError(
                f"{path}:{number}: must be one prediction as JSON, with all its keys; restore the line:"
                " predictions are never edited"
            ) from None
    return entries
