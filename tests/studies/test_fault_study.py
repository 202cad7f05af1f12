"""Bit errors as an axis of a study: nodes, rows, curves, the report and the record."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from hwsim.errors import ConfigError
from hwsim.report.figure import render_files
from studies.executor import PlaceOptions
from studies.fault_curves import fault_curves, fault_rows, faults_figure, tolerated_rate
from studies.ledger import Attempt
from studies.nodes import build_plan
from studies.plan import Plan
from studies.record import load_results as load_records
from studies.record import results_page, study
from studies.report import build_report
from studies.space import load_study
from studies.sweep import claim_folder, run_study
from studies.table import load_results
from studies.text import SPACE
from studies.trial import FUNCTIONS

STUDY = """\
schema: studies/study/1
name: errors
question: Which bits matter?
task: digits
teacher:
  name: float32
  model: {family: vit, config: {patch_size: 4, hidden_size: 12, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 12}}
  recipe: float
  train: {steps: 1}
students:
  - {name: W1A1, recipe: bit_w1a1, train: {steps: 1}}
seeds: [0]
machines: [int8_edge, xnor_edge]
samples: 8
faults: {where: [weight, table, "weight:*:TERNARY"], rates: [0.001, 1], draws: 2}
"""


def write(folder: Path, text: str = STUDY) -> Path:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, run: trained for a step, exported, damaged, reported."""
    made = tmp_path_factory.mktemp("faults")
    plan = build_plan(load_study(write(made), ["machines=[int8_edge]"]))
    claim_folder(made / "out", plan, fresh=False)
    assert run_study(plan, made / "out", FUNCTIONS, PlaceOptions(workers=0)) == []
    build_report(made / "out")
    return made / "out"


def test_a_node_for_each_place_and_draw_on_the_first_machine(tmp_path: Path) -> None:
    base = build_plan(load_study(write(tmp_path)))
    nodes = base.of_kind("fault")
    assert [(n.tags["place"], n.tags["draw"]) for n in nodes] == [
        (place, draw) for place in ("weight", "table", "weight:*:TERNARY") for draw in (0, 1)
    ]
    assert {n.tags["machine"] for n in nodes} == {"int8_edge"}
    assert {n.parents for n in nodes} == {(base.of_kind("export")[0].id,)}
    seeds = {n.tags["draw"]: n.spec["seed"] for n in nodes}
    assert seeds[0] != seeds[1]

    def added(old: str, new: str) -> set[str]:
        assert old in STUDY
        other = build_plan(load_study(write(tmp_path, STUDY.replace(old, new))))
        return {n.kind for n in other.nodes if n.id not in base.by_id}

    assert added("draws: 2", "draws: 3") == {"fault"}
    assert added("[weight, table,", "[weight, table, S,") == {"fault"}
    assert added("faults: {", "#") == set()
    two = build_plan(load_study(write(tmp_path, STUDY.replace("seeds: [0]", "seeds: [0, 1]"))))
    drawn = [n.spec["seed"] for n in two.of_kind("fault") if n.tags["place"] == "weight"]
    assert len(set(drawn)) == 4  # no two models share their flips


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[weight, table,", "[weights, table,", r"study\.yaml:15.*did you mean 'weight'"),
        ("[weight, table,", "[weight, weight,", r"where must differ; given twice: weight"),
        ("[0.001, 1]", "[0, 1]", r"study\.yaml:15:.*greater than 0"),
        ("[0.001, 1]", "[0.001, 1.5]", r"study\.yaml:15:"),
        ("draws: 2", "draws: 0", r"study\.yaml:15:"),
        ("draws: 2", "draw: 2", r"study\.yaml:15:.*draws"),
        ("task: digits", "task: {name: lm}", r"faults need a task with an accuracy"),
    ],
)
def test_faults_have_their_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(write(tmp_path, STUDY.replace(old, new)))


def test_rows_of_a_run(folder: Path) -> None:
    results = load_results(folder)
    rows = fault_rows(results.plan, results.attempts)
    by_place = {p: [r for r in rows if r.place == p] for p in {r.place for r in rows}}
    for place in ("weight", "table"):
        assert [(r.draw, r.rate) for r in by_place[place]] == [
            (0, 0.001),
            (0, 1),
            (1, 0.001),
            (1, 1),
        ]
        for row in by_place[place]:
            assert (row.status, row.metric, row.total) == ("ok", "accuracy", 8)
            assert row.value == row.correct / 8  # type: ignore[operator]
        rare, all_ = by_place[place][:2]
        assert rare.bits == all_.bits == all_.flipped
        assert rare.flipped < rare.bits // 100  # type: ignore[operator]
    assert {r.status for r in by_place["weight:*:TERNARY"]} == {"refused"}
    assert "its formats are BIPOLAR, INT8" in (by_place["weight:*:TERNARY"][0].reason or "")
    assert [r.value for r in by_place["weight"][1::2]] == [
        by_place["weight"][1].value
    ] * 2  # rate 1


def test_files_and_figure_of_a_report(folder: Path) -> None:
    with (folder / "figures" / "faults.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 4 + 2
    curves = json.loads((folder / "faults.json").read_text())
    assert [c["place"] for c in curves] == ["weight", "table"]
    assert (folder / "figures" / "faults.svg").is_file()
    html = (folder / "report.html").read_text()
    assert "Accuracy against bit errors</h2>" in html
    assert "W1A1, errors in weight" in html
    results = load_results(folder)
    ran = [a.result for a in results.attempts.values() if a.kind == "evaluate" and a.result]
    assert {r["accuracy"]["total"] for r in ran} == {8}
    assert {c["undamaged"] for c in curves} == {r["accuracy"]["value"] for r in ran}
    assert {r.total for r in results.rows if r.status == "ok"} == {540}  # a score is of all rows


def test_the_record_of_a_run(folder: Path, tmp_path: Path) -> None:
    study(folder, tmp_path / "errors.json")
    (record,) = load_records(tmp_path)
    assert record["faults"]["draws"] == 2
    assert (record["samples"], record["machine"]) == (8, "int8_edge")
    (student,) = record["students"][1:]
    assert all(
        "refused" not in m for c in student["by_seed"].values() for m in c["machines"].values()
    )
    page = results_page([record]).replace(SPACE, " ")
    assert "| errors in | W1A1 |" in page
    assert "| `table` |" in page
    assert "](img/errors.svg)" in page


def damaged(plan: Plan, accuracy: dict[tuple[str, float], list[float]]) -> dict[str, Attempt]:
    """Attempts with these accuracies a place and rate, one a draw."""
    attempts = {}

    def add(node: Any, result: dict[str, Any]) -> None:
        attempts[node.id] = Attempt(
            node.id, 1, "ok", node.kind, node.label, node.spec, node.parents, result, None, {}
        )

    for node in plan.of_kind("evaluate"):
        add(node, {"accuracy": {"value": 0.9 if node.tags["machine"] == "int8_edge" else 0.1}})
    for node in plan.of_kind("fault"):
        place, draw = str(node.tags["place"]), int(node.tags["draw"])
        rows = [
            {
                "rate": rate,
                "value": values[draw],
                "correct": None,
                "total": 8,
                "bits": 9,
                "flipped": draw,
            }
            for (p, rate), values in accuracy.items()
            if p == place
        ]
        add(node, {"metric": "accuracy", "rows": rows})
    return attempts


def test_a_curve_is_mean_interval_and_range_of_its_draws(tmp_path: Path) -> None:
    plan = build_plan(load_study(write(tmp_path)))
    values = {
        ("weight", 0.1): [0.5, 0.7],
        ("weight", 0.001): [0.9, 0.89],
        ("weight", 0.01): [0.89, 0.9],
        ("table", 0.001): [0.8, 0.8],
    }
    weight, table = fault_curves(plan, damaged(plan, values))[:2]
    assert weight["undamaged"] == 0.9  # of the machine that is damaged
    assert [p["rate"] for p in weight["points"]] == [0.001, 0.01, 0.1]
    last = weight["points"][-1]
    assert last["mean"] == pytest.approx(0.6)
    assert (last["lowest"], last["highest"], last["draws"], last["flipped"]) == (0.5, 0.7, 2, 0.5)
    assert (last["low"], last["high"]) == (0.0, 1.0)  # t of one degree of freedom, cut to a share
    assert tolerated_rate(weight) == 0.01
    assert tolerated_rate(table) is None
    assert tolerated_rate(weight, loss=0.001) is None


def test_a_panel_for_each_place(tmp_path: Path) -> None:
    plan = build_plan(load_study(write(tmp_path)))
    values = {(p, r): [0.5, 0.6] for p in ("weight", "table") for r in (0.01, 0.1)}
    curves = [c for c in fault_curves(plan, damaged(plan, values)) if c["points"]]
    painter = faults_figure(curves, ["other", "W1A1"])
    (svg,) = render_files(painter, tmp_path / "faults", ["svg"])
    text = svg.read_text()
    assert text.count("Bit error rate") == 2
    assert ">weight<" in text
    assert ">table<" in text
