"""Entries with `vary`, constraints, and studies of hardware alone, to the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import hwsim
from hwsim.config.load import load_machine
from hwsim.engine.decode_cost import step_costs
from hwsim.errors import BitwrightError, ConfigError, GraphError
from hwsim.graph.serialize import load
from studies.axes import label
from studies.draws import energy_draws
from studies.executor import PlaceOptions
from studies.figures import study_figures
from studies.nodes import build_plan
from studies.quantities import judge
from studies.report import build_report
from studies.space import load_study
from studies.sweep import claim_folder, run_study
from studies.table import load_results
from studies.trial import FUNCTIONS, MODEL_FOLDER, token_of

HARDWARE = """\
schema: studies/study/1
name: edge
question: Which of these machines?
untrained:
  - {name: W1A1, recipe: bit_w1a1, model: {family: vit, config: {image_size: 8, patch_size: 4, num_hidden_layers: 1}}}
machines:
  - machine: bitserial_edge
    vary:
      arrays.main.rows: [4, 8]
      memories.weight_sram.capacity_bytes: [64KiB, 128KiB]
  - {machine: xnor_edge, name: xnor small, set: {memories.weight_sram.capacity_bytes: 32KiB}}
objectives: [energy_pj, latency_s, area_um2]
"""
TRAINED = """\
schema: studies/study/1
name: depth
question: How deep?
task: digits
teacher: {name: float32, model: {family: vit}, recipe: float, train: {steps: 3}}
students:
  - {name: TI, recipe: ti_g_w2a8, train: {steps: 2}, vary: {layers: [[0, 1], [2]], recipe.method.fraction: [0.2, 0.4]}}
  - {name: control, control: "TI layers=[2] fraction=0.4", recipe: kd_w2a8, train: {steps: 2}, vary: {train.learning_rate: [0.001]}}
seeds: [0]
machines: [toy]
"""
ALONE = TRAINED.replace('control: "TI layers=[2] fraction=0.4", ', "")


def write(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_machines_multiply_and_the_last_key_changes_fastest(tmp_path: Path) -> None:
    plan = build_plan(load_study(write(tmp_path, HARDWARE)))
    costs = plan.of_kind("cost")
    assert [node.tags["machine"] for node in costs] == [
        "bitserial_edge rows=4 capacity_bytes=64KiB",
        "bitserial_edge rows=4 capacity_bytes=128KiB",
        "bitserial_edge rows=8 capacity_bytes=64KiB",
        "bitserial_edge rows=8 capacity_bytes=128KiB",
        "xnor small",
    ]
    assert [node.tags["family"] for node in costs] == ["bitserial_edge"] * 4 + ["xnor small"]
    assert len({node.spec["machine_sha256"] for node in costs}) == 5
    assert costs[1].spec["settings"] == [
        ["arrays.main.rows", 4],
        ["memories.weight_sram.capacity_bytes", "128KiB"],
    ]


def test_students_multiply_over_recipe_training_and_layers(tmp_path: Path) -> None:
    plan = build_plan(load_study(write(tmp_path, TRAINED)))
    trained = {n.tags["student"]: n.spec["run"] for n in plan.of_kind("train")}
    assert list(trained) == [
        "float32",
        "TI layers=[0,1] fraction=0.2",
        "TI layers=[0,1] fraction=0.4",
        "TI layers=[2] fraction=0.2",
        "TI layers=[2] fraction=0.4",
        "control learning_rate=0.001",
    ]
    one = trained["TI layers=[2] fraction=0.4"]
    assert (one["layers"], one["recipe"]["method"]["fraction"]) == ([2], 0.4)
    assert trained["control learning_rate=0.001"]["train"]["learning_rate"] == 0.001
    # What the plan keeps is what was asked for, each by itself: `control` is looked up by name.
    assert [s["name"] for s in plan.study["students"]] == list(trained)[1:]


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (HARDWARE, "arrays.main.rows:", "arrays.main.rowz:", "rowz.*did you mean 'rows'"),
        (HARDWARE, "set: {", "vary: {memories.weight_sram.capacity_bytes: [1KiB]}, set: {", "set and vary must not both hold memories.weight_sram.capacity_bytes"),
        (HARDWARE, "rows: [4, 8]", "rows: [4, 4]", r"study\.yaml:9:25: .*vary\.arrays\.main\.rows: values must differ from each other; given twice: 4"),
        (HARDWARE, "rows: [4, 8]", "rows: []", r"study\.yaml:9:25: machines.*rows.*at least 1"),
        (HARDWARE, "objectives: [energy_pj, latency_s, area_um2]\n", "", "objectives must be at least two"),
        (HARDWARE, "machines:", "seeds: [0]\nmachines:", "a study of hardware has no seeds"),
        (TRAINED, "vary: {layers", "vary: {depth: [1], layers", "'TI': vary: a key must be recipe, train or layers.* not 'depth'"),
        (ALONE, "recipe.method.fraction", "recipe.method.fractoin", "fractoin.*did you mean 'fraction'"),
        (TRAINED, "seeds: [0]", "seeds: [0]\nconstraints: [{column: area_um2}]", "exactly one of at_most and at_least"),
    ],
)  # fmt: skip
def test_a_wrong_axis_is_named(tmp_path: Path, text: str, old: str, new: str, message: str) -> None:
    assert old in text
    with pytest.raises(ConfigError, match=message):
        build_plan(load_study(write(tmp_path, text.replace(old, new, 1))))


def test_a_label_has_of_a_quantity_the_number_and_of_a_key_what_tells_it_apart() -> None:
    quantity = {"value": 4, "low": 3, "high": 5, "kind": "assumed", "source": "swept"}
    assert label([("dram.energy_pj_per_bit", quantity)]) == "energy_pj_per_bit=4"
    same = [("memories.a.read_pj", 1), ("memories.b.read_pj", 2), ("clock_hz", 3)]
    assert label(same) == "a.read_pj=1 b.read_pj=2 clock_hz=3"


@pytest.mark.usefixtures("without_figures")
def test_hardware_alone_goes_to_the_report(tmp_path: Path) -> None:
    text = HARDWARE + "constraints: [{column: area_um2, at_most: 600000}]\n"
    plan = build_plan(load_study(write(tmp_path, text)))
    folder = tmp_path / "out"
    claim_folder(folder, plan, fresh=False)
    assert run_study(plan, folder, FUNCTIONS, PlaceOptions(workers=0)) == []
    results = load_results(folder)
    rows = {row.machine: row for row in results.rows}
    assert all(row.status == "ok" and row.score is None for row in rows.values())
    assert rows["xnor small"].family == "xnor small"
    four, eight = (rows[f"bitserial_edge rows={n} capacity_bytes=64KiB"] for n in (4, 8))
    assert json.loads(four.settings)["arrays.main.rows"] == 4
    assert four.latency_cycles_steady is not None
    assert eight.latency_cycles_steady is not None
    assert eight.latency_cycles_steady < four.latency_cycles_steady
    assert {row.infeasible is None for row in rows.values()} == {True, False}
    for row in rows.values():
        assert row.area_um2 is not None
        assert (row.infeasible is not None) == (row.area_um2 > 600_000)
    standing = {p.machine: s for p, s in results.judged(results.points(), "energy_pj")}
    assert {m for m, s in standing.items() if s == "infeasible"} == {
        m for m, row in rows.items() if row.infeasible
    }
    assert "costed combinations are on the front" in build_report(folder).read_text()
    # Each row is what its machine alone gives, whatever the worker costed before it.
    export = folder / "nodes" / plan.of_kind("untrained")[0].folder_name / MODEL_FOLDER
    alone = hwsim.run(
        export,
        "bitserial_edge",
        cost_only=True,
        overrides=["arrays.main.rows=8", "memories.weight_sram.capacity_bytes=64KiB"],
    )
    assert alone.result.cost.energy_pj.nominal == eight.energy_pj
    assert alone.result.cost.steady.cycles == eight.latency_cycles_steady


def test_a_device_is_the_trainings_own(tmp_path: Path) -> None:
    usual = build_plan(load_study(write(tmp_path, ALONE)))
    other = build_plan(load_study(write(tmp_path, ALONE), ["device=cuda"]))
    assert {n.spec["run"]["device"] for n in usual.of_kind("train")} == {"cpu"}
    assert {n.spec["run"]["device"] for n in other.of_kind("train")} == {"cuda"}
    assert not usual.by_id.keys() & other.by_id.keys()


@pytest.mark.usefixtures("without_figures")
def test_a_token_is_costed_where_a_study_decodes(tmp_path: Path) -> None:
    text = HARDWARE.replace("family: vit, config: {image_size: 8, patch_size: 4, num_hidden_layers: 1}", "family: gpt2, config: {n_layer: 1, n_head: 2, n_embd: 32, vocab_size: 64, n_positions: 24}")  # fmt: skip
    with pytest.raises(ConfigError, match="energy_pj_per_token needs `decode`"):
        load_study(write(tmp_path, text), ["objectives=[energy_pj_per_token, area_um2]"])
    with pytest.raises(
        ConfigError, match="constraints must be about costs where there is no accuracy"
    ):
        load_study(write(tmp_path, text), ["constraints=[{column: score, at_least: 0.9}]"])
    with pytest.raises(ConfigError, match=r"decode\.positions must differ"):
        load_study(write(tmp_path, text), ["decode={positions: [4, 4]}"])
    with pytest.raises(ConfigError, match="decode must be of a language task"):
        load_study(write(tmp_path, ALONE), ["decode={positions: [4]}"])
    decoded = load_study(
        write(tmp_path, text),
        ["decode={positions: [4, 20]}", "objectives=[energy_pj_per_token, latency_s_per_token]"],
    )
    plan = build_plan(decoded)
    assert {tuple(n.spec["positions"]) for n in plan.of_kind("cost")} == {(4, 20)}
    assert all("positions" not in n.spec for n in build_plan(load_study(write(tmp_path, text))).of_kind("cost"))  # fmt: skip
    folder = tmp_path / "out"
    claim_folder(folder, plan, fresh=False)
    assert run_study(plan, folder, FUNCTIONS, PlaceOptions(workers=0)) == []
    rows = load_results(folder).rows
    assert [r.status for r in rows] == ["ok"] * 5
    (export,) = plan.of_kind("untrained")
    graph = load(folder / "nodes" / export.folder_name / MODEL_FOLDER).graph
    row = next(r for r in rows if r.machine == "bitserial_edge rows=4 capacity_bytes=64KiB")
    machine = load_machine(
        "bitserial_edge", ["arrays.main.rows=4", "memories.weight_sram.capacity_bytes=64KiB"]
    )
    steps = step_costs(graph, machine, (4, 20))
    assert steps[0].energy_pj.nominal < steps[1].energy_pj.nominal
    assert row.latency_s_per_token == pytest.approx(np.mean([s.latency_s for s in steps]))
    assert row.energy_pj_per_token == pytest.approx(np.mean([s.energy_pj.nominal for s in steps]))
    draws = np.mean([s.ledger.draws for s in steps], axis=0)
    band = [row.energy_pj_per_token_low, row.energy_pj_per_token_high]
    assert band == pytest.approx(np.percentile(draws, (5, 95)).tolist())
    assert energy_draws([[row.energy_terms_per_token]])[0] == pytest.approx(draws)
    beyond = r"decode\.positions of the study: 24 is beyond the model, which was built for 24 tokens, positions 0 to 23"
    with pytest.raises(BitwrightError, match=beyond) as error:
        token_of(graph, machine, {"positions": [24], "mapping": "cycles"})
    assert not isinstance(error.value, GraphError)  # would count as the machine's refusal
    judged = judge(load_results(folder))
    assert judged.objectives == ["energy_pj_per_token", "latency_s_per_token"]
    assert "front_energy_per_token_latency_per_token" in study_figures(judged, None)
