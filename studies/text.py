"""Numbers as people read them, and the sentences that a study supports."""

from __future__ import annotations

from collections.abc import Sequence

from studies.pareto import Interval
from studies.statistics import Estimate
from studies.table import Point, Results

SPACE = "\N{NO-BREAK SPACE}"
"""between a number and its unit"""

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))

COST_NAMES = {"energy_pj": "energy", "latency_s": "latency", "area_um2": "area"}


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


def percent_range(low: float, high: float) -> str:
    """Write an interval of fractions in per cent."""
    return f"{100 * low:.1f}–{100 * high:.1f}{SPACE}%"


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
    """Write a cost of an objective."""
    if objective == "energy_pj":
        return energy(band)
    if objective == "area_um2":
        return f"{band.nominal / 1e6:.3f}{SPACE}mm²"
    return si(band.nominal, "s")


def accuracy(estimate: Estimate | None) -> str:
    """Write a mean accuracy over seeds with its 95 % interval."""
    if estimate is None:
        return "not trained"
    if estimate.low is None or estimate.high is None:
        return f"{percent(estimate.mean)} (one seed)"
    return f"{percent(estimate.mean)} ({percent_range(estimate.low, estimate.high)}, n = {estimate.count})"


def hover(point: Point) -> str:
    """Say everything about a point in a few lines."""
    return "\n".join(
        (
            f"{point.student} on {point.machine}",
            *([] if point.accuracy is None else [f"accuracy {accuracy(point.accuracy)}"]),
            f"energy {energy(point.energy_pj)} an inference",
            f"latency {si(point.latency_s.nominal, 's')} steady",
        )
    )


def answer(results: Results) -> str:
    """Answer the study's question from measured points alone: the front, its two ends and its knee."""
    points = results.points()
    if not points:
        return "No point has been measured yet."
    objective = str(results.plan.study["objectives"][0])
    front = sorted(
        (p for p, standing in results.judged(points, objective) if standing == "front"),
        key=lambda p: p.cost(objective).nominal,
    )
    name = COST_NAMES[objective]
    if not results.trains:
        names = listed([COST_NAMES[o] for o in results.plan.study["objectives"]])
        return (
            f"{len(front)} of {len(points)} costed combinations are on the front of {names}."
            f" The least {name} is that of {front[0].student} on {front[0].machine},"
            f" {cost_text(objective, front[0].cost(objective))} an inference."
        )
    head = f"{len(front)} of {len(points)} measured combinations are on the front of accuracy against {name}."
    cheap, best = front[0], front[-1]
    if cheap is best:
        return f"{head} {_describe(cheap, objective)} is the best in both."
    ends = (
        f"The least {name} is that of {_describe(cheap, objective)}; "
        f"the highest accuracy is that of {_describe(best, objective)}."
    )
    between = [f"{p.student} on {p.machine}" for p in front[1:-1]]
    return " ".join(
        (
            head,
            ends,
            *([f"Between them: {', '.join(between)}."] if between else []),
            _teacher(results),
        )
    )


def _describe(point: Point, objective: str) -> str:
    return (
        f"{point.student} on {point.machine}, {cost_text(objective, point.cost(objective))} an inference "
        f"at {accuracy(point.accuracy)}"
    )


def _teacher(results: Results) -> str:
    values = [t.value for t in results.trained if t.student == results.teacher]
    return f"The float32 teachers reach {percent(sum(values) / len(values))}." if values else ""


def listed(words: Sequence[str]) -> str:
    """Join words for a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else "".join(words)
