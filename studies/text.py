"""Numbers as people read them, and the sentences that a study supports."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from studies.criteria import ENERGY_TERMS
from studies.front import Front
from studies.iso_accuracy import MARGIN, IsoAccuracy, Saving, iso_accuracies
from studies.metric import SCORE, Metric
from studies.pareto import Interval
from studies.quantities import COSTS
from studies.space import OF_A_TOKEN
from studies.statistics import Estimate
from studies.table import Point, Results

SPACE = "\N{NO-BREAK SPACE}"
"""between a number and its unit"""

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))

COST_NAMES = {key: quantity.name.lower() for key, quantity in COSTS.items()}
"""as a sentence has them"""
PER = {
    "energy_pj": " an inference",
    "latency_s": " an inference",
    "energy_pj_per_token": " a token",
    "latency_s_per_token": " a token",
}
"""what a cost is of"""
MOST_NAMED = 5
"""how many points between the ends of a front are named"""
WORTH_NAMING = 0.05
"""a point that is on the front in fewer draws is not named"""


def si(value: float, unit: str) -> str:
    """Write a quantity below a few thousand units with three digits and an SI prefix.

    >>> [text.replace(SPACE, " ") for text in (si(1.2345e-6, "J"), si(0.0, "J"), si(2.0e-3, "s"))]
    ['1.23 µJ', '0 J', '2.00 ms']
    """
    if value == 0:
        return f"0{SPACE}{unit}"
    # the limit is a little under 1 so that 0.9999 is rounded to 1.00 of its own prefix
    factor, prefix = next((f for f in _PREFIXES if abs(value) >= 0.9995 * f[0]), _PREFIXES[-1])
    scaled = value / factor
    digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    return f"{scaled:.{digits}f}{SPACE}{prefix}{unit}"


def percent(fraction: float) -> str:
    """Write a fraction in per cent with one decimal."""
    return f"{100 * fraction:.1f}{SPACE}%"


def joules(energy_pj: float) -> str:
    """Write an energy given in pJ."""
    return si(energy_pj * 1e-12, "J")


def energy(band: Interval) -> str:
    """Write an energy in pJ with its 5-95 % band.

    >>> energy(Interval(1e6, 2e6, 3e6)).replace(SPACE, " ")
    '2.00 µJ (1.00 µJ to 3.00 µJ)'
    """
    return f"{joules(band.nominal)} ({joules(band.low)} to {joules(band.high)})"


def cost_text(objective: str, band: Interval) -> str:
    """Write a cost of an objective, an energy with its band."""
    return energy(band) if objective in ENERGY_TERMS else value_text(objective, band.nominal)


def value_text(objective: str, value: float) -> str:
    """Write a cost of an objective, given in its own unit.

    >>> [value_text(*v).replace(SPACE, " ") for v in (("energy_pj", 2e6), ("area_um2", 1.5e6), ("latency_s", 0.5))]
    ['2.00 µJ', '1.500 mm²', '500 ms']
    """
    if objective == "area_um2":
        return f"{value / 1e6:.3f}{SPACE}mm²"
    return joules(value) if objective in ENERGY_TERMS else si(value, "s")


def score_text(metric: Metric, estimate: Estimate) -> str:
    """Write a mean score over seeds with its 95 % interval."""
    mean = metric.text(estimate.mean)
    if estimate.low is None or estimate.high is None:
        return f"{mean} (one seed)"
    return f"{mean} ({metric.range_text(estimate.low, estimate.high)}, n = {estimate.count})"


def hover(point: Point) -> str:
    """Say everything about a point in a few lines."""
    return "\n".join(
        (
            f"{point.student} on {point.machine}",
            *_score_lines(point),
            f"energy {energy(point.cost('energy_pj'))} an inference",
            f"latency {si(point.cost('latency_s').nominal, 's')} steady",
            *(
                f"{COST_NAMES[name]} {cost_text(name, point.cost(name))}"
                for name in OF_A_TOKEN
                if name in point.costs
            ),
        )
    )


def _score_lines(point: Point) -> list[str]:
    if point.score is None:
        return []
    return [f"{point.metric.name} {score_text(point.metric, point.score)}"]


def answer(results: Results, points: Sequence[Point], front: Front) -> list[str]:
    """Answer the study's question from its points, measured ones alone: the front, what equal scores save, how sure it is.

    Returns:
        A paragraph each.
    """
    if not front.points:
        return [no_front_text(results, points, front)]
    paragraphs = [front_text(front)]
    if front.metric is None:
        paragraphs.append(by_model_text(front))
    else:
        objective = next(n for n in front.names if n != SCORE)
        paragraphs.append(equal_score_text(front.points, objective, front.metric))
    paragraphs.append(certainty_text(front))
    paragraphs.append(_left_out(points, front))
    tokens = tokens_text(results)
    length = f"An inference is one sequence of {tokens}." if tokens else ""
    teacher = "" if front.metric is None else _teacher(results, front.metric)
    paragraphs.append(" ".join(filter(None, (teacher, length))))
    return [p for p in paragraphs if p]


def no_front_text(results: Results, points: Sequence[Point], front: Front) -> str:
    """Say why there is no front: what came of the rows, and what keeps the points that there are off it."""
    statuses = Counter(row.status for row in results.rows)
    total = len(results.rows)
    said = {"missing": "not there yet", "refused": "refused", "failed": "failed"}
    came = listed(
        [f"{statuses[s]} of {total} rows are {w}" for s, w in said.items() if statuses[s]]
    )
    if not points:
        return f"No point has been measured: {came}."
    sentences = [f"No point is on a front. {_left_out(points, front)}"]
    broken = [p for p in points if p.infeasible is not None]
    if broken:
        name = next(n for n in front.names if n != SCORE)
        nearest = min(broken, key=lambda p: p.cost(name).nominal)
        sentences.append(
            f"The one of the least {COST_NAMES[name]}, {_name(nearest)}: {nearest.infeasible}."
        )
    if came:
        sentences.append(f"{came}.")
    return " ".join(sentences)


def tokens_text(results: Results) -> str:
    """Say how long the inferences are that were costed, where that matters: `42 tokens`, or `17 to 42 tokens`."""
    counts = {row.tokens for row in results.rows if row.tokens is not None}
    if max(counts, default=0) <= 1:
        return ""
    low, high = min(counts), max(counts)
    return f"{high:,} tokens" if low == high else f"{low:,} to {high:,} tokens"


def _left_out(points: Sequence[Point], front: Front) -> str:
    """Say how many points a constraint, or a cost that they lack, keeps off the front."""
    broken = sum(p.infeasible is not None for p in points)
    unknown = len(points) - len(front.points) - broken
    sentences = []
    if broken:
        sentences.append(f"{broken} of {len(points)} combinations break a constraint.")
    if unknown:
        lacking = [name for name in front.names if name != SCORE and _lacks(points, name)]
        words = listed([COST_NAMES[name] for name in lacking])
        sentences.append(f"Of {unknown} combinations nothing gives the {words}.")
    return " ".join(sentences)


def _lacks(points: Sequence[Point], objective: str) -> bool:
    return any(objective not in p.costs and p.infeasible is None for p in points)


def front_text(front: Front) -> str:
    """Say how many points are on the front, which of them is best in what, and which is its knee."""
    metric = front.metric
    words = [criterion_name(metric, name) for name in front.names]
    axes = listed(words) if metric is None else f"{metric.name} against {words[0]}"
    made = "costed" if metric is None else "measured"
    head = f"{len(front.members)} of {len(front.points)} {made} combinations are on the front of {axes}."
    best = [min(front.members, key=lambda i: criterion.costs[i]) for criterion in front.criteria]
    if len(set(best)) == 1:
        every = "both" if len(words) == 2 else "all"
        return f"{head} {_describe(front, best[0])} is the best in {every}."
    ends = "; ".join(
        f"the {metric.best if metric and name == SCORE else 'least'} {word} is that of {_describe(front, index)}"
        for name, word, index in zip(front.names, words, best, strict=True)
    )
    sentences = [head, f"T{ends[1:]}."]
    between = [front.points[i] for i in front.members if i not in best]
    if between:
        sentences.append(f"Between them: {listed(_names(between))}.")
    if front.knee is not None:
        sentences.append(f"Its knee is {_name(front.points[front.knee])}.")
    return " ".join(sentences)


def _names(points: Sequence[Point]) -> list[str]:
    """Return the names of points; of many, how many variants of each machine, or the first names."""
    names = [_name(p) for p in points]
    more = len(points) - MOST_NAMED
    if more <= 0:
        return names
    variants = Counter(f"{p.student} on {p.rows[0].family or p.machine}" for p in points)
    if len(variants) <= MOST_NAMED:
        return [f"{count} of {name}" for name, count in variants.items()]
    return [*names[:MOST_NAMED], f"{more} more"]


def by_model_text(front: Front) -> str:
    """Say where each model costs least, where no score tells them apart: of costs alone the fewest bits win everywhere."""
    students = list(dict.fromkeys(p.student for p in front.points))
    if front.metric is not None or len(students) < 2:
        return ""
    name, costs = front.names[0], front.criteria[0].costs
    parts = []
    for student in students:
        own = [i for i, p in enumerate(front.points) if p.student == student]
        best = front.points[min(own, key=lambda i: costs[i])]
        parts.append(f"{student} {cost_text(name, best.cost(name))} on {best.machine}")
    return f"The least {COST_NAMES[name]}{PER.get(name, '')} of each model: {'; '.join(parts)}."


def criterion_name(metric: Metric | None, name: str) -> str:
    """Return what a sentence calls a criterion: the score by its metric, if there is one."""
    return metric.name if metric and name == SCORE else COST_NAMES[name]


def certainty_text(front: Front) -> str:
    """Say how surely the front's points are on it, and which other point may be; nothing where all values are exact."""
    if front.exact or len(front.points) == 1:
        return ""
    shares = front.probability
    weakest = min(front.members, key=lambda i: shares[i])
    text = "Drawn jointly, every point of the front stays on it in "
    if shares[weakest] == 1:
        text += "every draw"
    else:
        text += f"{percent(shares[weakest])} of the draws or more (the least sure is {_name(front.points[weakest])})"
    others = np.flatnonzero(~front.mask)
    if others.size and shares[others].max() >= WORTH_NAMING:
        nearest = others[np.argmax(shares[others])]
        text += f"; of those off it {_name(front.points[nearest])} comes onto it in {percent(shares[nearest])}"
    return f"{text}."


def equal_score_text(points: Sequence[Point], objective: str, metric: Metric) -> str:
    """Say what one saves at the score of the best student at which one saves anything."""
    students = 0
    for passed, found in enumerate(iso_accuracies(points, objective)):
        if found.saving is not None:
            return _saving_text(found, found.saving, objective, passed, metric)
        students = passed + 1
    if students < 2:
        return ""
    return (
        f"At equal {metric.name}, to within {margin_text(metric)}, nothing is saved: no student costs less than another"
        " that it equals."
    )


def margin_text(metric: Metric) -> str:
    """Write by how much a score may be worse and still count as equal."""
    return f"{100 * MARGIN:g}{SPACE}%" if metric.relative else f"{100 * MARGIN:g} point"


def _saving_text(
    found: IsoAccuracy, saving: Saving, objective: str, passed: int, metric: Metric
) -> str:
    ratio = saving.ratio
    band = f" (5–95 % band {ratio_band(ratio)})" if objective in ENERGY_TERMS else ""
    doubt = "" if saving.shown else "; a larger loss is not excluded"
    text = (
        f"At equal {metric.name}, {'shown' if saving.shown else 'measured'} to within {margin_text(metric)}: {_name(saving.cheap)} costs"
        f" {times(ratio.nominal)} times less {COST_NAMES[objective]}{band} than {_name(saving.dear)};"
        f" its {metric.name} differs by {difference_text(metric, saving.difference)}{doubt}. {_name(saving.dear)} is the cheapest combination"
        f" of its student; {found.equal} of {found.candidates} cheaper ones of other students are as good in this sense."
    )
    if passed:
        plural = "students that are" if passed > 1 else "student that is"
        text += f" At the {metric.name} of the {passed} {plural} better nothing is saved."
    return text


def difference_text(metric: Metric, difference: Estimate) -> str:
    """Write a difference of gains as one of scores, with its unit and interval."""
    unit = SPACE + metric.difference_unit if metric.relative else f" {metric.difference_unit}"
    text = metric.difference(difference.mean) + unit
    if difference.low is None or difference.high is None:
        return f"{text}, measured once and without an interval"
    source = (
        f"{difference.count} paired seeds"
        if difference.count > 1
        else "the test samples of one seed"
    )
    interval = " to ".join(metric.difference_ends(difference.low, difference.high))
    return f"{text} (95 % interval {interval}, from {source})"


def times(ratio: float) -> str:
    """Write a ratio with two digits behind the point below ten, with one below a hundred, else with none.

    >>> times(3.14159), times(31.4159), times(314.159)
    ('3.14', '31.4', '314')
    """
    return f"{ratio:.{2 if ratio < 9.995 else 1 if ratio < 99.95 else 0}f}"


def ratio_band(ratio: Interval) -> str:
    """Write the ends of a ratio's band."""
    return f"{times(ratio.low)} to {times(ratio.high)}"


def _name(point: Point) -> str:
    return f"{point.student} on {point.machine}"


def _describe(front: Front, index: int) -> str:
    point = front.points[index]
    names = [name for name in front.names if name != SCORE]
    alike = itertools.groupby(names, lambda name: PER.get(name, ""))
    costs = [
        ", ".join(cost_text(name, point.cost(name)) for name in group) + per for per, group in alike
    ]
    text = f"{_name(point)}, {', '.join(costs)}"
    if front.metric is None or point.score is None:
        return text
    return f"{text}, {front.metric.name} {score_text(front.metric, point.score)}"


def _teacher(results: Results, metric: Metric) -> str:
    values = [t.score for t in results.trained if t.student == results.teacher]
    if not values:
        return ""
    return f"The float32 teachers' {metric.name} is {metric.text(sum(values) / len(values))}."


def listed(words: Sequence[str]) -> str:
    """Join words for a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else "".join(words)
