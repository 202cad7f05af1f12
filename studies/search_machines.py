"""Machines that a search proposes: for untrained models, which have costs alone, or for one trained student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.errors import ConfigError
from studies.axes import variant
from studies.growing_plan import GrowingPlan
from studies.layout import Layout, ResolvedMachine
from studies.plan import Node, NodeKind
from studies.proposed import Measured, Trial, measured
from studies.proposer import Proposer
from studies.search_space import Axis, Key, Space


class Machines:
    """The machines of a study, those that its entries vary among them."""

    def __init__(self, layout: Layout) -> None:
        self.axis = Axis("machine", dict(layout.study.machine_axes))
        self._layout = layout

    def at(self, place: Sequence[int]) -> ResolvedMachine | Measured:
        """Read and build a machine; return what there is to say of it if its keys do not go together."""
        entry = self._layout.study.machines[place[0]]
        try:
            return self._layout.machine(variant(entry, self.axis.settings(place)))
        except ConfigError as error:
            return Measured(self.axis.label(place), "invalid", str(error))


@dataclass(frozen=True, slots=True)
class Asked:
    """A model that is to be costed on a machine."""

    machine: ResolvedMachine | Measured
    """Measured: there is no such machine"""
    before: tuple[Node, ...] = ()
    """what its nodes hang on, parents first"""
    nodes: tuple[Node, ...] = ()
    """one a seed"""
    score: float | None = None


def run_points(growing: GrowingPlan, asked: Sequence[Asked]) -> list[Measured]:
    """Cost models on machines, all at once; return what came of each.

    Raises:
        OutOfBudget: as `GrowingPlan.run` does.
    """
    growing.machines |= {
        a.machine.name: a.machine for a in asked if isinstance(a.machine, ResolvedMachine)
    }
    attempts = growing.run(node for a in asked for node in (*a.before, *a.nodes))
    return [
        a.machine
        if isinstance(a.machine, Measured)
        else measured(a.machine.name, a.nodes, attempts, a.score)
        for a in asked
    ]


class HardwareSearch:
    """Proposes models with machines, by what they cost."""

    def __init__(self, layout: Layout, machines: Machines) -> None:
        study = layout.study
        assert study.search is not None
        self._layout, self._machines = layout, machines
        self._search = study.search
        models = Axis("model", {part.name: {} for part in study.untrained})
        self.space = Space(models, machines.axis)
        self._proposer = Proposer(
            self.space, study.search, study.search.seed, len(study.objectives)
        )

    def upcoming(self) -> list[str]:
        """Propose a batch, and name its points."""
        keys = self._proposer.propose(self._search.batch)
        models = self._layout.study.untrained
        return [
            f"{models[model].name} on {self._machines.axis.label(place)}"
            for (model, *_), place in keys
        ]

    def at_most(self) -> dict[NodeKind, int]:
        """Return how many nodes of each kind there can be."""
        points = min(self._search.trials, self.space.size)
        return {"untrained": min(len(self._layout.study.untrained), points), "cost": points}

    def batch(self, growing: GrowingPlan, count: int) -> list[Trial]:
        """Cost the next models on their machines."""
        study = self._layout.study
        # a search of more trials goes on from a last batch that was cut: it must have been asked for whole
        keys = self._proposer.propose(self._search.batch)[:count]
        points = run_points(growing, [self._asked(key) for key in keys])
        self._proposer.tell(
            {
                key: point.answer(study.objectives, study.constraints)
                for key, point in zip(keys, points, strict=True)
            }
        )
        return [
            Trial(study.untrained[key[0][0]].name, point.status, (point,), point.reason)
            for key, point in zip(keys, points, strict=True)
        ]

    def _asked(self, key: Key) -> Asked:
        (model, *_), place = key
        part, machine = self._layout.study.untrained[model], self._machines.at(place)
        if isinstance(machine, Measured):
            return Asked(machine)
        export = self._layout.untrained(part)
        return Asked(machine, (export,), (self._layout.costing(part, export, machine),))
