"""Text tasks end to end on tiny models: masks, regression, a language model with a tied head."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import save_bert, text_run, word_tokenizer

from hwsim import reference
from hwsim.errors import CheckpointError, ConfigError, DataError
from hwsim.metrics import unpack_right
from hwsim.verification import batches
from qat.checkpoint import load
from qat.config import PretrainedModel, run_config
from qat.data.spec import TableTask
from qat.data.task import load_task
from qat.evaluate import evaluate
from qat.exporter import export_run
from qat.loop import seed_everything, train
from qat.pretrained import load_tokenizer, pretrained_model

TRAIN = {"steps": 6, "batch_size": 4, "learning_rate": 1e-3, "evaluate_every": 3}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Hugging Face folder: a BERT of one tiny layer without a head, and its tokenizer."""
    return save_bert(tmp_path_factory.mktemp("bert"), None)


def table(folder: Path, score: bool) -> dict[str, Any]:
    for part in ("train", "dev"):
        rows = [
            {"a": "row of " * (n % 5 + 1), "b": f"sentence {n}", "y": n / 7 if score else n % 2}
            for n in range(40)
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "text": ["a", "b"],
        "label": "y",
        "metric": ["spearman", "pearson"] if score else "accuracy",
        "train": str(folder / "train.jsonl"),
        "dev": str(folder / "dev.jsonl"),
        "max_tokens": 24,
    }


def run(**values: Any) -> Any:
    return run_config({"schema": "qat/run/1", "name": "tiny", "train": TRAIN, **values})


@pytest.mark.parametrize("score", [False, True])
def test_a_table_trains_a_teacher_and_a_student(score: bool, bert: Path, tmp_path: Path) -> None:
    task = table(tmp_path, score)
    train(run(task=task, recipe="float", model={"checkpoint": str(bert)}), tmp_path / "teacher")
    for recipe in ("ti_g_w2a8", "bit_w1a1"):
        student = run(task=task, recipe=recipe, teacher=str(tmp_path / "teacher"))
        measured = train(student, tmp_path / recipe)
        assert measured.metric == ("spearman" if score else "accuracy")
        loaded = load(tmp_path / recipe)
        again = evaluate(loaded.model, loaded.task.tests["dev"], loaded.task)
        assert again == measured.tests["dev"]
        assert loaded.model.config.num_labels == (1 if score else 2)
        assert (tmp_path / recipe / "tokenizer.json").is_file()


def test_an_export_says_which_rows_it_gets_right_in_their_order(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = table(tmp_path, score=False)
    train(run(task=task, recipe="float", model={"checkpoint": str(bert)}), tmp_path / "teacher")
    train(run(task=task, recipe="w8a8", teacher=str(tmp_path / "teacher")), tmp_path / "run")
    model = export_run(tmp_path / "run", tmp_path / "model")
    assert model.samples is not None
    assert model.samples.labels is not None
    measured = model.record["measured"]["graph"]
    right = unpack_right(measured["right"], len(model.samples))
    assert right.sum() == measured["correct"]
    assert len(set(right.tolist())) == 2
    assert model.samples.lengths is not None
    assert (np.diff(model.samples.lengths) < 0).any()  # the order of lengths is another one
    for rows, inputs, lengths in batches(model.graph, model.samples):
        *_, (_, codes) = reference.execute(model.graph, inputs, lengths)
        np.testing.assert_array_equal(
            right[rows], codes.argmax(axis=1) == model.samples.labels[rows]
        )
    assert "right" not in model.record["measured"]["student"]
    # the same integers, made by another revision, are the same model
    monkeypatch.setattr("qat.exporter.source_revision", lambda: "another")
    again = export_run(tmp_path / "run", tmp_path / "again")
    assert again.record["source_revision"] == "another"
    assert again.sha256 == model.sha256
    # one sample at a time, as of a model that is too large for more
    monkeypatch.setattr("qat.exporter.BATCH_ELEMENTS", 1)
    slowly = export_run(tmp_path / "run", tmp_path / "slowly")
    assert slowly.sha256 == model.sha256
    assert slowly.record["measured"]["graph"] == measured
    assert slowly.record["samples"] == model.record["samples"] == len(model.samples)


def test_a_hugging_face_folder_is_a_teacher(bert: Path, tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    folder = tmp_path / "fine-tuned"
    BertForSequenceClassification.from_pretrained(bert).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    task = table(tmp_path, score=False)
    measured = train(run(task=task, recipe="w8a8", teacher=str(folder)), tmp_path / "run")
    assert measured.teacher_sha256 is not None


def test_a_language_model_trains_and_loads_with_its_tied_head(tmp_path: Path) -> None:
    spec = {"steps": 40, "evaluate_every": 20}
    teacher = train(text_run(tmp_path, train=spec), tmp_path / "teacher")
    assert teacher.tests["test"]["perplexity"] < 60  # 256 symbols: an untrained model is above 200
    student = text_run(tmp_path, "kd_w2a8", teacher=str(tmp_path / "teacher"))
    measured = train(student, tmp_path / "student")
    loaded = load(tmp_path / "student")
    again = evaluate(loaded.model, loaded.task.tests["test"], loaded.task)
    assert again == measured.tests["test"]


def test_a_text_task_needs_a_tokenizer(bert: Path, tmp_path: Path) -> None:
    task = table(tmp_path, score=False)
    with pytest.raises(ConfigError, match="a text task needs a `checkpoint:` or a `teacher:`"):
        train(run(task=task, recipe="float", model={"family": "bert"}), tmp_path / "run")


def test_a_family_that_cannot_do_the_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="'gpt2' cannot do a classification task; it does language"
    ):
        train(run(task="digits", recipe="float", model={"family": "gpt2"}), tmp_path / "run")


def test_a_checkpoint_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    task = table(tmp_path, score=False)
    with pytest.raises(CheckpointError, match=r"\./nowhere: no such folder"):
        train(run(task=task, recipe="w8a8", teacher="./nowhere"), tmp_path / "run")


@pytest.mark.parametrize(
    ("config", "lacks"),
    [
        (None, "no config.json, no model.safetensors, no tokenizer.json"),
        ("{}", "config.json has no model_type, no model.safetensors, no tokenizer.json"),
        ("{", "config.json is no JSON, no model.safetensors, no tokenizer.json"),
        ('{"model_type": "bert"}', "no model.safetensors, no tokenizer.json"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_told_what_it_lacks(
    config: str | None, lacks: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(config)
    with pytest.raises(CheckpointError) as fault:
        load_tokenizer(str(folder))
    assert str(fault.value) == (
        f"{folder}: no checkpoint of a text model: {lacks}; give a Hugging Face folder with config.json,"
        " model.safetensors and tokenizer.json"
    )


def test_a_missing_classifier_is_drawn_from_the_seed_and_another_one_is_refused(
    bert: Path, tmp_path: Path
) -> None:
    from transformers import BertForSequenceClassification

    spec = table(tmp_path, score=False)
    two = load_task(TableTask.model_validate(spec), load_tokenizer(str(bert)))
    heads = []
    for seed in (0, 0, 1):
        seed_everything(seed)
        model = pretrained_model(PretrainedModel(checkpoint=str(bert)), two, new_head=True)
        heads.append(model.classifier.weight)
    assert heads[0].equal(heads[1])
    assert not heads[0].equal(heads[2])
    three = BertForSequenceClassification.from_pretrained(bert, num_labels=3)
    three.save_pretrained(tmp_path / "three")
    with pytest.raises(CheckpointError, match=r"do not fit the task \(a head for 2 classes\)"):
        pretrained_model(PretrainedModel(checkpoint=str(tmp_path / "three")), two, new_head=True)


def test_too_short_a_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("short")
    task = {"name": "lm", "train": str(tmp_path / "t.txt"), "dev": str(tmp_path / "t.txt")}
    with pytest.raises(DataError, match="must hold at least 64 tokens, holds 5"):
        train(run(task=task, recipe="float", model={"family": "gpt2"}), tmp_path / "run")
