"""The part of a study file that says how its space is searched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from qat.spec import Strict
from studies.axes import Range, Vary, values_of

if TYPE_CHECKING:
    from studies.space import Training

GENERATION = 2
"""batches in a generation of a genetic sampler, unless the study says how many points"""


class Halving(Strict):
    """Successive halving of a batch of trainings (Jamieson and Talwalkar 2016): the better ones are trained for longer."""

    factor: Annotated[int, Field(ge=2)] = 3
    """one of so many goes on, with so many times the steps"""
    first_steps: Annotated[int, Field(ge=1)]
    """steps of the first, shortest trainings"""


class Search(Strict):
    """Points are proposed one batch after another, each batch from the results of those before it."""

    sampler: Literal["tpe", "nsga2", "nsga3", "random", "qmc"] = "tpe"
    """Optuna's samplers: tree-structured Parzen estimator, two genetic ones, independent points, a Sobol sequence"""
    seed: Annotated[int, Field(ge=0)] = 0
    trials: Annotated[int, Field(ge=1)]
    """different points; of a study that trains: different students"""
    batch: Annotated[int, Field(ge=1)] = 8
    """points that are proposed at a time, and can run at the same time"""
    population: Annotated[int, Field(ge=2)] | None = None
    """points in a generation of nsga2 and nsga3; null: two batches"""
    machines_per_student: Annotated[int, Field(ge=1)] = 16
    """machines that are proposed for each student, with its costs as objectives"""
    halving: Halving | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.population is not None and self.sampler not in ("nsga2", "nsga3"):
            raise ValueError(f"population is for nsga2 and nsga3, not for {self.sampler}")
        if self.halving is not None and self.trials % self.batch:
            raise ValueError(
                f"trials must be a multiple of batch ({self.batch}) with halving, because a batch"
                f" competes as a whole; not {self.trials}"
            )
        return self

    @property
    def generation(self) -> int:
        """Points in a generation of a genetic sampler."""
        return max(2, GENERATION * self.batch) if self.population is None else self.population


def check_no_ranges(entries: Iterable[tuple[str, str, Vary]]) -> None:
    """Make sure that a study without a search lists its values.

    Args:
        entries: the list that each is of, its name and what it varies.

    Raises:
        ValueError: one varies a range.
    """
    for where, name, vary in entries:
        for key, values in vary.items():
            if isinstance(values, Range):
                raise ValueError(
                    f"{where}: '{name}': vary: {key}: a range is for a study with `search`, which this one"
                    " lacks; list the values, or add `search`"
                )


def check_searched(search: Search, students: Sequence[Training], machines: Sequence[str]) -> None:
    """Make sure that a search can propose a study's students and machines, which it calls by their names.

    Raises:
        ValueError: names that are given twice, or keys that do not go with a search.
    """
    for axis, names in (("students", [s.name for s in students]), ("machines", machines)):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"{axis} of a search must each have a `name` of their own; given twice: {', '.join(twice)}"
            )
    if not students:
        given = sorted({"machines_per_student", "halving"} & search.model_fields_set)
        if given:
            raise ValueError(
                f"search: a study of hardware trains nothing: it has no {' and no '.join(given)}"
            )
    for student in students:
        if student.control is not None:
            raise ValueError(
                f"students: '{student.name}': a search has no controls: it proposes no pairs"
            )
        if search.halving is not None:
            steps = values_of(student.vary.get("train.steps", (student.train.steps,)))
            first = search.halving.first_steps
            if "train.epochs" in student.vary or None in steps or min(steps) <= first:
                raise ValueError(
                    f"students: '{student.name}': train.steps must be given and more than"
                    f" {first}, which is halving.first_steps"
                )
