"""Drive a plan to its end: hand out nodes, take outcomes, write the ledger. One coordinator a folder."""

from __future__ import annotations

import heapq
import queue
import socket
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from datetime import UTC, datetime
from pathlib import Path

from hwsim.errors import BitwrightError, ConfigError
from hwsim.provenance import source_revision
from studies.allowance import Allowance
from studies.child import WORKER_DIED, AttemptLost
from studies.ledger import FINAL, Attempt, Ledger
from studies.plan import Node, Plan, source_sha256
from studies.worker import Call, NodeFunction, Outcome, read_marker, run_attempt

NODES_FOLDER = "nodes"
POLL_SECONDS = 0.5
GIVEN_UP = "the executor gave the node up (its scheduler is gone?)"
RETRIES = 1
"""how often a node whose attempt failed is tried again in one sweep"""

Report = Callable[[str, Node, Outcome | None], None]
"""Called by the coordinator with ("start" | "running" | "again" | "end" | "found", node, outcome).

"start": handed out; "running": seen at work for a while; "again": failed, to be tried again.
"""


class ExecutorGone(BitwrightError):
    """The executor takes no more nodes: its pool is broken, or its cluster is gone."""


def _silent(event: str, node: Node, outcome: Outcome | None) -> None:
    """Draw nothing."""


def resource_of(node: Node) -> str:
    """Return what a node occupies while it runs: `gpu` for a training on a CUDA device, else `cpu`."""
    device = str(node.spec.get("run", {}).get("device", "cpu"))
    return "gpu" if node.kind == "train" and device.startswith("cuda") else "cpu"


class ReadyNodes:
    """The nodes whose parents are finished, by resource, those with the longest chain below them first.

    A training that starts last would leave the other workers idle.
    """

    def __init__(self, todo: Sequence[Node]) -> None:
        left = {node.id for node in todo}
        self._below: dict[str, list[Node]] = {}
        self._unmet: dict[str, int] = {}
        self._rank: dict[str, tuple[int, int]] = {}
        self._heaps: dict[str, list[tuple[tuple[int, int], str, Node]]] = {}
        heights = dict.fromkeys(left, 0)
        for node in reversed(todo):
            for parent in left.intersection(node.parents):
                heights[parent] = max(heights[parent], heights[node.id] + 1)
        for place, node in enumerate(todo):
            self._rank[node.id] = (-heights[node.id], place)
            waits_for = left.intersection(node.parents)
            self._unmet[node.id] = len(waits_for)
            for parent in waits_for:
                self._below.setdefault(parent, []).append(node)
            if not waits_for:
                self.add(node)

    def add(self, node: Node) -> None:
        """Put a node in whose parents are finished."""
        heap = self._heaps.setdefault(resource_of(node), [])
        heapq.heappush(heap, (self._rank[node.id], node.id, node))

    def finished(self, node: Node) -> None:
        """Put in what only waited for this node."""
        for below in self._below.get(node.id, ()):
            self._unmet[below.id] -= 1
            if not self._unmet[below.id]:
                self.add(below)

    def take(self, resource: str, allowance: Allowance) -> Node | None:
        """Take the first node for a resource out, if there is one and it may begin."""
        heap = self._heaps.get(resource)
        return heapq.heappop(heap)[-1] if heap and allowance.take() else None


class Coordinator:
    """Drives one plan in one study folder. Everything that is shared between nodes happens here."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        ledger: Ledger,
        functions: Mapping[str, NodeFunction],
        report: Report = _silent,
        retries: int = RETRIES,
        allowance: Allowance | None = None,
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.ledger = ledger
        self.functions = functions
        self.report = report
        self.retries = retries
        self.allowance = allowance or Allowance()
        self._failures: dict[str, int] = {}

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

    def run(self, executor: Executor, slots: int, gpus: Sequence[Executor] = ()) -> list[Node]:
        """Run what is left; return the nodes that have no result.

        A failed attempt is a line of the ledger and is tried again `retries` times, unless it failed for something that
        only the user can change; the nodes below a node that has
        failed for good are not tried; all others are, as far as the allowance goes.

        Args:
            executor: where nodes run that need no GPU.
            slots: how many of them are handed out at a time. More than the executor has workers keep it busy.
            gpus: one executor a GPU, each given one node at a time.

        Raises:
            ConfigError: a node needs a GPU and there is none.
            ExecutorGone: the executor takes no more nodes.
            StorageError: the study's folder cannot be written.
        """
        todo = self.settle()
        free: dict[str, list[Executor]] = {"cpu": [executor] * slots, "gpu": list(gpus)}
        _require_places(todo, free)
        ready = ReadyNodes(todo)
        running: dict[Future[Outcome], tuple[Node, Executor]] = {}
        told: set[Future[Outcome]] = set()
        ended: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        by_id = self.plan.by_id
        while True:
            for resource, places in free.items():
                while places and (node := ready.take(resource, self.allowance)):
                    place = places.pop()
                    self.report("start", node, None)
                    future = self._submit(place, node, by_id)
                    running[future] = node, place
                    future.add_done_callback(ended.put)
            if not running:
                break  # what still waits hangs below a failure, or is beyond the budget
            try:
                future = ended.get(timeout=POLL_SECONDS)
            except queue.Empty:
                self.ledger.sync_if_due()
                # a lull: what is quick needs no word
                for future in [f for f in running if f not in told and f.running()]:
                    self.report("running", running[future][0], None)
                    told.add(future)
                continue
            node, place = running.pop(future)
            told.discard(future)
            free[resource_of(node)].append(place)
            outcome = self._outcome(future)
            self._record(node, outcome)
            if outcome.status == "failed" and not outcome.lasting and self._may_retry(node):
                self.report("again", node, outcome)
                ready.add(node)
                continue
            self.report("end", node, outcome)
            if outcome.status == "ok":
                ready.finished(node)
        self.ledger.sync()
        view = self.ledger.view()
        return [n for n in self.plan.nodes if n.id not in view or view[n.id].status not in FINAL]

    def _submit(self, place: Executor, node: Node, by_id: Mapping[str, Node]) -> Future[Outcome]:
        parents = tuple(self.folder_of(by_id[p]) for p in node.parents)
        call = Call(node.spec, self.folder_of(node), parents)
        try:
            return place.submit(run_attempt, self.functions[node.kind], node.id, call)
        except (BrokenExecutor, RuntimeError) as fault:  # broken, or closed
            raise ExecutorGone(
                f"nodes can be handed out no more ({type(fault).__name__}: {fault}); "
                "what is finished is kept: start it again, the same command goes on from there"
            ) from fault

    def _may_retry(self, node: Node) -> bool:
        self._failures[node.id] = self._failures.get(node.id, 0) + 1
        return self._failures[node.id] <= self.retries

    @staticmethod
    def _outcome(future: Future[Outcome]) -> Outcome:
        try:
            return future.result()
        except BitwrightError:
            raise  # not of this node: the disk is full, the workers do not fit
        except AttemptLost as lost:
            return Outcome("failed", None, lost.reason, lost.seconds, lost.host)
        except BrokenExecutor:
            return Outcome("failed", None, WORKER_DIED, 0.0, socket.gethostname())
        except CancelledError:
            return Outcome("failed", None, GIVEN_UP, 0.0, socket.gethostname())
        except Exception as fault:  # the call could not be sent or its answer not be read
            text = f"{type(fault).__name__}: {fault}"
            return Outcome("failed", None, text, 0.0, socket.gethostname())


def _require_places(todo: Iterable[Node], free: Mapping[str, Sequence[Executor]]) -> None:
    homeless = [node.label for node in todo if not free[resource_of(node)]]
    if homeless:
        raise ConfigError(
            f"{len(homeless)} node{'s train' if len(homeless) > 1 else ' trains'} on a GPU ('{homeless[0]}' first), "
            "and there is none; "
            "give --gpus N, workers with `--resources GPU=1`, or device: cpu"
        )


def blocked_by(unfinished: Sequence[Node], tried: Container[str]) -> dict[str, list[Node]]:
    """Map each unfinished node that failed itself, by its id, to those that wait for it, near or far.

    What was not tried and waits for nothing that failed is left out: the budget was used up before its turn.

    Args:
        unfinished: parents first.
        tried: ids of all nodes with an attempt.
    """
    failed: dict[str, list[Node]] = {node.id: [] for node in unfinished if node.id in tried}
    waits_for = {id_: id_ for id_ in failed}
    for node in unfinished:
        above = next((waits_for[p] for p in node.parents if p in waits_for), None)
        if node.id not in failed and above is not None:
            waits_for[node.id] = above
            failed[above].append(node)
    return failed
