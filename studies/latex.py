"""The tables of a study for a paper: LaTeX with the rules of the `booktabs` package, nothing else is needed."""

from __future__ import annotations

from collections.abc import Sequence

from studies.quantities import QUANTITIES, Judged, Quantity
from studies.statistics import Estimate, mean_interval, paired_effect
from studies.table import Point
from studies.tables import accuracies

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
    "accuracy": ("Accuracy", r"\%", 100.0, 1),
    "energy_pj": ("Energy", "µJ", 1e-6, 3),
    "latency_s": ("Latency", "ms", 1e3, 3),
    "area_um2": ("Area", "mm²", 1e-6, 3),
    "weight_bytes": ("Weights", "KiB", 1 / 1024, 1),
}
"""quantity -> column head, unit, factor from the quantity's own unit, decimals"""


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
    shown = [q for key, q in QUANTITIES.items() if key in UNITS and any(q.read(p) for p in front)]
    heads = [f"{UNITS[q.key][0]} ({_unit(q)})" for q in shown]
    lines = [
        [escaped(p.student), escaped(p.machine), *(_bar(q, p) for q in shown)]
        for p in front[:MOST_POINTS]
    ]
    names = [QUANTITIES[o].name.lower() for o in judged.objectives]
    about = f"accuracy against {names[0]}" if judged.results.trains else ", ".join(names)
    left_out = len(front) - len(lines)
    return [
        f"% The front of {about}: nominal values, [5, 95] % of the joint draws; accuracy with its 95 % t interval over seeds.",
        *([f"% The {left_out} dearest points of the front are left out."] if left_out > 0 else []),
        *_tabular("ll" + "r" * len(shown), ["Model", "Machine", *heads], lines),
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
    lines = []
    for part in results.plan.study["students"]:
        ours = accuracies(results, part["name"])
        against = ["--", "--"]
        control = part.get("control")
        theirs = accuracies(results, control) if control else {}
        if ours.keys() & theirs.keys():
            against = [escaped(control), _signed(paired_effect(ours, theirs).difference)]
        mean = _mean(mean_interval(list(ours.values()), bounds=(0.0, 1.0))) if ours else "--"
        lines.append([escaped(part["name"]), escaped(part["recipe"]["name"]), mean, *against])
    return [
        "% Methods: mean accuracy over seeds with its 95 % t interval; mean paired difference to the control in percentage points.",
        *_tabular(
            "lllll", ["Method", "Recipe", r"Accuracy (\%)", "Control", "Difference (pp)"], lines
        ),
    ]


def _mean(e: Estimate) -> str:
    return _with_interval(e, "")


def _signed(e: Estimate) -> str:
    return f"${_with_interval(e, '+')}$"  # in mathematics a minus is a minus


def _with_interval(e: Estimate, sign: str) -> str:
    text = f"{100 * e.mean:{sign}.1f}"
    if e.low is None or e.high is None:
        return text
    return f"{text} [{100 * e.low:{sign}.1f}, {100 * e.high:{sign}.1f}]"


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
