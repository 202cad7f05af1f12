"""What came of proposed points: what the sampler is told of them, and what is written down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from studies.ledger import FINAL, Attempt
from studies.metric import SCORE
from studies.plan import Node
from studies.proposer import Answer
from studies.space import Constraint

REFUSED = 1e6
"""by how much a point without a value is told to break constraints: more than any that has one"""

Status = Literal["ok", "refused", "invalid", "failed"]


@dataclass(frozen=True, slots=True)
class Measured:
    """A model on a machine that was proposed for it."""

    machine: str
    status: Status
    """invalid: there is no such machine, because its keys do not go together"""
    reason: str | None = None
    values: Mapping[str, float] | None = None
    """of a point that is ok: columns that constraints may be about, those that have a value, means over seeds"""
    nodes: tuple[str, ...] = ()

    def broken(self, constraints: Iterable[Constraint]) -> float:
        """Return by how much it breaks constraints: the sum of the excesses as shares of the limits."""
        values = self.values or {}
        return math.fsum(
            excess(c, values[c.column]) for c in constraints if values.get(c.column) is not None
        )

    def answer(self, objectives: Sequence[str], constraints: Iterable[Constraint]) -> Answer:
        """Return what a sampler is told: the logarithms of the costs, as figures and hypervolumes have them."""
        if self.status == "failed":
            return Answer("failed")
        values = self.values or {}
        if not all(name in values for name in objectives):
            return Answer("measured", (0.0,) * len(objectives), REFUSED)
        costs = tuple(math.log(values[name]) for name in objectives)
        return Answer("measured", costs, self.broken(constraints))


@dataclass(frozen=True, slots=True)
class Trial:
    """One proposal: a model on a machine, or a student with all machines that were proposed for it."""

    student: str
    status: Status | Literal["stopped"]
    points: tuple[Measured, ...] = ()
    reason: str | None = None
    metric: str | None = None
    score: float | None = None
    """the task's metric on the carve-out, mean over seeds, after as many steps as it was trained for"""
    steps: int | None = None
    """of the training that was stopped"""


def excess(constraint: Constraint, value: float) -> float:
    """Return by which share of its limit a value breaks a constraint; 0 where it keeps it."""
    if constraint.at_most is not None:
        limit, over = constraint.at_most, value - constraint.at_most
    else:
        assert constraint.at_least is not None
        limit, over = constraint.at_least, constraint.at_least - value
    return max(0.0, over) / (abs(limit) or 1.0)


def measured(
    machine: str, nodes: Sequence[Node], attempts: Mapping[str, Attempt], score: float | None
) -> Measured:
    """Return what came of a model on a machine: means over its nodes, one a seed.

    Args:
        machine: its name.
        nodes: evaluations or costings.
        attempts: those that count, by node.
        score: of the model on the carve-out; None where it was not trained.
    """
    ids = tuple(node.id for node in nodes)
    found = [attempts.get(key) for key in ids]
    ended = [a for a in found if a is not None and a.status in FINAL]
    if len(ended) < len(ids):
        return Measured(machine, "failed", nodes=ids)
    refused = [a.error for a in ended if a.status == "refused"]
    if refused:
        return Measured(machine, "refused", refused[0], nodes=ids)
    columns = [_columns(a.result or {}) for a in ended]
    values = {
        name: math.fsum(column[name] for column in columns) / len(columns)
        for name in columns[0]
        if all(column[name] is not None for column in columns)
    }
    if score is not None:
        values[SCORE] = score
    return Measured(machine, "ok", values=values, nodes=ids)


def _columns(result: Mapping[str, Any]) -> dict[str, Any]:
    """Pick what objectives and constraints are about; the score on the held-out data is not among it."""
    token = result.get("token")
    return {
        "energy_pj": result["energy_pj"]["nominal"],
        "latency_s": result["latency_s"]["steady"],
        "area_um2": result["area_um2"],
        "weight_bytes": result["weight_bytes"],
        "peak_activation_bytes": result["peak_activation_bytes"],
        "energy_pj_per_token": None if token is None else token["energy_pj"]["nominal"],
        "latency_s_per_token": None if token is None else token["latency_s"],
    }
