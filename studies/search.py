"""Searching a study: a batch of points is proposed, run and told to the sampler, then the next. Resumes by doing so again.

A batch is told in the order of proposal when all of it has ended. So what is proposed depends on the study and on results,
not on which node ended first, and a sweep that starts again proposes what it proposed before and finds it in the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from studies.allowance import Allowance
from studies.estimate import expected
from studies.executor import PlaceOptions
from studies.growing_plan import GrowingPlan, OutOfBudget
from studies.layout import Layout
from studies.ledger import FILE_NAME, FINAL, Ledger, read
from studies.plan import Node, NodeKind, Plan
from studies.progress import Progress
from studies.proposed import Trial
from studies.search_machines import HardwareSearch, Machines
from studies.search_record import SearchRecord
from studies.search_space import Space
from studies.search_students import StudentSearch
from studies.space import Study
from studies.worker import NodeFunction


class Proposals(Protocol):
    """What is searched: it proposes, runs and is told of one batch after another."""

    space: Space

    def upcoming(self) -> list[str]:
        """Propose a batch, and name its points."""

    def at_most(self) -> dict[NodeKind, int]:
        """Return how many nodes of each kind there can be."""

    def batch(self, growing: GrowingPlan, count: int) -> list[Trial]:
        """Return what came of the next batch, of at most so many proposals; nothing where the space has no more."""


def run_search(
    study: Study,
    plan: Plan,
    folder: Path,
    functions: Mapping[str, NodeFunction],
    options: PlaceOptions,
    retries: int,
    allowance: Allowance,
) -> list[Node]:
    """Search a study from where it stands; return the nodes without a result.

    `search.json` in the folder says what was proposed, and is written after each batch of which something was run.

    Raises:
        KeyboardInterrupt: the user stopped it; everything that was finished is in the ledger.
        MissingExtra: Optuna is not installed.
        BitwrightError: as `Coordinator.run` and `PlaceOptions.open` do.
    """
    assert study.search is not None
    layout = Layout(study)
    with Ledger(folder) as ledger, options.open(folder) as places, Progress(0) as progress:
        growing = GrowingPlan(
            layout,
            plan.invocation,
            folder,
            ledger,
            functions,
            places,
            progress,
            retries,
            allowance,
        )
        searched = proposals(layout)
        record = SearchRecord(study, searched.space)
        try:
            _to_the_end(searched, record, growing, folder)
        except OutOfBudget:
            record.ended = "budget"
        growing.save()
        record.save(folder)
        return growing.unfinished()


def _to_the_end(
    searched: Proposals, record: SearchRecord, growing: GrowingPlan, folder: Path
) -> None:
    search = record.search
    while len(record.trials) < search.trials:
        attempts = growing.attempts_made
        found = searched.batch(growing, min(search.batch, search.trials - len(record.trials)))
        record.add(found)
        if not found:
            record.ended = "exhausted"
            return
        if all(trial.status == "failed" for trial in found):
            record.ended = "failed"  # what fails a whole batch will fail the next
            return
        if growing.attempts_made > attempts:
            record.save(folder)
    record.ended = "trials"


def proposals(layout: Layout) -> Proposals:
    """Return what searches a study: machines for untrained models, or students, each with machines of its own.

    Raises:
        MissingExtra: Optuna is not installed.
    """
    machines = Machines(layout)
    if layout.study.teacher is None:
        return HardwareSearch(layout, machines)
    return StudentSearch(layout, machines)


def describe_search(study: Study, folder: Path) -> str:
    """Say how large a study's space is, what of it would be run and what first: the text of `--dry-run`.

    Raises:
        MissingExtra: Optuna is not installed.
    """
    search = study.search
    assert search is not None
    searched = proposals(Layout(study))
    finished = Counter(
        kind for kind, _ in {(a.kind, a.id) for a in read(folder / FILE_NAME) if a.status in FINAL}
    )
    most = searched.at_most()
    left = {kind: max(0, count - finished[kind]) for kind, count in most.items()}
    points = "students" if study.students else "points"
    return "\n".join(
        [
            f"study {study.name} in {folder}",
            f"  space     {searched.space.size:,} {points}; {search.sampler} proposes"
            f" {min(search.trials, searched.space.size):,}, {search.batch} at a time",
            *(
                f"  {kind:9} {n:4} nodes at most, {finished[kind]} finished"
                for kind, n in most.items()
            ),
            "time of what is to do",
            *expected(left, folder),
            "first batch",
            *(f"    {name}" for name in searched.upcoming()),
        ]
    )
