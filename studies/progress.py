"""Drawing a sweep's progress: a bar on a terminal, plain lines anywhere else. Only the coordinator draws."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm

from studies.plan import Node
from studies.worker import Outcome


class Progress:
    """Counts nodes as they end. `report` is what the coordinator calls."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self._running: dict[str, str] = {}
        self._found = 0
        self._bar = tqdm(total=total, unit="node", disable=not sys.stderr.isatty(), smoothing=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def expect(self, total: int) -> None:
        """Count up to another total: a search proposes more."""
        self.total = self._bar.total = total
        self._bar.refresh()

    def report(self, event: str, node: Node, outcome: Outcome | None) -> None:
        """Take note of one event: `found` (finished before), `start`, `running`, `again` (to be tried again) or `end`."""
        if event == "start":
            self._say_found()
            self._running[node.id] = node.label
        elif event == "running":
            self._write(f"running: {node.label}")
        else:
            self._running.pop(node.id, None)
        if event in ("found", "end"):
            self.done += 1
            self._bar.update()
        if event == "found":
            self._found += 1
        if event in ("again", "end") and outcome is not None:
            first_line = (outcome.error or "").partition("\n")[0]
            note = f": {first_line}" if first_line else ""
            note += "; will be tried again" if event == "again" else ""
            self._write(f"{node.label}: {outcome.status} in {outcome.seconds:.1f} s{note}")
        self._bar.set_postfix_str(", ".join(self._running.values())[:60], refresh=False)

    def _say_found(self) -> None:
        """Say once, before the first new node, how much was there already."""
        if self._found:
            self._write(f"{self._found} nodes were finished before")
            self._found = 0

    def _write(self, text: str) -> None:
        tqdm.write(f"[{self.done}/{self.total}] {text}", file=sys.stdout)
        sys.stdout.flush()
