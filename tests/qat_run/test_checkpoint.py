"""What a run leaves on disk: it loads again to the same model, and damage is refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import SMALL_VIT, digits_run

from hwsim.errors import CheckpointError
from qat.checkpoint import load
from qat.evaluate import evaluate, predict
from qat.loop import train
from qat.state import load_progress, newest_state


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train(digits_run(model={"family": "vit", "config": SMALL_VIT}), folder)
    return folder


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student") / "run"
    train(digits_run("bit_w1a1", teacher=str(teacher)), folder)
    return folder


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_a_loaded_run_measures_what_its_result_says(
    kind: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(kind)
    loaded = load(folder)
    assert not loaded.model.training
    stored = json.loads((folder / "result.json").read_text())
    assert evaluate(loaded.model, loaded.task.tests["test"], loaded.task) == stored["tests"]["test"]
    assert loaded.config_sha256 == stored["config_sha256"]
    assert loaded.recipe.name == stored["recipe"]


def test_the_teachers_folder_is_a_hugging_face_folder(teacher: Path) -> None:
    from transformers import AutoModelForImageClassification

    loaded = load(teacher)
    plain = AutoModelForImageClassification.from_pretrained(teacher).eval()
    split = loaded.task.validation
    np.testing.assert_allclose(predict(plain, split), predict(loaded.model, split), atol=1e-5)
    assert plain.config.id2label[3] == "3"
    settings = json.loads((teacher / "preprocessor_config.json").read_text())
    assert settings["rescale_factor"] == 1 / 16


def test_a_students_folder_gives_its_latent_weights_and_says_how_it_is_quantised(
    student: Path,
) -> None:
    from transformers import AutoModelForImageClassification

    config = json.loads((student / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "bitwright"
    assert config["quantization_config"]["recipe"]["name"] == "bit_w1a1"
    plain = AutoModelForImageClassification.from_pretrained(student)
    weights = load(student).model.state_dict()
    for name, tensor in plain.state_dict().items():
        assert (weights[name] == tensor).all(), name


@pytest.fixture
def copy(student: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(student, folder)
    return folder


def test_a_flipped_bit_is_refused(copy: Path) -> None:
    path = copy / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: altered or truncated"):
        load(copy)


def test_truncated_missing_and_altered_files_are_all_named_at_once(copy: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    (copy / "config.json").unlink()
    with pytest.raises(CheckpointError) as fault:
        load(copy)
    lines = str(fault.value).splitlines()
    assert lines == [
        f"{copy}/config.json: missing, though the manifest lists it",
        f"{path}: altered or truncated: its SHA-256 is not the manifest's",
    ]


def test_an_altered_configuration_is_refused(copy: Path) -> None:
    path = copy / "bitwright" / "run.json"
    path.write_text(path.read_text().replace('"seed": 0,', '"seed": 1,', 1))
    with pytest.raises(CheckpointError, match="the configuration's SHA-256 is not config_sha256"):
        load(copy)
    path.write_text("{")
    with pytest.raises(CheckpointError, match=r"run\.json: damaged"):
        load(copy)


def test_a_foreign_folder_and_an_unfinished_run_are_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a run of `python -m qat train`"):
        load(tmp_path)
    (copy / "bitwright" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="the run is not finished: train it again to resume"):
        load(copy)


def test_a_damaged_state_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qat import loop

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.checkpoint, "write_final_model", stop)
    with pytest.raises(KeyboardInterrupt):
        train(digits_run(), tmp_path / "run")
    monkeypatch.undo()
    state = newest_state(tmp_path / "run")
    assert state is not None
    (state / "rng.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"rng\.safetensors: altered or truncated"):
        load_progress(state)
    with pytest.raises(CheckpointError, match=r"rng\.safetensors: altered or truncated"):
        train(digits_run(), tmp_path / "run")
