"""The loop: a run that was stopped and resumed equals one that never was, bit for bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import SMALL_VIT, digits_run

from hwsim.errors import CheckpointError, ConfigError
from qat import checkpoint
from qat.loop import TrainingDiverged, train
from qat.objective import Objective
from qat.recipe import load_recipe
from qat.result import RunResult
from qat.state import newest_state


class Killed(Exception):
    pass


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the objective raise at a step, as a signal would in the middle of a run."""
    whole = Objective.__call__

    def call(self: Objective, batch: Any, at: int, *portion: Any, **rows: Any) -> Any:
        if at == step:
            raise Killed
        return whole(self, batch, at, *portion, **rows)

    monkeypatch.setattr(Objective, "__call__", call)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train(digits_run(model={"family": "vit", "config": SMALL_VIT}, train={"steps": 30}), folder)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The run that `digits_run()` describes."""
    return train(digits_run(), tmp_path_factory.mktemp("finished") / "run")


def outcome(folder: Path) -> dict[str, Any]:
    result = json.loads((folder / "result.json").read_text())
    del result["wall_s"], result["git_revision"]  # the tree may be committed to meanwhile
    return {
        "result": result,
        "log": (folder / "train.jsonl").read_text(),
        "model": (folder / "model.safetensors").read_bytes(),
    }


@pytest.mark.parametrize("recipe", ["float", "ti_g_w2a8", "bit_w1a1"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    recipe: str, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {} if recipe == "float" else {"teacher": str(teacher)}
    config = digits_run(
        recipe, **changes, train={"steps": 10, "evaluate_every": 3, "accumulate": 2}
    )
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patched:
        kill_at(patched, 7)
        with pytest.raises(Killed):
            train(config, tmp_path / "stopped")
    state = newest_state(tmp_path / "stopped")
    assert state is not None
    assert state.name == "state-00000006"
    torch.manual_seed(12345)  # the generators of another process are elsewhere
    train(config, tmp_path / "stopped")
    stopped, whole = outcome(tmp_path / "stopped"), outcome(tmp_path / "whole")
    for part in whole:
        assert stopped[part] == whole[part], part
    assert newest_state(tmp_path / "stopped") is None


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    finished: RunResult, tmp_path: Path
) -> None:
    model = outcome(finished.folder)["model"]
    assert outcome(train(digits_run(seed=0), tmp_path / "same").folder)["model"] == model
    assert outcome(train(digits_run(seed=1), tmp_path / "other").folder)["model"] != model


def test_a_finished_run_is_returned_and_another_configuration_refused(
    finished: RunResult, tmp_path: Path
) -> None:
    assert train(digits_run(), finished.folder) == finished
    with pytest.raises(CheckpointError, match="a run of another configuration"):
        train(digits_run(seed=1), finished.folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(CheckpointError, match="not empty and not a run"):
        train(digits_run(), tmp_path / "other")


def test_a_run_does_not_go_on_with_a_teacher_that_changed(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    shutil.copytree(teacher, tmp_path / "teacher")
    config = digits_run("w8a8", teacher=str(tmp_path / "teacher"))
    with monkeypatch.context() as patched:
        kill_at(patched, 2)
        with pytest.raises(Killed):
            train(config, tmp_path / "run")
    weights = tmp_path / "teacher" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(CheckpointError, match="was started from another teacher"):
        train(config, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Objective.__call__

    def call(self: Objective, batch: Any, step: int, *portion: Any, **rows: Any) -> Any:
        loss, parts = whole(self, batch, step, *portion)
        return (loss * float("nan") if step == 6 else loss), parts

    monkeypatch.setattr(Objective, "__call__", call)
    with pytest.raises(
        TrainingDiverged, match=r"loss is nan at step 6; the state in .*state-00000004"
    ):
        train(digits_run(), tmp_path / "run")
    assert newest_state(tmp_path / "run") is not None
    assert not (tmp_path / "run" / "result.json").exists()


def test_early_stopping_ends_a_run_that_no_longer_improves(tmp_path: Path) -> None:
    spec = {"steps": 40, "evaluate_every": 2, "early_stopping": 2, "learning_rate": 1e-9}
    measured = train(digits_run(train=spec), tmp_path / "run")
    assert measured.stopped_early
    assert measured.steps == 6


def test_only_steps_with_constant_ranges_and_no_intervention_are_kept(
    teacher: Path, tmp_path: Path
) -> None:
    spec = {"steps": 10, "evaluate_every": 1}
    config = digits_run("ti_g_w2a8", teacher=str(teacher), train=spec)
    measured = train(config, tmp_path / "run")
    assert measured.kept_step > 8
    log = [json.loads(line) for line in (tmp_path / "run" / "train.jsonl").read_text().splitlines()]
    phases = {entry["step"]: entry["phase"] for entry in log if entry["event"] == "step"}
    assert phases[1].startswith("intervention_")
    assert phases[10] == "distillation"
    rates = {entry["step"]: entry["lr_weight"] for entry in log if entry["event"] == "step"}
    assert rates[3] > rates[2]  # the second step of the method has a schedule of its own


def test_a_student_starts_as_its_teacher_and_the_teacher_stays(
    teacher: Path, tmp_path: Path
) -> None:
    before = (teacher / "model.safetensors").read_bytes()
    student = digits_run("w8a8", teacher=str(teacher), train={"learning_rate": 1e-6})
    measured = train(student, tmp_path / "run")
    assert (teacher / "model.safetensors").read_bytes() == before
    reference = json.loads((teacher / "result.json").read_text())
    assert measured.teacher_sha256 == reference["model_sha256"]
    difference = measured.tests["test"]["correct"] - reference["tests"]["test"]["correct"]
    assert abs(difference) <= 15


def test_the_result_says_where_it_comes_from(finished: RunResult) -> None:
    values = json.loads((finished.folder / "result.json").read_text())
    test = values["tests"]["test"]
    assert test["rows"] == 540
    assert test["accuracy"] == pytest.approx(test["correct"] / 540)
    assert test["accuracy_wilson95"][0] < test["accuracy"] < test["accuracy_wilson95"][1]
    assert values["model_sha256"] == checkpoint.file_sha256(finished.folder / "model.safetensors")
    assert values["versions"]["torch"] == torch.__version__
    assert values["seed"] == 0
    assert finished.wall_s > 0


def test_held_out_data_may_be_left_unread(
    finished: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qat import loop

    seen: list[str] = []
    original = loop.evaluate
    monkeypatch.setattr(
        loop, "evaluate", lambda m, split, task: seen.append(split.name) or original(m, split, task)
    )
    measured = train(digits_run(train={"measure_tests": False}), tmp_path / "tried")
    assert measured.tests == {}
    assert set(seen) == {"validation"}
    assert finished.tests["test"]["rows"] == 540


def test_a_recipe_that_distils_needs_a_teacher(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="teacher: recipe 'w8a8' learns from a teacher: name one"):
        train(digits_run("w8a8"), tmp_path / "run")


def test_unknown_and_dictated_model_keys_are_refused(tmp_path: Path) -> None:
    model = {"family": "vit", "config": {"hiden_size": 8, "num_channels": 3}}
    with pytest.raises(ConfigError) as fault:
        train(digits_run(model=model), tmp_path / "run")
    assert fault.value.faults == (
        "model.config.hiden_size: ViTConfig has no such key; did you mean 'hidden_size'?",
        "model.config.num_channels: the task 'digits' dictates it",
    )


def test_a_student_may_have_another_dropout_than_its_teacher(tmp_path: Path) -> None:
    from qat.build import load_teacher, starting_model
    from qat.data.task import load_task

    model = {"family": "vit", "config": SMALL_VIT | {"hidden_dropout_prob": 0.1}}
    train(digits_run(model=model, train={"steps": 1}), tmp_path / "teacher")
    config = digits_run("w8a8", teacher=str(tmp_path / "teacher"), train={"dropout": 0.0})
    task = load_task(config.task)
    recipe = load_recipe("w8a8")
    teacher = load_teacher(config, task, recipe)
    student = starting_model(config, task, recipe, teacher)
    assert teacher is not None
    assert {m.p for m in teacher.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}
    assert {m.p for m in student.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}
    assert student.config.hidden_dropout_prob == 0.0
    weights = teacher.state_dict()
    assert all((weights[name] == tensor).all() for name, tensor in student.state_dict().items())


def test_bfloat16_is_for_the_training_of_teachers_only(
    teacher: Path, finished: RunResult, tmp_path: Path
) -> None:
    changes = {"precision": "bfloat16"}
    with pytest.raises(
        ConfigError, match=r"train\.precision: recipe 'w8a8' quantises, which needs"
    ):
        train(digits_run("w8a8", teacher=str(teacher), train=changes), tmp_path / "student")
    train(digits_run(train=changes), tmp_path / "half")
    half, single = outcome(tmp_path / "half"), outcome(finished.folder)
    losses = [
        [json.loads(line).get("loss") for line in run["log"].splitlines()][:2]
        for run in (half, single)
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    weights = checkpoint.load(tmp_path / "half").model.state_dict().values()
    assert {tensor.dtype for tensor in weights} == {torch.float32}


def test_a_layer_reduced_student_is_trained_loaded_and_exported(tmp_path: Path) -> None:
    from qat.exporter import export_run

    deep = {"family": "vit", "config": SMALL_VIT | {"num_hidden_layers": 2}}
    teacher = train(digits_run(model=deep, train={"steps": 1}), tmp_path / "teacher").folder
    config = digits_run("xtc_w1a8", teacher=str(teacher), layers=[1], train={"steps": 6})
    train(config, tmp_path / "reduced")
    model = checkpoint.load(tmp_path / "reduced").model
    assert model.config.num_hidden_layers == 1
    assert len(model.vit.layers) == 1
    record = export_run(tmp_path / "reduced", tmp_path / "model").record
    assert record["samples"] == 540
    assert not [c for c in record["a1"] if c["differing"] and c["op"] == "linear"]
    with pytest.raises(ConfigError, match=r"strictly increasing numbers from 0 to 1"):
        train(digits_run("xtc_w1a8", teacher=str(teacher), layers=[1, 4]), tmp_path / "bad")
