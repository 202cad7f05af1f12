"""Bit schedules, augmentation and TensorBoard in whole runs, stopped and resumed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import Killed, kill_at, outcome
from tiny_runs import SMALL_VIT, digits_run

from hwsim.errors import ConfigError, DataError, MissingExtra
from qat import checkpoint
from qat.loop import train
from qat.recipe import load_recipe


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train(digits_run(model={"family": "vit", "config": SMALL_VIT}, train={"steps": 2}), folder)
    return folder


def noisy(batch: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Add noise; the seeds are written down."""
    SEEDS.append(seed)
    generator = torch.Generator().manual_seed(seed)
    pixels = batch["pixel_values"]
    return batch | {"pixel_values": pixels + 0.1 * torch.randn(pixels.shape, generator=generator)}


def shortened(batch: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    return batch | {"labels": batch["labels"][1:]}


SEEDS: list[int] = []
HERE = "test_train_options"


def interrupted(config: Any, out: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        kill_at(patched, step)
        with pytest.raises(Killed):
            train(config, out)
    train(config, out)


def test_a_bit_schedule_resumes_and_ends_at_the_recipes_format(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = load_recipe("kd_w2a8").model_dump(mode="json", by_alias=True)
    weight = values["quantization"]["linear"]["weight"]
    weight["schedule"] = {"start_bits": 5, "period": 2, "offset": 1}  # 5 5 5 4 4 3 3 2 2 2
    values["freeze_ranges"] = 0.5
    spec = {"steps": 10, "evaluate_every": 1, "learning_rate": 1e-9}
    config = digits_run(values, teacher=str(teacher), train=spec)
    measured = train(config, tmp_path / "whole")
    interrupted(config, tmp_path / "stopped", 5, monkeypatch)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")
    # the weights hardly move: what changes is the number of bits, and the best step may be from the 8th on
    log = [json.loads(line) for line in (measured.folder / "train.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in log if line["event"] == "step"}
    assert losses[10] > losses[1]
    assert measured.kept_step >= 8
    model = checkpoint.load(measured.folder).model
    assert model.vit.layers[0].attention.q_proj.weight_quantizer.fmt == "TERNARY"


def test_an_augmentation_gets_the_same_seeds_in_a_resumed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = digits_run(train={"augment": f"{HERE}:noisy", "accumulate": 2})
    sys.modules[HERE].SEEDS.clear()
    train(config, tmp_path / "whole")
    seeds = list(sys.modules[HERE].SEEDS)
    assert len(set(seeds)) == len(seeds) == 16  # 8 updates of two micro-batches
    sys.modules[HERE].SEEDS.clear()
    interrupted(config, tmp_path / "stopped", 6, monkeypatch)
    again = sys.modules[HERE].SEEDS
    assert again[:14] == seeds[:14]  # the 7th update was stopped after its rows were made
    assert again[14:] == seeds[8:]
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")
    plain = train(digits_run(train={"accumulate": 2}), tmp_path / "plain")
    assert outcome(plain.folder)["model"] != outcome(tmp_path / "whole")["model"]


def test_wrong_augmentations_are_refused(tmp_path: Path) -> None:
    def attempt(entry: str) -> None:
        train(digits_run(train={"augment": entry}), tmp_path / entry.replace(":", "_"))

    with pytest.raises(ConfigError, match="module 'no_such_module' cannot be imported"):
        attempt("no_such_module:f")
    with pytest.raises(ConfigError, match="has no function 'noissy'; did you mean 'noisy'"):
        attempt(f"{HERE}:noissy")
    with pytest.raises(DataError, match="must return tensors of as many rows each"):
        attempt(f"{HERE}:shortened")
    with pytest.raises(ValueError, match="augment"):
        digits_run(train={"augment": "no colon"})


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted((folder / "tensorboard").iterdir()):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((e.step, e.value) for e in events.Scalars(tag))
    return found


def test_tensorboard_holds_every_step_of_the_log_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    interrupted(digits_run(train={"tensorboard": True}), tmp_path / "run", 6, monkeypatch)
    found = scalars(tmp_path / "run")
    lines = (tmp_path / "run" / "train.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    assert [step for step, _ in found["step/loss"]] == list(range(1, 9))
    wanted = [line["loss"] for line in log if line["event"] == "step"]
    assert [value for _, value in found["step/loss"]] == pytest.approx(wanted, rel=1e-6)
    assert [step for step, _ in found["validation/accuracy"]] == [4, 8]


def test_without_tensorboard_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match=r"pip install 'bitwright\[tensorboard\]'"):
        train(digits_run(train={"tensorboard": True}), tmp_path / "run")


def test_a_gpu_that_is_not_there_is_refused_before_a_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"device: must be cpu or auto here, not cuda: torch \S+ sees no GPU"):  # fmt: skip
        train(digits_run(device="cuda"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
