"""Drive a plan to its end: hand out nodes, take outcomes, write the ledger. One coordinator a folder."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from datetime import UTC, datetime
from pathlib import Path

from hwsim.provenance import source_revision
from studies.ledger import FINAL, Attempt, Ledger
from studies.plan import Node, Plan, source_sha256
from studies.worker import Call, NodeFunction, Outcome, read_marker, run_attempt

NODES_FOLDER = "nodes"
POLL_SECONDS = 0.5
WORKER_DIED = "the worker process died (killed, or out of memory)"
WORKER_DEATH_RETRIES = 1
"""how often a node is tried again, in one sweep, after its worker process died under it"""


Report = Callable[[str, Node, Outcome | None], None]
"""Called by the coordinator with ("start" | "end" | "found", node, outcome)."""


def _silent(event: str, node: Node, outcome: Outcome | None) -> None:
    """Draw nothing."""


class Coordinator:
    """Drives one plan in one study folder. Everything that is shared between nodes happens here."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        ledger: Ledger,
        functions: Mapping[str, NodeFunction],
        report: Report = _silent,
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.ledger = ledger
        self.functions = functions
        self.report = report
        self._deaths: dict[str, int] = {}

    def folder_of(self, node: Node) -> Path:
        """Return where a node works."""
        return self.folder / NODES_FOLDER / node.folder_name

    def _record(self, node: Node, outcome: Outcome) -> None:
        self.ledger.append(
            Attempt(
                id=node.id,
                attempt=self.ledger.next_attempt(node.id),
                status=outcome.status,
                kind=node.kind,
                label=node.label,
                spec=node.spec,
                parents=node.parents,
                result=outcome.result,
                error=outcome.error,
                volatile={
                    "seconds": round(outcome.seconds, 3),
                    "host": outcome.host,
                    "date": datetime.now(UTC).isoformat(timespec="seconds"),
                    "git_revision": source_revision(),
                    "sources_sha256": source_sha256(node.kind),
                    "environment": outcome.environment,
                },
            )
        )

    def settle(self) -> list[Node]:
        """Take over finished work and return the nodes that still must run, parents first.

        A node is finished if the ledger says so; a node whose *files* someone still needs must have
        its marker as well, so a folder that was deleted is made again only when it is missed.
        """
        view = self.ledger.view()
        needed_files: set[str] = set()
        todo: list[Node] = []
        for node in reversed(self.plan.nodes):
            marker = read_marker(self.folder_of(node), node.id)
            attempt = view.get(node.id)
            recorded = attempt is not None and attempt.status in FINAL
            if marker is not None and not recorded:
                self._record(node, marker)
                recorded = True
            if recorded and (marker is not None or node.id not in needed_files):
                self.report("found", node, marker)
                continue
            todo.append(node)
            needed_files.update(node.parents)
        todo.reverse()
        return todo

    def _heights(self) -> dict[str, int]:
        """Map each node to the length of the longest chain of nodes that waits below it."""
        heights = dict.fromkeys(self.plan.by_id, 0)
        for node in reversed(self.plan.nodes):
            for parent in node.parents:
                heights[parent] = max(heights[parent], heights[node.id] + 1)
        return heights

    def run(self, executor: Executor, slots: int) -> list[Node]:
        """Run what is left, at most `slots` nodes at a time; return the nodes that have no result.

        A failed node leaves an attempt with its error; nodes below it are not tried; all others are.
        """
        waiting = self.settle()
        unmet = {node.id for node in waiting}
        running: dict[Future[Outcome], Node] = {}
        by_id = self.plan.by_id
        heights = self._heights()
        while waiting or running:
            # longest chain first: a training that starts last would leave the other workers idle
            ready = [n for n in waiting if not unmet.intersection(n.parents)]
            ready.sort(key=lambda n: -heights[n.id])
            for node in ready[: slots - len(running)]:
                waiting.remove(node)
                self.report("start", node, None)
                call = Call(
                    node.spec,
                    self.folder_of(node),
                    tuple(self.folder_of(by_id[p]) for p in node.parents),
                )
                running[executor.submit(run_attempt, self.functions[node.kind], node.id, call)] = (
                    node
                )
            if not running:
                break  # what is still waiting hangs below a failure
            done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                node = running.pop(future)
                outcome = self._outcome(future)
                self._record(node, outcome)
                self.report("end", node, outcome)
                if outcome.status == "ok":
                    unmet.discard(node.id)
                elif outcome.error == WORKER_DIED and self._may_retry(node):
                    waiting.insert(0, node)
            self.ledger.sync_if_due()
        self.ledger.sync()
        view = self.ledger.view()
        return [n for n in self.plan.nodes if n.id not in view or view[n.id].status not in FINAL]

    def _may_retry(self, node: Node) -> bool:
        self._deaths[node.id] = self._deaths.get(node.id, 0) + 1
        return self._deaths[node.id] <= WORKER_DEATH_RETRIES

    @staticmethod
    def _outcome(future: Future[Outcome]) -> Outcome:
        try:
            return future.result()
        except BrokenExecutor:
            return Outcome("failed", None, WORKER_DIED, 0.0, socket.gethostname())
        except Exception as fault:  # the call could not be sent or its answer not be read
            text = f"{type(fault).__name__}: {fault}"
            return Outcome("failed", None, text, 0.0, socket.gethostname())


def blocked_by(plan: Plan, unfinished: Iterable[Node]) -> dict[str, list[Node]]:
    """Split unfinished nodes into those that `failed` themselves and those `blocked` by a parent."""
    nodes = list(unfinished)
    ids = {n.id for n in nodes}
    blocked = [n for n in nodes if ids.intersection(n.parents)]
    return {"failed": [n for n in nodes if n not in blocked], "blocked": blocked}
