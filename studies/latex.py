"""The tables of a study for a paper: LaTeX with the rules of the `booktabs` package, nothing else is needed."""

from __future__ import annotations

from collections.abc import Sequence

from studies.metric import Metric
from studies.paired import gain_effect
from studies.quantities import Judged, Quantity
from studies.statistics import Estimate
from studies.table import Point
from studies.tables import rows_by_seed, scores_of

MOST_POINTS = 40
"""lines of the table of the front: about a page"""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "µ": r"\ensuremath{\mu}",
    "²": r"\textsuperscript{2}",
    "–": "--",
    "×": r"\ensuremath{\times}",
}
UNITS = {
    "energy_pj": ("Energy", "µJ", 1e-6, 3),
    "latency_s": ("Latency", "ms", 1e3, 3),
    "area_um2": ("Area", "mm²", 1e-6, 3),
    "energy_pj_per_token": ("Energy a token", "µJ", 1e-6, 3),
    "latency_s_per_token": ("Latency a token", "ms", 1e3, 3),
    "weight_bytes": ("Weights", "KiB", 1 / 1024, 1),
}
"""cost -> column head, unit, factor from the quantity's own unit, decimals"""


def escaped(text: str) -> str:
    r"""Return a text as LaTeX prints it.

    >>> escaped("W1_A1 & 50 %")
    'W1\\_A1 \\& 50 \\%'
    """
    return "".join(_SPECIAL.get(c, c) for c in text)


def latex_tables(judged: Judged) -> str:
    """Return the front of a study and, where something was trained, its methods, as two `tabular`s."""
    parts = ["% needs \\usepackage{booktabs}", "", *_front(judged)]
    if judged.results.trains:
        parts += ["", *_methods(judged)]
    return "\n".join(parts) + "\n"


def _front(judged: Judged) -> list[str]:
    front = judged.front()
    metric = judged.results.metric if judged.results.trains else None
    shown = [
        q for q in judged.quantities.values() if q.key in UNITS and any(q.read(p) for p in front)
    ]
    heads = [f"{UNITS[q.key][0]} ({_unit(q)})" for q in shown]
    lines = [
        [
            escaped(p.student),
            escaped(p.machine),
            *([] if p.score is None else [_with_interval(p.metric, p.score)]),
            *(_bar(q, p) for q in shown),
        ]
        for p in front[:MOST_POINTS]
    ]
    names = [judged.quantities[o].name.lower() for o in judged.objectives]
    about = ", ".join(names) if metric is None else f"{metric.name} against {names[0]}"
    score = [] if metric is None else [escaped(metric.head())]
    several = len(judged.results.plan.study["seeds"]) > 1
    spread = "with its 95 % t interval over seeds" if several else "of one seed"
    score_text = "" if metric is None else f"; {metric.name} {spread}"
    left_out = len(front) - len(lines)
    return [
        f"% The front of {about}: nominal values, [5, 95] % of the joint draws{score_text}.",
        *([f"% The {left_out} dearest points of the front are left out."] if left_out > 0 else []),
        *_tabular("ll" + "r" * len(score + heads), ["Model", "Machine", *score, *heads], lines),
    ]


def _unit(quantity: Quantity) -> str:
    unit = UNITS[quantity.key][1]
    return unit if unit.startswith("\\") else escaped(unit)


def _bar(quantity: Quantity, point: Point) -> str:
    bar = quantity.read(point)
    if bar is None:
        return "--"
    _, _, factor, digits = UNITS[quantity.key]
    text = f"{bar.nominal * factor:.{digits}f}"
    if bar.low == bar.high:
        return text
    return f"{text} [{bar.low * factor:.{digits}f}, {bar.high * factor:.{digits}f}]"


def _methods(judged: Judged) -> list[str]:
    results = judged.results
    metric = results.metric
    lines = []
    for part in results.plan.study["students"]:
        ours = rows_by_seed(results, part["name"])
        against = ["--", "--"]
        control = part.get("control")
        theirs = rows_by_seed(results, control) if control else {}
        effect = gain_effect(metric, ours, theirs)
        if effect is not None:
            against = [escaped(control), _difference(metric, effect.difference)]
        mean = _with_interval(metric, metric.mean(scores_of(ours))) if ours else "--"
        lines.append([escaped(part["name"]), escaped(part["recipe"]["name"]), mean, *against])
    return [
        f"% Methods: mean {metric.name} over seeds with its 95 % t interval; mean paired difference to the control in {metric.difference_words}.",
        *_tabular(
            "lllll",
            [
                "Method",
                "Recipe",
                escaped(metric.head()),
                "Control",
                f"Difference ({escaped('%' if metric.relative else 'pp')})",
            ],
            lines,
        ),
    ]


def _difference(metric: Metric, e: Estimate) -> str:
    text = metric.difference(e.mean)
    if e.low is not None and e.high is not None:
        text = f"{text} [{', '.join(metric.difference_ends(e.low, e.high))}]"
    return f"${text}$"  # in mathematics a minus is a minus


def _with_interval(metric: Metric, e: Estimate) -> str:
    text = metric.number(e.mean)
    if e.low is None or e.high is None:
        return text
    return f"{text} [{metric.number(e.low)}, {metric.number(e.high)}]"


def _tabular(columns: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
        *(" & ".join(line) + r" \\" for line in lines),
        r"\bottomrule",
        r"\end{tabular}",
    ]
