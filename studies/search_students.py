"""Students that a search proposes: each is trained, then machines are searched for it, then the next are proposed.

A training costs what thousands of machines cost. So there are two levels: one sampler proposes students, and for each student
another proposes machines, by their costs alone, because all machines compute the same integers. The first is told of a
student its metric on the carve-out and, for each cost, the least that a machine reached. These do not depend on other
students, as a gain of hypervolume would, so what was told once stays true, and there is no reference to be chosen.
The held-out data plays no part: it is measured for students that were trained to their end, and nothing is chosen by it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hwsim.errors import ConfigError
from studies.axes import values_of
from studies.growing_plan import GrowingPlan
from studies.layout import Layout
from studies.metric import METRICS, SCORE
from studies.pareto import front_mask
from studies.plan import Node, NodeKind, sha256_of
from studies.proposed import REFUSED, Measured, Trial
from studies.proposer import Answer, Proposer
from studies.search_machines import Asked, Machines, run_points
from studies.search_space import Axis, Key, Space
from studies.search_spec import Halving
from studies.space import Training

SEED_DIGITS = 8
"""hexadecimal digits of a hash that seed the sampler of a student's machines"""
HANDED_ON = 2
"""one of so many of a student's machines is one that was on the front of students before it"""


@dataclass
class Candidate:
    """A proposed student on its way."""

    key: Key
    part: Training
    status: Literal["ok", "invalid", "failed", "stopped"] = "ok"
    reason: str | None = None
    steps: int | None = None
    """of the training after which it was stopped"""
    metric: str | None = None
    score: float | None = None
    """the task's metric on the carve-out, mean over seeds"""
    loss: float = math.inf
    """the same, to be made small"""
    points: dict[Key, Measured] = field(default_factory=dict)
    """by the machine's key"""

    def take(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Take the metric on the carve-out from the results of its trainings, one a seed."""
        self.metric = name = str(results[0]["metric"])
        self.score = math.fsum(r["validation"][name] for r in results) / len(results)
        self.loss = -METRICS[name].gain(self.score)

    def trial(self) -> Trial:
        """Return what came of it."""
        points = tuple(self.points.values())
        return Trial(
            self.part.name, self.status, points, self.reason, self.metric, self.score, self.steps
        )


class StudentSearch:
    """Proposes students, trains them, and proposes machines for each."""

    def __init__(self, layout: Layout, machines: Machines) -> None:
        study = layout.study
        assert study.search is not None
        self._layout, self._machines = layout, machines
        self._study, self._search = study, study.search
        self._students = Axis("student", {part.name: part.vary for part in study.students})
        self.space = Space(self._students)
        objectives = 1 + len(study.objectives)
        self._proposer = Proposer(self.space, study.search, study.search.seed, objectives)
        self._on_fronts: Counter[Key] = Counter()

    def upcoming(self) -> list[str]:
        """Propose a batch, and name its students."""
        keys = self._proposer.propose(self._search.batch)
        return [self._students.label(place) for (place,) in keys]

    def at_most(self) -> dict[NodeKind, int]:
        """Return how many nodes of each kind there can be."""
        search, study = self._search, self._study
        students = finished = min(search.trials, self.space.size)
        trainings = 1 + len({part.teacher for part in study.students if part.teacher})
        if search.halving is not None:
            batches = -(-students // search.batch)
            rungs = halved(search.batch, search.halving, self._longest())
            finished = min(students, batches * rungs[-1])
            trainings += batches * sum(rungs[:-1])
        seeds = len(study.seeds)
        machines = min(search.machines_per_student, self._machines.axis.size)
        return {
            "train": (trainings + finished) * seeds,
            "export": finished * seeds,
            "evaluate": finished * seeds * machines,
        }

    def _longest(self) -> int:
        steps = [
            values_of(part.vary.get("train.steps", (part.train.steps,)))
            for part in self._study.students
        ]
        return max(int(value) for of in steps for value in of)

    def batch(self, growing: GrowingPlan, count: int) -> list[Trial]:
        """Train the next students and cost each on its machines."""
        keys = self._proposer.propose(self._search.batch)[:count]
        candidates = [self._candidate(key) for key in keys]
        self._halve(growing, candidates)
        self._train(growing, _left(candidates))
        self._cost(growing, _left(candidates))
        self._proposer.tell({c.key: self._answer(c) for c in candidates})
        return [c.trial() for c in candidates]

    def _candidate(self, key: Key) -> Candidate:
        (place,) = key
        entry = self._study.students[place[0]]
        try:
            part = self._layout.student(entry, self._students.settings(place))
            self._layout.recipe(part)
        except ConfigError as error:
            named = entry.model_copy(update={"name": self._students.label(place)})
            return Candidate(key, named, "invalid", str(error))
        return Candidate(key, part)

    def _halve(self, growing: GrowingPlan, candidates: Sequence[Candidate]) -> None:
        """Train all for a while, stop all but the best, train those for longer: until one is left or they are trained to their end."""
        halving = self._search.halving
        if halving is None:
            return
        steps = halving.first_steps
        longest = max((c.part.train.steps or 0 for c in candidates), default=0)
        while steps < longest and len(running := _left(candidates)) > 1:
            self._train(growing, running, steps)
            ranked = sorted(_left(running), key=lambda c: c.loss)
            for behind in ranked[survivors(len(running), halving) :]:
                behind.status, behind.steps = "stopped", steps
            steps *= halving.factor

    def _train(
        self, growing: GrowingPlan, candidates: Sequence[Candidate], steps: int | None = None
    ) -> None:
        """Train students on all seeds; with `steps` for so many only, to be compared on the carve-out."""
        trainings: list[list[Node]] = []
        asked: list[Node] = []
        for c in candidates:
            trainings.append([self._training(c.part, seed, steps) for seed in self._study.seeds])
            for seed, training in zip(self._study.seeds, trainings[-1], strict=True):
                asked += [*self._layout.lineage(c.part, seed), training]
        attempts = growing.run(asked)
        for c, nodes in zip(candidates, trainings, strict=True):
            ended = [a for node in nodes if (a := attempts.get(node.id)) is not None]
            results = [a.result for a in ended if a.result is not None]
            if len(results) == len(nodes):
                c.take(results)
            else:
                errors = [a.error for a in ended if a.error]
                c.status, c.reason = "failed", errors[0] if errors else "its teacher failed"

    def _training(self, part: Training, seed: int, steps: int | None) -> Node:
        if steps is None:
            return self._layout.training(part, seed)
        return self._layout.trial_training(part, seed, min(steps, part.train.steps or steps))

    def _cost(self, growing: GrowingPlan, candidates: Sequence[Candidate]) -> None:
        """Propose machines for students, for all of them at the same time, and cost them."""
        study, search = self._study, self._search
        growing.students |= {c.part.name: c.part for c in candidates}
        # a machine changes no score, so a limit of it is no matter of the machines' samplers
        constraints = [c for c in study.constraints if c.column != SCORE]
        first = self._handed_on()
        proposers = [self._machine_proposer(c.part.name, first) for c in candidates]
        for begin in range(0, search.machines_per_student, search.batch):
            count = min(search.batch, search.machines_per_student - begin)
            keys = [proposer.propose(count) for proposer in proposers]
            asked = [
                self._asked(c, key) for c, of in zip(candidates, keys, strict=True) for key in of
            ]
            found = iter(run_points(growing, asked))
            for c, proposer, of in zip(candidates, proposers, keys, strict=True):
                points = {key: next(found) for key in of}
                c.points |= points
                proposer.tell(
                    {k: p.answer(study.objectives, constraints) for k, p in points.items()}
                )
        for c in candidates:
            self._on_fronts.update(self._front(c))

    def _machine_proposer(self, student: str, first: Sequence[Key]) -> Proposer:
        seed = int(sha256_of([self._search.seed, student])[:SEED_DIGITS], 16)
        space = Space(self._machines.axis)
        return Proposer(space, self._search, seed, len(self._study.objectives), first)

    def _asked(self, c: Candidate, key: Key) -> Asked:
        machine = self._machines.at(key[0])
        if isinstance(machine, Measured):
            return Asked(machine)
        before: list[Node] = []
        nodes: list[Node] = []
        for seed in self._study.seeds:
            export = self._layout.export(c.part, seed)
            training = self._layout.training(c.part, seed)
            before += [*self._layout.lineage(c.part, seed), training, export]
            nodes.append(self._layout.evaluation(c.part, export, machine))
        return Asked(machine, tuple(before), tuple(nodes), c.score)

    def _able(self, c: Candidate) -> dict[Key, list[float]]:
        """Return the logarithms of the costs of a student's machines that keep all constraints, by the machine's key."""
        answers = {
            key: point.answer(self._study.objectives, self._study.constraints)
            for key, point in c.points.items()
        }
        return {
            k: list(a.values) for k, a in answers.items() if a.state == "measured" and not a.broken
        }

    def _front(self, c: Candidate) -> list[Key]:
        able = self._able(c)
        if not able:
            return []
        mask = front_mask(np.array(list(able.values())))
        return [key for key, is_on in zip(able, mask, strict=True) if is_on]

    def _handed_on(self) -> list[Key]:
        """Return the machines that were on the fronts of most students so far: the next student begins with them."""
        return [
            key
            for key, _ in self._on_fronts.most_common(
                self._search.machines_per_student // HANDED_ON
            )
        ]

    def _answer(self, c: Candidate) -> Answer:
        """Return what the students' sampler is told: the metric, and the least that a machine reached of each cost."""
        study = self._study
        if c.status in ("stopped", "failed"):
            return Answer("stopped" if c.status == "stopped" else "failed")
        answers = [p.answer(study.objectives, study.constraints) for p in c.points.values()]
        known = [a for a in answers if a.state == "measured"]
        if c.points and not known:
            return Answer("failed")
        broken = min((a.broken for a in known), default=REFUSED)
        if broken >= REFUSED:
            return Answer("measured", (0.0,) * (1 + len(study.objectives)), REFUSED)
        best = [a.values for a in known if a.broken == broken]
        costs = (min(column) for column in zip(*best, strict=True))
        return Answer("measured", (c.loss, *costs), broken)


def survivors(count: int, halving: Halving) -> int:
    """Return how many of so many students go on."""
    return max(1, count // halving.factor)


def halved(count: int, halving: Halving, longest: int) -> list[int]:
    """Return how many students of a batch are trained at each length, the last of them to their end."""
    counts = [count]
    steps = halving.first_steps
    while steps < longest and counts[-1] > 1:
        counts.append(survivors(counts[-1], halving))
        steps *= halving.factor
    return counts


def _left(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return those that are still on their way."""
    return [c for c in candidates if c.status == "ok"]
