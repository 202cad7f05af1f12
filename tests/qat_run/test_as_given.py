"""A fine-tuned checkpoint as a teacher, as it is: recipe `as_given`; and what lacks a classifier or has other classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import save_bert, word_tokenizer

from hwsim.errors import CheckpointError, ConfigError
from qat.config import RunConfig, run_config
from qat.loop import train


def save(folder: Path, classes: list[str] | None) -> Path:
    """Write a tiny BERT, the same each time: as `save_bert`."""
    torch.manual_seed(1)
    return save_bert(folder, classes)


@pytest.fixture
def task(tmp_path: Path) -> dict[str, Any]:
    for part in ("train", "dev"):
        rows = [{"a": f"row of {n}", "y": ("bad", "good")[n % 2]} for n in range(40)]
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {part: str(tmp_path / f"{part}.jsonl") for part in ("train", "dev")}
    return {"text": "a", "label": "y", "metric": "accuracy", "max_tokens": 12, **files}


def run(**values: Any) -> RunConfig:
    return run_config({"schema": "qat/run/1", "name": "tiny", "train": {"steps": 0}, **values})


@pytest.mark.parametrize(
    "classes", [["bad", "good"], ["LABEL_0", "LABEL_1"], ["BAD", "GOOD"]], ids=lambda c: c[0]
)
def test_a_fine_tuned_checkpoint_is_measured_and_kept_as_it_is(
    classes: list[str], task: dict[str, Any], tmp_path: Path
) -> None:
    given = save(tmp_path / "given", classes)
    config = run(task=task, recipe="as_given", model={"checkpoint": str(given)})
    result = train(config, tmp_path / "teacher")
    assert result.steps == 0
    assert set(result.tests) == {"dev"}
    given_weights = load_file(given / "model.safetensors")
    kept = load_file(tmp_path / "teacher" / "model.safetensors")
    assert given_weights.keys() == kept.keys()
    assert all(torch.equal(value, kept[name]) for name, value in given_weights.items())
    student = run(task=task, recipe="w8a8", teacher=str(tmp_path / "teacher"), train={"steps": 2})
    assert train(student, tmp_path / "student").steps == 2


def test_labels_put_the_tables_classes_in_the_checkpoints_order(
    task: dict[str, Any], tmp_path: Path
) -> None:
    given = {"checkpoint": str(save(tmp_path / "given", ["good", "bad"]))}
    with pytest.raises(CheckpointError) as fault:
        train(run(task=task, recipe="as_given", model=given), tmp_path / "teacher")
    assert str(fault.value) == (
        f"{given['checkpoint']}: its classes must be bad, good in this order, not good, bad"
        " (a table says its own order with `labels:`)"
    )
    ordered = task | {"labels": ["good", "bad"]}
    train(run(task=ordered, recipe="as_given", model=given), tmp_path / "ordered")
    # trained further, the head learns whatever order the task has
    more = run(task=task, recipe="float", model=given, train={"steps": 1})
    assert train(more, tmp_path / "more").steps == 1


@pytest.mark.parametrize(
    ("recipe", "key"), [("as_given", "model"), ("ptq_w8a8", "model"), ("w8a8", "teacher")]
)
def test_what_nothing_would_train_is_not_drawn_at_random(
    recipe: str, key: str, task: dict[str, Any], tmp_path: Path
) -> None:
    bare = str(save(tmp_path / "bare", None))
    start: dict[str, Any] = {"model": {"checkpoint": bare}} if key == "model" else {"teacher": bare}
    steps = {"steps": 2 if recipe == "w8a8" else 0}
    with pytest.raises(
        CheckpointError,
        match=r"lacks classifier\.bias, classifier\.weight, which nothing would train: fine-tune it first",
    ):
        train(run(task=task, recipe=recipe, train=steps, **start), tmp_path / "run")


def test_who_learns_from_labels_alone_may_start_from_a_bare_encoder(
    task: dict[str, Any], tmp_path: Path
) -> None:
    bare = str(save(tmp_path / "bare", None))
    config = run(task=task, recipe="qat_w2a8", teacher=bare, train={"steps": 1})
    assert train(config, tmp_path / "run").steps == 1


def test_classes_in_another_order_without_names_are_found_out(
    task: dict[str, Any], tmp_path: Path
) -> None:
    """Labels follow from a word that one weight reads: right in one order, always wrong in the other."""
    from transformers import BertForSequenceClassification

    for part in ("train", "dev"):
        rows = [{"a": ("row", "sentence")[n % 2], "y": ("bad", "good")[n % 2]} for n in range(400)]
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    teacher = run(
        task=task,
        recipe="float",
        model={"checkpoint": str(save(tmp_path / "bare", None))},
        train={"steps": 60, "batch_size": 16, "learning_rate": 3e-3},
    )
    trained = train(teacher, tmp_path / "float").folder
    assert trained == tmp_path / "float"
    known = BertForSequenceClassification.from_pretrained(trained)
    known.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    given = tmp_path / "given"
    known.save_pretrained(given)
    word_tokenizer().save_pretrained(given)
    model = {"checkpoint": str(given)}
    right = train(run(task=task, recipe="as_given", model=model), tmp_path / "right")
    assert right.tests["dev"]["accuracy"] == 1.0
    other = task | {"labels": ["good", "bad"]}
    with pytest.raises(CheckpointError, match=r"gets 0 of 40 rows of the carve-out right, where"):
        train(run(task=other, recipe="as_given", model=model), tmp_path / "wrong")
    assert not (tmp_path / "wrong" / "result.json").exists()


def test_a_new_model_is_not_taken_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.family: recipe 'as_given' trains nothing"):
        train(run(task="digits", recipe="as_given", model={"family": "vit"}), tmp_path / "run")


def test_a_family_without_a_table_is_refused_before_anything_is_loaded(
    task: dict[str, Any], tmp_path: Path
) -> None:
    given = save(tmp_path / "given", ["bad", "good"])
    config = json.loads((given / "config.json").read_text()) | {"model_type": "albert"}
    (given / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"model_type must be one of bert, .* not 'albert'"):
        train(
            run(task=task, recipe="float", model={"checkpoint": str(given)}, train={"steps": 1}),
            tmp_path / "run",
        )
