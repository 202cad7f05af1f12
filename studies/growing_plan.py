"""The plan of a searched study: it grows batch by batch, and each batch is run before the next is proposed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from studies.allowance import Allowance
from studies.coordinator import Coordinator
from studies.executor import Places
from studies.layout import Layout, ResolvedMachine
from studies.ledger import FINAL, Attempt, Ledger
from studies.plan import Node, Plan
from studies.progress import Progress
from studies.space import Training
from studies.worker import NodeFunction, Outcome


class OutOfBudget(Exception):
    """Something of a batch could not be begun any more."""


class GrowingPlan:
    """All that was proposed so far. It is written before anything new of it is run.

    The plan of an earlier sweep stays in the folder while its batches are proposed again, which runs nothing.
    """

    def __init__(
        self,
        layout: Layout,
        invocation: str,
        folder: Path,
        ledger: Ledger,
        functions: Mapping[str, NodeFunction],
        places: Places,
        progress: Progress,
        retries: int,
        allowance: Allowance,
    ) -> None:
        self.layout = layout
        self.students: dict[str, Training] = {}
        self.machines: dict[str, ResolvedMachine] = {}
        self._invocation = invocation
        self._folder = folder
        self._ledger = ledger
        self._functions = functions
        self._places = places
        self._progress = progress
        self._retries = retries
        self._allowance = allowance
        self._nodes: dict[str, Node] = {}
        self._counted: set[str] = set()

    @property
    def plan(self) -> Plan:
        """What was proposed so far."""
        question = self.layout.question(list(self.students.values()), list(self.machines.values()))
        return Plan(question, tuple(self._nodes.values()), self._invocation)

    @property
    def attempts_made(self) -> int:
        """How many attempts the ledger has."""
        return len(self._ledger.attempts)

    def save(self) -> None:
        """Write the plan into the study's folder."""
        self.plan.save(self._folder)

    def run(self, nodes: Iterable[Node]) -> dict[str, Attempt]:
        """Run what is left of some nodes; return the attempts that count, by node.

        Args:
            nodes: parents first, with all of them.

        Raises:
            OutOfBudget: one of them could not be begun any more.
            BitwrightError: as `Coordinator.run` does.
        """
        batch = {node.id: node for node in nodes}
        self._nodes.update(batch)
        self._progress.expect(len(self._nodes))
        if any(a is None or a.status not in FINAL for a in self._attempts(batch).values()):
            self.save()
        part = Plan(self.layout.question([], []), tuple(batch.values()))
        coordinator = Coordinator(
            part,
            self._folder,
            self._ledger,
            self._functions,
            self._report,
            self._retries,
            self._allowance,
        )
        coordinator.run(self._places.executor, self._places.slots, self._places.gpus)
        if self._allowance.refused:
            raise OutOfBudget
        return {key: a for key, a in self._attempts(batch).items() if a is not None}

    def unfinished(self) -> list[Node]:
        """Return the nodes that have no result, parents first."""
        found = self._attempts(self._nodes)
        return [
            node
            for node in self._nodes.values()
            if (attempt := found[node.id]) is None or attempt.status not in FINAL
        ]

    def _attempts(self, nodes: Iterable[str]) -> dict[str, Attempt | None]:
        view = self._ledger.view()
        return {key: view.get(key) for key in nodes}

    def _report(self, event: str, node: Node, outcome: Outcome | None) -> None:
        """Count a node once, though each batch that hangs on it finds it again."""
        if event in ("found", "end"):
            if node.id in self._counted:
                return
            self._counted.add(node.id)
        self._progress.report(event, node, outcome)
