"""Chains of stages: each learns from the one before, and a chain that was stopped ends as one that was not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import SMALL_VIT

from hwsim.errors import CheckpointError, ConfigError
from qat import checkpoint
from qat.chain import ChainConfig, load_training_config, stage_runs, train_chain
from qat.config import RunConfig
from qat.objective import Objective
from qat.recipe import load_recipe
from qat.result import RunResult

STEPS = {"steps": 6, "batch_size": 16, "learning_rate": 3e-3, "evaluate_every": 3, "log_every": 1}


def chain(**changes: Any) -> ChainConfig:
    values: dict[str, Any] = {
        "schema": "qat/chain/1",
        "name": "bit",
        "task": "digits",
        "model": {"family": "vit", "config": SMALL_VIT},
        "stages": [
            {"name": "w32a32", "recipe": "float", "train": STEPS},
            {"name": "w1a2", "recipe": "bit_w1a2", "train": STEPS},
            {"name": "w1a1", "recipe": "bit_w1a1", "train": STEPS},
        ],
    }
    return ChainConfig.model_validate(values | changes)


class Killed(Exception):
    pass


def files(folder: Path) -> dict[str, bytes]:
    names = ("model.safetensors", "train.jsonl", "config.json")
    runs = sorted(p for p in folder.iterdir() if p.is_dir())
    return {f"{run.name}/{name}": (run / name).read_bytes() for run in runs for name in names}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[RunResult]:
    """The stages of a chain that was never stopped."""
    return train_chain(chain(), tmp_path_factory.mktemp("chain") / "whole")


def test_a_chain_stopped_in_any_stage_ends_as_one_that_was_not(
    whole: list[RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, results = chain(), whole
    assert [r.folder.name for r in results] == ["1_w32a32", "2_w1a2", "3_w1a1"]
    assert results[2].teacher_sha256 == results[1].model_sha256
    assert results[1].teacher_sha256 == results[0].model_sha256

    original = Objective.__call__
    seen = 0

    def call(self: Objective, batch: Any, step: int, *portion: Any, **rows: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen in (5, 11, 19):
            raise Killed
        return original(self, batch, step, *portion, **rows)

    monkeypatch.setattr(Objective, "__call__", call)
    kills = 0
    while True:
        try:
            train_chain(config, tmp_path / "stopped")
            break
        except Killed:
            kills += 1
    assert kills == 3
    # the folder of the teacher is part of a stage's configuration, nothing else differs
    assert files(tmp_path / "stopped") == files(whole[0].folder.parent)

    before = seen
    again = train_chain(config, tmp_path / "stopped")
    assert seen == before, "a finished chain is not trained again"
    assert [r.model_sha256 for r in again] == [r.model_sha256 for r in results]


def test_a_chain_stands_for_its_last_stage(whole: list[RunResult]) -> None:
    folder = whole[0].folder.parent
    assert checkpoint.load(folder).folder == folder / "3_w1a1"


def test_a_stage_starts_from_the_weights_of_the_one_before(whole: list[RunResult]) -> None:
    from qat.build import load_teacher, starting_model
    from qat.data.task import load_task

    runs = stage_runs(chain(), whole[0].folder.parent)
    task = load_task(runs[2].task)
    before = checkpoint.load(whole[1].folder).model.state_dict()
    recipe = load_recipe("bit_w1a1")
    start = starting_model(runs[2], task, recipe, load_teacher(runs[2], task, recipe)).state_dict()
    assert start
    assert all(torch.equal(before[name], value) for name, value in start.items())


def test_the_first_teacher_may_stay_the_teacher(tmp_path: Path) -> None:
    stages = [
        {"name": "a", "recipe": "float", "train": STEPS},
        {"name": "b", "recipe": "bit_w1a2", "train": STEPS},
        {"name": "c", "recipe": "bit_w1a1", "train": STEPS, "teacher": "first"},
    ]
    last = stage_runs(chain(stages=stages), Path("out"))[2]
    assert last.teacher == "out/1_a"
    assert last.model is not None
    assert last.model.model_dump()["checkpoint"] == "out/2_b"
    with_teacher = stage_runs(chain(stages=stages, model=None, teacher="minilm"), Path("out"))
    assert [run.teacher for run in with_teacher] == ["minilm", "out/1_a", "minilm"]
    results = train_chain(chain(stages=stages), tmp_path / "out")
    assert results[2].teacher_sha256 == results[0].model_sha256


def test_another_chain_does_not_take_the_folder(tmp_path: Path) -> None:
    short = [{"name": "a", "recipe": "float", "train": STEPS | {"steps": 1}}]
    train_chain(chain(stages=short), tmp_path / "out")
    with pytest.raises(CheckpointError, match="holds a chain of another configuration"):
        train_chain(chain(stages=short, seed=1), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty and not a chain"):
        train_chain(chain(stages=short), tmp_path / "full")


def test_a_file_is_a_run_or_a_chain_by_its_schema(tmp_path: Path) -> None:
    text = """
schema: qat/chain/1
name: bit
task: digits
teacher: minilm
stages:
- {name: w1a2, recipe: bit_w1a2, train: {steps: 5}}
- {name: w1a1, recipe: bit_w1a1, train: {steps: 5}}
"""
    path = tmp_path / "chain.yaml"
    path.write_text(text)
    assert isinstance(load_training_config(path), ChainConfig)
    path.write_text(
        "schema: qat/run/1\nname: r\ntask: digits\nteacher: minilm\nrecipe: w8a8\ntrain: {steps: 5}\n"
    )
    assert isinstance(load_training_config(path), RunConfig)
    path.write_text(text.replace("name: w1a1,", "name: w1a2,"))
    with pytest.raises(
        ConfigError, match="stages must have names of their own, w1a2 is there twice"
    ):
        load_training_config(path)
    path.write_text(text.replace("train: {steps: 5}}\n", "train: {stepz: 5}}\n", 1))
    with pytest.raises(ConfigError, match=r"chain\.yaml:7:\d+: stages\[?\.?0.*stepz"):
        load_training_config(path)
