"""Points that no front can hold: those that break a constraint, and those that lack a cost."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from pathlib import Path

import pytest
from points import make_point

from studies import synthetic
from studies.figures import study_figures
from studies.front import front_of
from studies.ledger import FILE_NAME
from studies.pareto import Interval
from studies.quantities import judge
from studies.report import build_report
from studies.statistics import mean_interval, share_interval
from studies.table import judged, load_results
from studies.text import answer

PLAN = "plan.json"


def edit_constraint(folder: Path, at_most: float) -> None:
    plan = json.loads((folder / PLAN).read_text())
    plan["study"]["constraints"] = [{"column": "energy_pj", "at_most": at_most, "at_least": None}]
    (folder / PLAN).write_text(json.dumps(plan))


def edit_results(folder: Path, **values: object) -> None:
    lines = [json.loads(line) for line in (folder / FILE_NAME).read_text().splitlines()]
    for line in lines:
        if line["kind"] == "cost":
            line["result"] |= values
    (folder / FILE_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.usefixtures("without_figures")
def test_where_all_break_a_constraint_the_answer_says_so(tmp_path: Path) -> None:
    folder = synthetic.make_hardware_folder(tmp_path / "s", 30)
    edit_constraint(folder, 1.0)
    results = load_results(folder)
    points = results.points()
    (text,) = answer(results, points, front_of(results, points))
    nearest = min(points, key=lambda p: p.cost("energy_pj").nominal)
    assert text.startswith("No point is on a front. 60 of 60 combinations break a constraint.")
    assert (
        f"The one of the least energy, {nearest.student} on {nearest.machine}: energy_pj " in text
    )
    assert text.endswith("> 1.")
    assert text in html.unescape(build_report(folder).read_text())
    figure = study_figures(judge(results), None)["energy_by_component"]
    assert "24 of 60 points are drawn, the first of the study" in figure.caption


def test_a_point_without_a_cost_is_not_on_the_front(tmp_path: Path) -> None:
    folder = synthetic.make_hardware_folder(tmp_path / "s", 3)
    edit_constraint(folder, 1e30)
    edit_results(folder, area_um2=None)
    results = load_results(folder)
    points = results.points()
    assert judge(results).standing == ["unjudged"] * 6
    (text,) = answer(results, points, front_of(results, points))
    assert text == "No point is on a front. Of 6 combinations nothing gives the area."


def test_a_score_against_a_cost_that_a_point_lacks() -> None:
    best, other = make_point("A", "x", {0: 0.95}, 1.0), make_point("B", "x", {0: 0.9}, 2.0)
    lacking = replace(best, costs={})
    found = dict(zip("ab", (s for _, s in judged([lacking, other], "energy_pj")), strict=True))
    assert found == {"a": "unjudged", "b": "front"}
    assert [s for _, s in judged([best, other], "energy_pj")] == ["front", "undecided"]


def test_the_same_model_on_a_dearer_machine_is_dominated_whatever_its_bar() -> None:
    terms = [("u", 2.0, 1.0)]
    cheap, near, dear = (
        make_point("A", m, {0: 0.9}, pj, terms) for m, pj in (("x", 1.0), ("y", 1.2), ("z", 9.0))
    )
    bands = {"x": (0.8, 1.5), "y": (1.0, 1.8), "z": (8.0, 12.0)}
    points = [
        replace(
            p,
            costs={
                "energy_pj": Interval(
                    bands[p.machine][0], p.cost("energy_pj").nominal, bands[p.machine][1]
                )
            },
        )
        for p in (cheap, near, dear)
    ]
    assert [s for _, s in judged(points, "energy_pj")] == ["front", "undecided", "dominated"]
    # another student of the same score may be the better one on another test set
    other = replace(points[2], student="B")
    assert [s for _, s in judged([*points[:2], other], "energy_pj")][2] == "undecided"


def test_one_seed_has_the_bar_of_its_test_rows_where_they_are_counted() -> None:
    point = make_point("A", "x", {0: 0.9}, 1.0)
    low, high = share_interval(90, 100)
    assert point.score_bar == Interval(low, 0.9, high)
    assert make_point("A", "x", {0: 0.9}, 1.0, total=None).score_bar == Interval(0.9, 0.9, 0.9)
    several = make_point("A", "x", {0: 0.9, 1: 0.91}, 1.0).score_bar
    assert several.low == mean_interval([0.9, 0.91]).low
