"""Study files and the command: names, places of faults, folders, exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import standins
import typer

from hwsim.errors import ConfigError
from studies import sweep
from studies.inputs import check_inputs
from studies.ledger import Ledger
from studies.nodes import build_plan
from studies.plan import SOURCES, Plan, load_plan
from studies.space import find_study, load_study, read_study, shipped_studies

STUDY = """\
schema: studies/study/1
name: tiny
question: Does it work?
task: digits
teacher:
  name: float32
  model: {family: vit}
  recipe: float
  train: {steps: 2}
students:
  - {name: W8A8, recipe: w8a8, train: {steps: 2}}
  - {name: W1A1, recipe: bit_w1a1, train: {steps: 3}}
seeds: [0, 1]
machines: [toy, int8_edge]
"""


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(STUDY)
    return path


def test_plan_shares_what_can_be_shared(study_file: Path) -> None:
    plan = build_plan(load_study(study_file))
    assert {k: len(plan.of_kind(k)) for k in ("train", "export", "evaluate")} == {
        "train": 2 + 4,
        "export": 4,
        "evaluate": 8,
    }
    assert len(plan.by_id) == len(plan.nodes)
    seen: set[str] = set()
    for node in plan.nodes:
        assert seen.issuperset(node.parents)
        seen.add(node.id)


def test_identity_follows_content_and_nothing_else(study_file: Path) -> None:
    base = build_plan(load_study(study_file))

    def changed(old: str, new: str) -> set[str]:
        assert old in STUDY
        study_file.write_text(STUDY.replace(old, new))
        other = build_plan(load_study(study_file))
        ids = base.by_id.keys()
        return {n.label for n in other.nodes if n.id not in ids}

    assert changed("Does it work?", "Is it so?") == set()
    assert changed("seeds: [0, 1]", "seeds: [1]") == set()
    assert changed("machines: [toy, int8_edge]", "machines: [toy]") == set()
    assert changed("[toy, int8_edge]", "[toy, int8_edge, xnor_edge]") == {
        f"{s} seed {n} on xnor_edge" for s in ("W8A8", "W1A1") for n in (0, 1)
    }
    one_student = changed("recipe: w8a8, train: {steps: 2}", "recipe: w8a8, train: {steps: 4}")
    assert one_student
    assert all("W8A8" in label for label in one_student)
    assert len(changed("  train: {steps: 2}\n", "  train: {steps: 9}\n")) == len(base.nodes)


def test_overrides_reach_every_key(study_file: Path) -> None:
    study = load_study(study_file, ["seeds=[7]", "students.0.train.steps=5", "samples=16"])
    assert study.seeds == (7,)
    assert study.students[0].train.steps == 5
    assert study.samples == 16


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "recipe: w8a8",
            "recipe: w8a9",
            r"tiny\.yaml:11:26: students\.0\.recipe: .*w8a9.*did you mean 'w8a8'",
        ),
        (
            "int8_edge]",
            "int8_egde]",
            r"tiny\.yaml:14:17: machines\.1: .*int8_egde.*did you mean 'int8_edge'",
        ),
        (
            "int8_edge]",
            "{machine: int8_egde, set: {clock_hz: 1}}]",
            r"tiny\.yaml:14:27: machines\.1\.machine: .*int8_egde",
        ),
        (
            "recipe: w8a8,",
            "recipe: w8a8, vary: {recipe: [w8a8, w8a9]},",
            r"tiny\.yaml:11:47: students\.0\.vary\.recipe: .*w8a9",
        ),
        ("seeds: [0, 1]", "seed: [0, 1]", r"tiny\.yaml:13:1: seed.*seeds"),
        ("seeds: [0, 1]", "seeds: [0, one]", r"tiny\.yaml:13:12: seeds\.1: .*whole number"),
        ("seeds: [0, 1]", "seeds: [0, 0]", r"tiny\.yaml:.*seeds must differ from each other.*0"),
        ("seeds: [0, 1]", "seeds: []", r"tiny\.yaml:13:8: seeds: "),
        ("name: tiny", "name: Tiny Study", r"tiny\.yaml:2:7: name: "),
        ("  model: {family: vit}\n", "", r"tiny\.yaml:.*teacher\.model must be given"),
        ("{steps: 3}", "{steps: 3, epochs: 1}", r"tiny\.yaml:12:.*exactly one of steps and epochs"),
        ("task: digits\n", "", r"tiny\.yaml:.*: task must be given"),
        (
            "{name: W8A8, ",
            "{name: W8A8, teacher: W1A1, ",
            r"tiny.*teacher of 'W8A8' must be a student above it \(there is none\), not 'W1A1'",
        ),
        (
            "{name: W8A8, ",
            "{name: W8A8, control: W8A8, ",
            r"tiny.*the control of 'W8A8' must be another student.*, not 'W8A8'",
        ),
        (
            "{name: W8A8, recipe: w8a8, train: {steps: 2}}",
            "{name: P, recipe: ptq_w8a8, train: {steps: 0, learning_rate: 0.1}}",
            r"train\.learning_rate: recipe 'ptq_w8a8' trains nothing: leave it out",
        ),
        (
            "{name: W8A8, recipe: w8a8, train: {steps: 2}}",
            "{name: P, recipe: ptq_w8a8, train: {steps: 2}}",
            r"recipe 'ptq_w8a8' trains nothing: steps must be 0, not 2",
        ),
        (
            "task: digits",
            "task: {text: a, label: b, train: t.tsv, dev: d.tsv, metric: accuracy, labels: [x, y, x]}",
            r"tiny.*labels must differ from each other; given twice: x",
        ),
        (
            "recipe: w8a8,",
            "recipe: w8a8, recipe_set: [objektive=null],",
            r"objektive.*did you mean 'objective'",
        ),
        (
            "  recipe: float\n",
            "  recipe: float\n  layers: [0]\n",
            "teacher must have no teacher, layers, control or vary",
        ),
    ],
)
def test_faults_have_their_place(study_file: Path, old: str, new: str, message: str) -> None:
    assert old in STUDY
    study_file.write_text(STUDY.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        placed_plan(study_file)


def placed_plan(study_file: Path) -> Plan:
    study, document = read_study(study_file)
    return build_plan(study, document=document)


def test_a_student_learns_from_another_and_keeps_some_layers(study_file: Path) -> None:
    chained = STUDY.replace("{name: W1A1,", "{name: W1A1, teacher: W8A8, layers: [0, 2],")
    study_file.write_text(chained)
    plan = build_plan(load_study(study_file))
    trainings = {node.label: node for node in plan.of_kind("train")}
    for seed in (0, 1):
        student = trainings[f"W1A1 seed {seed}"]
        assert student.parents == (trainings[f"W8A8 seed {seed}"].id,)
        assert student.spec["run"]["layers"] == [0, 2]
        assert trainings[f"W8A8 seed {seed}"].parents == (trainings[f"float32 seed {seed}"].id,)


def test_layers_that_the_teacher_has_not_are_found_before_it_is_trained(study_file: Path) -> None:
    def faults(old: str, new: str) -> list[str]:
        study_file.write_text(STUDY.replace(old, new))
        study, document = read_study(study_file, [])
        with pytest.raises(ConfigError) as error:
            check_inputs(study, document)
        return str(error.value).splitlines()

    (fault,) = faults("{name: W8A8, ", "{name: W8A8, layers: [0, 3], ")
    assert re.search(
        r"tiny\.yaml:11:.*layers: must be .* from 0 to 2 .*has 3 layers.*\[0, 3\]", fault
    )
    # of the student that it learns from, and of each that `vary` makes
    chain = "{name: W8A8, layers: [0, 1], "
    two = "{name: W1A1, teacher: W8A8, vary: {layers: [[0], [1, 0], [2]]}, "
    study = STUDY.replace("{name: W8A8, ", chain)
    study_file.write_text(study)
    check_inputs(*read_study(study_file, []))
    study_file.write_text(study.replace("{name: W1A1, ", two))
    with pytest.raises(ConfigError) as error:
        check_inputs(*read_study(study_file, []))
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert all("has 2 layers" in line and ":12:" in line for line in lines)


def test_changes_of_a_recipe_are_part_of_the_identity(study_file: Path) -> None:
    base = build_plan(load_study(study_file))
    study_file.write_text(
        STUDY.replace("recipe: w8a8,", 'recipe: w8a8, recipe_set: ["freeze_ranges=0.5"],')
    )
    other = build_plan(load_study(study_file))
    changed = {n.label for n in other.nodes if n.id not in base.by_id}
    assert changed
    assert all("W8A8" in label for label in changed)
    run = next(n for n in other.nodes if n.label == "W8A8 seed 0").spec["run"]
    assert run["recipe"]["freeze_ranges"] == 0.5


def test_all_unknown_names_are_told_at_once(study_file: Path) -> None:
    mine = study_file.with_name("mine.yaml")
    mine.write_text("schema: hwsim/accelerator/1\nextends: toy\nname: mine\nclok_hz: 1\n")
    study_file.write_text(STUDY.replace("w8a8", "w8a9").replace("[toy,", f"[toi, {mine},"))
    with pytest.raises(ConfigError) as error:
        placed_plan(study_file)
    recipe, name, key = error.value.faults
    assert recipe.startswith(f"{study_file}:11:26: students.0.recipe: recipe must be ")
    assert name.startswith(f"{study_file}:14:12: machines.0: machine must be ")
    assert key.startswith(f"{mine}:4:1: clok_hz: ")
    with pytest.raises(ConfigError, match=r"^students\.0\.recipe: recipe must be "):
        build_plan(load_study(study_file))  # of a study that no file is known of


def test_shipped_studies_are_valid() -> None:
    assert "digits" in shipped_studies()
    for path in shipped_studies().values():
        plan = build_plan(load_study(path))
        assert plan.study["name"] == path.stem
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        find_study("digit")


@pytest.mark.parametrize("name", shipped_studies())
def test_a_shipped_study_can_be_looked_at_without_its_data(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.delenv("BITWRIGHT_DATA", raising=False)
    with pytest.raises(typer.Exit) as exit_:
        sweep.main(name, tmp_path / "out", 0, dry_run=True)
    assert exit_.value.exit_code == 0
    assert f"study {name} in " in capsys.readouterr().out


@pytest.mark.parametrize("data", [None, "nowhere", "."])
def test_data_that_are_not_there_end_a_sweep_at_once(
    data: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.delenv("BITWRIGHT_DATA", raising=False)
    if data is not None:
        monkeypatch.setenv("BITWRIGHT_DATA", str(tmp_path / data))
    assert command(find_study("sst2_methods"), tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("task 'sst2': ")
    assert "BITWRIGHT_DATA" in error
    assert not (tmp_path / "out").exists()


def use_standins(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    """Let the command run a stand-in plan."""
    monkeypatch.setattr("studies.nodes.build_plan", lambda *_: plan)
    monkeypatch.setattr("studies.trial.FUNCTIONS", standins.FUNCTIONS)
    monkeypatch.setattr("studies.report.build_report", lambda folder: folder / "report.html")
    monkeypatch.setattr("studies.ending.last_word", lambda folder: "")


def command(study_file: Path, out: Path, **options: Any) -> int:
    with pytest.raises(typer.Exit) as exit_:
        sweep.main(str(study_file), out, 0, **options)
    return exit_.value.exit_code


def test_sweep_resumes_refuses_another_study_and_moves_the_old_one_aside(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out, counter = tmp_path / "out", tmp_path / "count"
    plan = standins.make_plan(counter)
    use_standins(monkeypatch, plan)
    assert command(study_file, out) == 0
    first = counter.stat().st_size
    assert "teacher: ok in" in capsys.readouterr().out
    assert command(study_file, out) == 0
    assert counter.stat().st_size == first
    assert load_plan(out) == plan

    other = Plan({"name": "another"}, plan.nodes)
    use_standins(monkeypatch, other)
    assert command(study_file, out) == 2
    err = capsys.readouterr().err
    assert "holds another study, 'stand-in', not 'another'" in err
    assert "--fresh" in err

    assert command(study_file, out, fresh=True) == 0
    assert counter.stat().st_size == 2 * first
    (aside,) = tmp_path.glob("out.*")
    assert load_plan(aside).study == plan.study


def changed_plan(counter: Path, names: tuple[str, ...], **study: Any) -> Plan:
    return Plan({"name": "stand-in", **study}, standins.make_plan(counter, names).nodes)


def test_a_changed_study_goes_on_in_its_folder_and_repeats_nothing(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out, counter = tmp_path / "out", tmp_path / "count"
    first = {"question": "So?", "machine_sha256": {"x": "old"}}
    use_standins(monkeypatch, changed_plan(counter, ("a",), **first))
    assert command(study_file, out) == 0
    assert "continues" not in capsys.readouterr().out
    done = counter.stat().st_size
    assert done == 5  # 6 nodes, of which one is refused before it counts

    second = {"question": "Is it so?", "machine_sha256": {"x": "new"}, "seeds": [0, 1]}
    plan = changed_plan(counter, ("a", "bb"), **second)
    use_standins(monkeypatch, plan)
    said = "continues stand-in: changed machines, question, seeds; 6 of 11 nodes are done\n"
    assert command(study_file, out, dry_run=True) == 0
    assert said in capsys.readouterr().out
    assert load_plan(out).study["question"] == "So?"  # a dry run writes nothing
    assert command(study_file, out) == 0
    assert said in capsys.readouterr().out
    assert counter.stat().st_size == done + 4
    assert load_plan(out) == plan

    # back again: what the first plan had is all there, and the plan shows nothing else
    use_standins(monkeypatch, changed_plan(counter, ("a",), **first))
    assert command(study_file, out) == 0
    assert counter.stat().st_size == done + 4
    assert len(load_plan(out).nodes) == 6


def test_a_changed_study_does_not_replace_the_plan_of_a_sweep_that_runs(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out, counter = tmp_path / "out", tmp_path / "count"
    held = changed_plan(counter, ("a",))
    use_standins(monkeypatch, held)
    assert command(study_file, out) == 0
    use_standins(monkeypatch, changed_plan(counter, ("a", "bb")))
    with Ledger(out):
        assert command(study_file, out) == 2
    assert "another sweep is running in this folder" in capsys.readouterr().err
    assert load_plan(out) == held


@pytest.mark.parametrize(
    ("held", "wanted", "keys"),
    [
        ({"search": {"seed": 0}}, {"search": {"seed": 1}}, "search"),
        ({"search": {"seed": 0}}, {}, "search"),
        ({}, {"search": {"seed": 0}}, "search"),
        ({"search": {}, "objectives": [1]}, {"search": {}, "objectives": [2]}, "objectives"),
    ],
)
def test_a_search_does_not_go_on_as_another_one(
    held: dict[str, Any], wanted: dict[str, Any], keys: str, tmp_path: Path
) -> None:
    sweep.claim_folder(tmp_path / "out", Plan({"name": "s", **held}, ()), fresh=False)
    with pytest.raises(ConfigError, match=rf"cannot go on as another one: changed {keys}; give "):
        sweep.claim_folder(tmp_path / "out", Plan({"name": "s", **wanted}, ()), fresh=False)


def test_an_edited_machine_repeats_its_own_evaluations_alone(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    made: list[str] = []

    def noted(call: Any) -> dict[str, Any]:
        made.append(call.folder.name)
        return {}

    monkeypatch.setattr("studies.trial.FUNCTIONS", dict.fromkeys(SOURCES, noted))
    monkeypatch.setattr("studies.report.build_report", lambda folder: folder / "report.html")
    monkeypatch.setattr("studies.ending.last_word", lambda folder: "")
    machine, out = tmp_path / "mine.yaml", tmp_path / "out"
    study_file.write_text(STUDY.replace("[toy, int8_edge]", f"[toy, {machine}]"))
    text = "schema: hwsim/accelerator/1\nextends: toy\nname: mine\ndescription: {}\n"
    machine.write_text(text.format("the first"))
    assert command(study_file, out) == 0
    assert len(made) == 6 + 4 + 8
    made.clear()
    machine.write_text(text.format("the second"))
    assert command(study_file, out) == 0
    assert "continues tiny: changed machines; 14 of 18 nodes are done" in capsys.readouterr().out
    assert len(made) == 4
    assert all("-on-mine-" in folder for folder in made)


def test_a_folder_with_other_things_is_not_touched(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    use_standins(monkeypatch, standins.make_plan(tmp_path / "count"))
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").touch()
    assert command(study_file, out) == 2
    assert "not empty and not a study" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["chapter1.tex"]


def test_failures_end_in_exit_code_1_with_a_list(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    use_standins(monkeypatch, standins.make_plan(tmp_path / "count", fail=True))
    assert command(study_file, tmp_path / "out") == 1
    output = capsys.readouterr()
    assert "failed: student bb" in output.err
    assert "\n4 further nodes wait for student bb\n" in output.err
    assert output.err.count("\n") == 2
    assert "ValueError: loss is nan at step 7" in output.out
    assert "report: " in output.out


def test_where_nodes_run_is_checked_before_the_folder_is_touched(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    use_standins(monkeypatch, standins.make_plan(tmp_path / "count", fail=True))
    out = tmp_path / "out"
    assert command(study_file, out, executor="dask") == 2
    assert "did you mean 'dask-local'?" in capsys.readouterr().err
    assert command(study_file, out, timeout=5.0) == 2  # in this very process nothing can be stopped
    assert not out.exists()
    assert command(study_file, out, retries=2) == 1
    text = capsys.readouterr().out
    assert text.count("student bb: failed") == 3
    assert text.count("; will be tried again") == 2
    assert "[7/11]" in text  # an attempt that is made again is no node that has ended
    assert "[8/11]" not in text


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    plan = standins.make_plan(tmp_path / "count")
    use_standins(monkeypatch, plan)

    def interrupted(call: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr("studies.trial.FUNCTIONS", {**standins.FUNCTIONS, "export": interrupted})
    assert command(study_file, tmp_path / "out") == 130
    assert (
        "stopped: 3 of 11 nodes are finished and kept; the same command" in capsys.readouterr().err
    )
    use_standins(monkeypatch, plan)
    assert command(study_file, tmp_path / "out") == 0  # the lock was given back, too


def test_dry_run_prints_the_plan_and_writes_nothing(
    study_file: Path, tmp_path: Path, capsys: Any
) -> None:
    assert command(study_file, tmp_path / "out", dry_run=True) == 0
    text = capsys.readouterr().out
    assert "train        6 nodes, 6 to do" in text
    assert "W1A1 seed 1 on int8_edge" in text
    assert not (tmp_path / "out").exists()


def test_help_and_plans_import_no_torch() -> None:
    code = (
        "import sys, studies.nodes, studies.sweep, studies.report, studies.space\n"
        "studies.nodes.build_plan(studies.space.load_study(studies.space.find_study('digits')))\n"
        "assert not {'torch', 'transformers', 'numba'} & sys.modules.keys(), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_training_ids_cover_every_module_that_a_training_imports() -> None:
    code = (
        "import sys, qat.loop\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in ('hwsim', 'studies')))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300
    )
    root = Path(sweep.__file__).parents[1]
    modules = {Path(f).relative_to(root).as_posix() for f in found.stdout.split()}
    # an empty __init__ decides nothing
    modules = {m for m in modules if not m.endswith("__init__.py")}
    covered = {m for m in modules for entry in SOURCES["train"] if m.startswith(entry)}
    assert modules - covered == set()
