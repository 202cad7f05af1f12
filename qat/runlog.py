"""The log of a run: `train.jsonl`, one JSON object a line, and the same numbers for TensorBoard where asked for.

Lines of steps that a resumed run makes again are dropped when it starts, so no step stands there twice.
TensorBoard's event files cannot be cut: they are written anew from the lines that stay.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hwsim.errors import CheckpointError, MissingExtra

LOG_FILE = "train.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class RunLog:
    """Appends to a run's log. Use it as a context manager.

    Args:
        run: the run's folder.
        step: lines of later steps are dropped, as is one that a killed process left unfinished; 0 drops all.
        writes: False for the processes that leave writing to the first one.
        tensorboard: write the folder `tensorboard` too.

    Raises:
        CheckpointError: a finished line is no JSON object with a step.
        MissingExtra: TensorBoard is not installed.
    """

    def __init__(
        self, run: Path, step: int, writes: bool = True, tensorboard: bool = False
    ) -> None:
        self._writes = writes
        self._board: Any = None
        if not writes:
            return
        if tensorboard:
            self._board = _board(run / TENSORBOARD_FOLDER)
        path = run / LOG_FILE
        lines = _lines_until(path, step) if step and path.is_file() else []
        # aside and renamed: a process killed here must not lose the lines before the state
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text("".join(lines), "utf-8")
        os.replace(temporary, path)
        self._file = path.open("a", encoding="utf-8")
        for line in lines:
            self._show(json.loads(line))

    def write(self, values: Mapping[str, Any]) -> None:
        """Add one line; it is on its way to the disk when this returns."""
        if self._writes:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()
            self._show(values)

    def _show(self, values: Mapping[str, Any]) -> None:
        if self._board is None:
            return
        for name, value in values.items():
            if isinstance(value, int | float) and name != "step":
                self._board.add_scalar(f"{values['event']}/{name}", value, values["step"])
        if values["event"] == "validation":
            self._board.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writes:
            self._file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path) -> Any:
    """Return TensorBoard's writer into an empty folder."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtra("tensorboard", "tensorboard") from None
    shutil.rmtree(folder, ignore_errors=True)
    return SummaryWriter(str(folder))


def _lines_until(path: Path, step: int) -> list[str]:
    kept = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            continue
        try:
            at = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            raise CheckpointError(
                f"{path}:{number}: damaged: must be a JSON object with a step; remove the line to go on"
            ) from None
        if at <= step:
            kept.append(line)
    return kept
