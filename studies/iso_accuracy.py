"""What an equal score costs: the cheapest point that is no worse than a student where that is cheapest, and what it saves.

Scores are compared by their gains (`studies.metric`): accuracies as they are, perplexities by their logarithms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from studies.criteria import criteria_of, scores_by_seed
from studies.paired import gain_effect
from studies.pareto import Interval
from studies.statistics import Estimate
from studies.table import Point

MARGIN = 0.01
"""by how much a gain may be lower and still count as equal: one point, or one per cent of a perplexity, the same for every study"""
ROUNDING = 1e-12
"""96 of 100 is 97 of 100 less one point; in binary fractions it is a little more"""


@dataclass(frozen=True, slots=True)
class Saving:
    """A point that costs less than another and is as good; `cheap` and `dear` are both measured."""

    cheap: Point
    dear: Point
    ratio: Interval
    """cost of `dear` over that of `cheap`, with its 5-95 % band over joint draws"""
    difference: Estimate
    """gain of `cheap` minus that of `dear`, with its 95 % interval"""

    @property
    def shown(self) -> bool:
        """Whether an equal score is shown, and not measured alone."""
        return is_shown(self.difference)


@dataclass(frozen=True, slots=True)
class IsoAccuracy:
    """The comparison at the score of one student."""

    baseline: Point
    """the student where it is cheapest"""
    candidates: int
    """how many points of other students cost less, among those that share a seed with the baseline"""
    equal: int
    """how many of those are as good: `is_shown` or `is_measured`"""
    saving: Saving | None
    """the cheapest of those of which it is shown; if it is of none, the cheapest of those of which it was measured"""


def iso_accuracies(points: Sequence[Point], objective: str) -> Iterator[IsoAccuracy]:
    """Yield, for each student, what one saves without losing its score; the best first, of equals the dearest.

    Nothing is interpolated: both points of a saving were measured. A student stands where it is cheapest, so that no
    machine that suits it badly makes another look good.
    """
    baselines: dict[str, Point] = {}
    for point in sorted(points, key=lambda p: p.cost(objective).nominal):
        baselines.setdefault(point.student, point)
    ordered = reversed(baselines.values())  # the dearest first
    for baseline in sorted(ordered, key=lambda p: -p.metric.gain(p.score_bar.nominal)):
        yield _iso_accuracy(baseline, points, objective)


def _iso_accuracy(baseline: Point, points: Sequence[Point], objective: str) -> IsoAccuracy:
    def cost(point: Point) -> float:
        return point.cost(objective).nominal

    seeds = scores_by_seed(baseline).keys()
    candidates = [
        p
        for p in points
        if p.student != baseline.student
        and cost(p) < cost(baseline)
        and scores_by_seed(p).keys() & seeds
    ]
    found = [(p, gain_difference(p, baseline)) for p in sorted(candidates, key=cost)]
    equal = [pair for pair in found if is_shown(pair[1]) or is_measured(pair[1])]
    chosen = next((pair for pair in equal if is_shown(pair[1])), equal[0] if equal else None)
    saving = None
    if chosen is not None:
        ratio = cost_ratio(baseline, chosen[0], objective)
        saving = Saving(chosen[0], baseline, ratio, chosen[1])
    return IsoAccuracy(baseline, len(candidates), len(equal), saving)


def is_shown(difference: Estimate) -> bool:
    """Say whether a difference of gains is shown to be no loss: its whole interval above -`MARGIN` (non-inferiority)."""
    return difference.low is not None and difference.low > -MARGIN


def is_measured(difference: Estimate) -> bool:
    """Say whether a difference was measured to lie above -`MARGIN` while its interval, if it has one, does not exclude 0.

    That an interval holds 0 is not enough: the fewer the seeds, the more would be equal, and the larger the saving.
    """
    told_apart = difference.high is not None and difference.high < 0
    return difference.mean > -MARGIN - ROUNDING and not told_apart


def gain_difference(a: Point, b: Point) -> Estimate:
    """Return the gain of `a` minus that of `b` with its 95 % interval, as `gain_effect` has it.

    Raises:
        ValueError: the points have no seed in common.
    """
    effect = gain_effect(a.metric, *({r.seed: r for r in p.rows} for p in (a, b)))
    if effect is None:
        raise ValueError(f"{a.student} and {b.student} have no seed in common")
    return effect.difference


def cost_ratio(above: Point, below: Point, objective: str) -> Interval:
    """Return a cost of one point over that of another, with the 5-95 % band of the ratio draw by draw."""
    from hwsim.engine.draws import Band

    cost = criteria_of((above, below), (objective,))[0]
    band = Band.of(cost.draws[0] / cost.draws[1], float(cost.nominal[0] / cost.nominal[1]))
    return Interval(band.low, band.nominal, band.high)
