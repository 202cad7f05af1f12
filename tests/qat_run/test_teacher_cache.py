"""Kept answers are the teacher's, take no more than they may, and change nothing when a run is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_processes import run_of, table
from tiny_runs import digits_run
from torch import Tensor

from hwsim.errors import CheckpointError, ConfigError
from qat.config import RunConfig
from qat.loop import train
from qat.objective import Objective
from qat.step import Recording
from qat.teacher_cache import TeacherCache, cache_folder

LENGTHS = [4, 2, 3]


def answer(seed: int, positions: int = 4) -> tuple[Tensor, Recording]:
    rng = torch.Generator().manual_seed(seed)
    record = Recording(
        hidden=[torch.randn(3, positions, 5, generator=rng) for _ in range(2)],
        scores=[torch.randn(3, 2, positions, positions, generator=rng)],
        queries=[torch.randn(3, 2, positions, 5, generator=rng)],
    )
    return torch.randn(3, 7, generator=rng), record


def batch(positions: int = 4) -> dict[str, Tensor]:
    mask = torch.arange(positions)[None] < torch.tensor(LENGTHS)[:, None]
    return {"input_ids": torch.zeros(3, positions, dtype=torch.long), "attention_mask": mask.long()}


def refuse() -> Any:
    raise AssertionError("the teacher was asked")


def test_what_comes_back_is_what_the_teacher_said_at_real_positions(tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path / "rows", 2**20, ["hidden", "scores", "queries"])
    rows = np.array([10, 4, 7])
    logits, record = answer(1)
    cache.ask(rows, batch(), lambda: (logits, record))

    turned = np.array([2, 0, 1])  # another order, in a batch that is padded further
    inputs = {name: value[turned] for name, value in batch(6).items()}
    found_logits, found = cache.ask(rows[turned], inputs, refuse)
    assert torch.equal(found_logits, logits[turned])
    assert (len(found.hidden), len(found.scores), len(found.queries)) == (2, 1, 1)
    for i, source in enumerate(turned.tolist()):
        n = LENGTHS[source]
        for ours, theirs in zip(found.hidden, record.hidden, strict=True):
            assert torch.equal(ours[i, :n], theirs[source, :n])
            assert not ours[i, n:].any()
        assert torch.equal(found.scores[0][i, :, :n, :n], record.scores[0][source, :, :n, :n])
        assert torch.equal(found.queries[0][i, :, :n], record.queries[0][source, :, :n])


def test_what_was_said_first_about_a_row_stays(tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path / "rows", 2**20, ["hidden"])
    first, second = answer(1), answer(2)
    cache.ask(np.array([1, 2, 3]), batch(), lambda: first)
    mixed = cache.ask(np.array([1, 2, 4]), batch(), lambda: second)
    again = cache.ask(np.array([1, 2, 4]), batch(), refuse)
    for logits, _ in (mixed, again):
        assert torch.equal(logits, torch.stack([*first[0][:2], second[0][2]]))
    assert torch.equal(mixed[1].hidden[0], again[1].hidden[0])


def test_it_never_takes_more_than_it_may(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    TeacherCache(folder, 2**20, ["hidden"]).ask(np.arange(3), batch(), lambda: answer(1))
    whole = sum(path.stat().st_size for path in folder.iterdir())
    again = TeacherCache(folder, whole + 10, ["hidden"])
    assert again.used_bytes == whole  # what an earlier process kept counts
    again.ask(np.arange(3, 6), batch(), lambda: answer(2))
    assert sum(path.stat().st_size for path in folder.iterdir()) == whole
    asked = []
    again.ask(np.arange(3, 6), batch(), lambda: asked.append(1) or answer(2))  # type: ignore[func-returns-value]
    assert asked == [1]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path / "rows", 2**20, ["hidden"])
    cache.ask(np.arange(3), batch(), lambda: answer(1))
    (tmp_path / "rows" / "1.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"1\.safetensors: damaged: remove the folder"):
        cache.ask(np.arange(3), batch(), refuse)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table(tmp_path_factory.mktemp("cached") / "table")


def counted(
    config: RunConfig, out: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int | None = None
) -> int:
    """Train; return how many batches the teacher was asked about."""
    asked, loss = [0], Objective.__call__
    ask = Objective._ask_teacher

    def count(self: Objective, *arguments: Any) -> Any:
        asked[0] += 1
        return ask(self, *arguments)

    def call(self: Objective, batch: Any, step: int, *rest: Any, **rows: Any) -> Any:
        if step == killed_at:
            raise InterruptedError
        return loss(self, batch, step, *rest, **rows)

    with monkeypatch.context() as patched:
        patched.setattr(Objective, "_ask_teacher", count)
        patched.setattr(Objective, "__call__", call)
        if killed_at is None:
            train(config, out)
        else:
            with pytest.raises(InterruptedError):
                train(config, out)
    return asked[0]


def test_a_run_asks_once_about_each_row_and_resumes_to_the_same_bits(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 20 training rows: two batches of 8 an epoch, other rows left out in each
    settings = {"steps": 14, "evaluate_every": 4, "dropout": 0.0}
    kept = run_of(text, "kd_w2a8", **settings, teacher_cache="1MiB")
    plain = run_of(text, "kd_w2a8", **settings)
    assert counted(plain, tmp_path / "plain", monkeypatch) == 14
    asked = counted(kept, tmp_path / "kept", monkeypatch)
    assert asked < 9
    assert not cache_folder(tmp_path / "kept").exists()  # it ends with the run

    first, second = (read(tmp_path / name / "train.jsonl") for name in ("plain", "kept"))
    assert first[0] == second[0]
    assert second[-1]["loss"] == pytest.approx(first[-1]["loss"], rel=1e-2)

    counted(kept, tmp_path / "killed", monkeypatch, killed_at=6)
    assert cache_folder(tmp_path / "killed").exists()
    counted(kept, tmp_path / "killed", monkeypatch)
    for file in ("model.safetensors", "train.jsonl"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "kept" / file).read_bytes()


def read(path: Path) -> list[dict[str, float]]:
    import json

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["event"] == "step"]


@pytest.mark.parametrize(
    ("recipe", "settings", "reason"),
    [
        ("bit_w1a1_as_released", {}, "dropout|padded positions"),
        ("kd_w2a8", {"augment": "json:loads"}, "augmentation"),
        ("float", {}, "asks no teacher"),
    ],
)
def test_answers_that_do_not_belong_to_a_row_are_refused(
    recipe: str, settings: dict[str, Any], reason: str, text: Path, tmp_path: Path
) -> None:
    config = run_of(text, recipe, **settings, teacher_cache="1MiB")
    with pytest.raises(ConfigError, match=f"teacher_cache: .*({reason}).*: leave the key out"):
        train(config, tmp_path / "run")


def test_its_size_has_a_unit(text: Path) -> None:
    with pytest.raises(ValueError, match="KiB, MiB, GiB, not '2GB'"):
        run_of(text, "kd_w2a8", teacher_cache="2GB")
    assert digits_run("float", train={"teacher_cache": "2KiB"}).train.teacher_cache == 2048
