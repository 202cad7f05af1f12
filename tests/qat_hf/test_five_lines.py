"""The script of docs/huggingface.md, run as a user runs it, on a model that no recipe knows."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
from pathlib import Path

import pytest
from tiny_texts import classifier, texts, tokenizer

from hwsim import api
from hwsim.dataset import Rows
from hwsim.errors import DataError, GraphError
from hwsim.graph.serialize import load
from qat.exporter import export
from qat.student import prepare

SCRIPT = Path(__file__).parents[2] / "docs/examples/five_lines.py"


def run_script(work: Path) -> str:
    """What the script prints, run in this process: a new one would import torch again."""
    files = [str(work / name) for name in ("hf", "train.jsonl", "dev.jsonl", "work")]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(SCRIPT))["main"](*files)
    return printed.getvalue()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The script's folder after a first run, and what it printed."""
    folder = tmp_path_factory.mktemp("five_lines")
    classifier().save_pretrained(folder / "hf")
    tokenizer().save_pretrained(folder / "hf")
    for name, count in (("train", 48), ("dev", 20)):
        lines = "\n".join(json.dumps(row) for row in texts(count, count))
        (folder / f"{name}.jsonl").write_text(lines)
    return folder, run_script(folder)


def test_the_script_trains_exports_and_runs(work: tuple[Path, str]) -> None:
    folder, printed = work
    assert "'epoch': '3'" in printed
    assert "recipe bit_w1a1: 3,468 bytes, 21,064 in float32" in printed
    assert "model on xnor_edge" in printed
    model = load(folder / "work/model")
    assert model.record["samples"] == 48
    assert not [c for c in model.record["a1"] if c["differing"] and c["op"] in ("linear", "matmul")]
    assert (folder / "work/model/tokenizer.json").is_file()
    assert model.graph.meta["labels"] == ["bad", "good"]
    found = api.verify(model, "xnor_edge", samples=6)
    assert found.unequal == []


def test_the_script_resumes_what_it_finished(work: tuple[Path, str]) -> None:
    folder, _ = work
    before = load(folder / "work/model")
    assert "'epoch': '1'" not in run_script(folder)
    assert load(folder / "work/model").sha256 == before.sha256


def test_a_dataset_takes_the_place_of_the_stored_samples(work: tuple[Path, str]) -> None:
    model = load(work[0] / "work/model")
    rows = [{**tokenizer()(row["text"]), "label": row["label"]} for row in texts(30, 5)]
    given = api.run(model, "xnor_edge", dataset=rows).to_json()["accuracy"]
    flipped = [{**row, "label": 1 - row["label"]} for row in rows]
    turned = api.run(model, "xnor_edge", dataset=flipped).to_json()["accuracy"]
    assert given["total"] == turned["total"] == 30
    assert given["correct"] + turned["correct"] == 30
    padded = tokenizer()([row["text"] for row in texts(30, 5)], padding="max_length", return_tensors="pt")  # fmt: skip
    batch = {**padded, "labels": [row["label"] for row in texts(30, 5)]}
    assert api.run(model, "xnor_edge", dataset=[batch]).to_json()["accuracy"] == given
    assert api.run(model, "xnor_edge").to_json()["accuracy"]["total"] == 48


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "must have at least one row"),
        ([{"text": "a"}], r"element 0 must have input_ids or pixel_values, has text; run the tok"),
        ([{"input_ids": [2, 3], "attention_mask": [0, 1]}], "padding on the right"),
        ([{"input_ids": [2], "label": 1}, {"input_ids": [2]}], "row 1 has no label, others have"),
        ([{"input_ids": [2], "label": "good"}], "labels must be numbers, element 0 has 'good'"),
        ([{"input_ids": [2, 3], "label": 7, "token_type_ids": [0, 0]}], "classes 0 to 1, are 7"),
        ([{"input_ids": [2, 3], "label": 1}], "rows must have token_type_ids, have input_ids"),
        ([{"input_ids": [2, 3], "token_type_ids": [0, 0]}], "no labels to measure with"),
    ],
)
def test_rows_that_cannot_be_measured_are_refused(
    work: tuple[Path, str], rows: list[dict], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        api.run(load(work[0] / "work/model"), "xnor_edge", dataset=rows)


def test_an_export_without_labels_verifies_and_says_what_is_missing(tmp_path: Path) -> None:
    student = prepare(classifier(layers=1), "kd_w2a8")
    sentences = [dict(tokenizer()(row["text"])) for row in texts(8, 1)]
    model = export(student, sentences, tmp_path / "model")
    assert model.samples is not None
    assert model.samples.labels is None
    assert "measured" not in model.record
    assert api.verify(model, "int8_edge").ok
    with pytest.raises(DataError, match="no labels to measure with"):
        api.run(model, "int8_edge")


def test_only_a_trained_student_is_exported(tmp_path: Path) -> None:
    sentences = [dict(tokenizer()(row["text"])) for row in texts(4, 1)]
    with pytest.raises(GraphError, match=r"must be a student of qat\.prepare"):
        export(classifier(), sentences, tmp_path / "model")
    with pytest.raises(GraphError, match=r"more quantisers have seen no data"):
        export(prepare(classifier(), "bit_w1a1"), sentences, tmp_path / "model")


def test_rows_are_cut_padded_and_masked() -> None:
    rows = Rows(
        [
            {"input_ids": [5, 6, 0, 0], "attention_mask": [1, 1, 0, 0], "labels": 1, "idx": 9},
            {"input_ids": [5, 6, 7], "labels": 0, "idx": 8},
        ],
        ["input_ids"],
        pad_id=4,
    )
    batch = rows.batch([0, 1])
    assert rows.lengths.tolist() == [2, 3]
    assert batch["input_ids"].tolist() == [[5, 6, 4], [5, 6, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert sorted(batch) == ["attention_mask", "input_ids"]
    assert rows.labels is not None
    assert rows.labels.tolist() == [1, 0]
