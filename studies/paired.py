"""The difference of two models: over the seeds that both have, or with one seed over the rows that both were tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from hwsim.metrics import unpack_right
from studies.metric import Metric
from studies.statistics import (
    Effect,
    Estimate,
    paired_effect,
    paired_share_difference,
    share_difference,
)

ONE_SEED = "with one seed its interval is that of two shares of the same test rows"
"""how tables say where the interval of a difference comes from then"""


class Tested(Protocol):
    """A model of one seed as it was tested: a row of a study, or a finished training."""

    @property
    def score(self) -> float | None:
        """By the task's metric; None of an untrained model."""

    @property
    def correct(self) -> int | None:
        """Rows that it got right, of an accuracy."""

    @property
    def total(self) -> int | None:
        """Rows that it was tested on."""

    @property
    def right(self) -> str | None:
        """Which of them it got right, packed; None: not known."""


def gain_effect(metric: Metric, a: Mapping[int, Tested], b: Mapping[int, Tested]) -> Effect | None:
    """Return the gain of `a` minus that of `b`, both by seed, with its 95 % interval; None without a seed that both have.

    Over several common seeds it is paired by seed (`paired_effect`). With one the interval is that of two shares of the
    same test rows (`paired_share_difference`), or of independent ones where it is not known which rows were right
    (`share_difference`); there is none where the metric counts no correct rows.
    """
    ours, theirs = (
        metric.gains({s: t.score for s, t in each.items() if t.score is not None})
        for each in (a, b)
    )
    if not ours.keys() & theirs.keys():
        return None
    effect = paired_effect(ours, theirs)
    if len(effect.seeds) > 1:
        return effect
    (seed,) = effect.seeds
    of_rows = _of_rows(a[seed], b[seed])
    return effect if of_rows is None else replace(effect, difference=of_rows)


def _of_rows(a: Tested, b: Tested) -> Estimate | None:
    if a.correct is None or not a.total or b.correct is None or not b.total:
        return None
    if a.right is None or b.right is None or a.total != b.total:
        return share_difference((a.correct, a.total), (b.correct, b.total))
    return paired_share_difference(unpack_right(a.right, a.total), unpack_right(b.right, b.total))
