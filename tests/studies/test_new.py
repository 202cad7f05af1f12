"""`studies.new`: what it takes from table and checkpoint, what it asks, and that what it writes is a study that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny_runs import save_bert
from typer.testing import CliRunner

from hwsim.config.load import find_machine
from hwsim.errors import BitwrightError
from studies import new, sweep
from studies.inputs import check_inputs
from studies.nodes import build_plan
from studies.space import read_study
from studies.table import load_results

ROWS = [("row of a", "bad"), ("row of b", "good"), ("sentence c", "bad"), ("sentence d", "good")]


def table(
    path: Path, header: str = "review\tverdict", rows: list[tuple[str, ...]] | None = None
) -> None:
    chosen = (
        rows
        if rows is not None
        else [(f"{text} {n}", label) for n in range(10) for text, label in ROWS]
    )
    separator = "," if path.suffix == ".csv" else "\t"
    lines = [header.replace("\t", separator), *(separator.join(row) for row in chosen)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("train.tsv", "dev.tsv"):
        table(tmp_path / name)
    save_bert(tmp_path / "bare", None)
    return tmp_path


def write(*more: str, train: str = "train.tsv", dev: str = "dev.tsv", given: str = "bare") -> str:
    """Run the command; return what it printed, or raise what it refused with."""
    arguments = ["mine.yaml", "--train", train, "--dev", dev, "--checkpoint", given, *more]
    if "--machine" not in more:
        arguments += ["--machine", "toy"]
    result = CliRunner().invoke(new.app, arguments)
    if result.exception is not None:
        raise result.exception
    return result.output


def faults(*more: str, **names: str) -> list[str]:
    with pytest.raises(BitwrightError) as error:
        write(*more, **names)
    assert not Path("mine.yaml").exists()
    return str(error.value).splitlines()


def task() -> dict[str, Any]:
    """Return the task of the study that was written, which must be one in every respect."""
    study, document = read_study(Path("mine.yaml"))
    check_inputs(study, document)
    build_plan(study, document=document)
    assert study.task is not None
    return study.task.model_dump(mode="json")


@pytest.mark.usefixtures("folder")
def test_of_two_columns_that_with_fewer_values_is_the_label() -> None:
    printed = write()
    assert (
        "column review is the text, column verdict the label: 40 train rows, 40 dev rows, classes bad/good"
        in printed
    )
    assert "bare has no classifier" in printed
    assert (task()["text"], task()["label"], task()["metric"]) == (
        ["review"],
        "verdict",
        ["accuracy"],
    )
    assert "recipe: float" in Path("mine.yaml").read_text()


@pytest.mark.parametrize(
    "flags",
    [["--text", "review"], ["--label", "verdict"], ["--text", "review", "--label", "verdict"]],
)
def test_a_column_may_be_named(flags: list[str], folder: Path) -> None:
    one_each = [("good", "x"), ("bad", "y")]
    for name in ("train.tsv", "dev.tsv"):
        table(folder / name, rows=one_each)
    assert faults() == [
        "train.tsv: review and verdict have 2 values each; say which is which: --text COLUMN --label COLUMN"
    ]
    write(*flags)
    assert (task()["text"], task()["label"]) == (["review"], "verdict")


def test_a_text_is_no_label(folder: Path) -> None:
    for name in ("train.tsv", "dev.tsv"):
        table(folder / name, rows=[(f"row {n}", "good" if n % 2 else "bad") for n in range(60)])
    assert faults("--text", "verdict", "--label", "review") == [
        "train.tsv: column 'review' has 60 different values in 60 rows: is it the label? Give --text and --label, or"
        " --metric accuracy if these are classes"
    ]


def test_rows_of_both_parts_are_counted_and_one_file_is_refused(folder: Path) -> None:
    table(folder / "dev.tsv", rows=[*ROWS, ("row of a 0", "bad"), ("row of b 1", "good")])
    assert "2 of the dev texts are train texts, too" in write()
    assert task()["dev"] == "dev.tsv"
    study, document = read_study(Path("mine.yaml"), ["task.dev=train.tsv"])
    with pytest.raises(
        BitwrightError, match=r"task\.train: train and dev must be two files, not both train\.tsv"
    ):
        check_inputs(study, document)
    Path("mine.yaml").unlink()
    assert faults(dev="./train.tsv") == ["train and dev must be two files, not both train.tsv"]


@pytest.mark.usefixtures("folder")
def test_two_machines_of_one_name_are_refused() -> None:
    """Their rows would be averaged as if they were one machine's of two seeds."""
    toy = find_machine("toy").read_text(encoding="utf-8")
    for name in ("first", "second"):
        Path(f"{name}.yaml").write_text(toy, encoding="utf-8")
    write("--machine", "first.yaml")
    study, document = read_study(Path("mine.yaml"), ["machines=[first.yaml, second.yaml]"])
    with pytest.raises(BitwrightError) as error:
        build_plan(study, document=document)
    assert str(error.value).endswith(
        "machines.1: must have a name of its own, 'toy' is that of machines.0; change `name:` in its file, or give"
        " `{machine: FILE, name: ...}`"
    )
    named = "machines=[first.yaml, {machine: second.yaml, name: other}]"
    study, document = read_study(Path("mine.yaml"), [named])
    assert {
        n.tags["machine"] for n in build_plan(study, document=document).of_kind("evaluate")
    } == {
        "toy",
        "other",
    }


@pytest.mark.usefixtures("folder")
def test_a_checkpoints_file_and_a_machines_name_without_ending_are_told_what_to_give() -> None:
    Path("own.yaml").write_text("extends: toy\n")
    told = faults("--machine", "own", given="bare/model.safetensors")
    assert (
        told[0]
        == "bare/model.safetensors: is a file; a checkpoint is the folder that holds it: bare"
    )
    assert told[1].endswith("not 'own'; did you mean 'own.yaml'?")


def test_of_more_columns_it_asks(folder: Path) -> None:
    rows = [(str(n), f"row {n}", "good" if n % 2 else "bad") for n in range(8)]
    for name in ("train.tsv", "dev.tsv"):
        table(folder / name, "id\treview\tverdict", rows)
    assert faults("--text", "review") == [
        "train.tsv: has the columns id, review, verdict; say which is which: --text COLUMN --label COLUMN"
    ]
    assert faults("--text", "reviews", "--label", "verdict") == [
        "train.tsv:1: no column 'reviews'; the file has id, review, verdict; did you mean 'review'?"
    ]
    write("--text", "review", "--label", "verdict")
    assert task()["label"] == "verdict"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_tables_of_other_kinds(suffix: str, folder: Path) -> None:
    files = {part: f"{part}{suffix}" for part in ("train", "dev")}
    for name in files.values():
        if suffix == ".csv":
            table(folder / name)
        else:
            rows = [
                json.dumps({"review": f"{text} {n}", "verdict": label})
                for n in range(9)
                for text, label in ROWS
            ]
            (folder / name).write_text("\n".join(rows))
    write(**files)
    assert task()["label"] == "verdict"


def test_fractions_are_scores_or_classes_as_one_says(folder: Path) -> None:
    for name in ("train.tsv", "dev.tsv"):
        table(folder / name, "review\tstars", [(f"row {n}", f"{n % 4 / 2}") for n in range(20)])
    (fault,) = faults()
    assert fault == (
        "train.tsv: column 'stars' has numbers such as 0.5: give --metric spearman if they are scores, --metric"
        " accuracy if they are classes"
    )
    assert faults("--metric", "spearmen") == [
        "--metric must be of accuracy, f1, matthews, pearson, spearman, not 'spearmen'; did you mean 'spearman'?"
    ]
    assert "labels are scores" in write("--metric", "spearman")
    assert task()["metric"] == ["spearman"]
    Path("mine.yaml").unlink()
    assert "classes 0.0/0.5/1.0/1.5" in write("--metric", "accuracy")


@pytest.mark.usefixtures("without_figures")
def test_a_fine_tuned_checkpoint_is_the_teacher_in_its_own_order(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_bert(folder / "tuned", ["GOOD", "BAD"])
    assert "tuned is fine-tuned and the teacher as it is: classes GOOD, BAD" in write(
        "--steps", "1", given="tuned"
    )
    assert task()["labels"] == ["good", "bad"]
    with pytest.raises(typer.Exit):
        sweep.main("mine.yaml", dry_run=True)
    planned = capsys.readouterr().out
    assert "    float32 seed 0 (measured, not trained)\n" in planned
    assert "    W8A8 seed 0\n" in planned
    with pytest.raises(typer.Exit) as end:
        sweep.main("mine.yaml", workers=0, overrides=["samples=4", "machines=[ternary_edge]"])
    assert end.value.exit_code == 0
    results = load_results(Path("bitwright-runs/mine"))
    assert {(r.student, r.status, r.unequal_tensors) for r in results.rows} == {
        (student, "ok", 0) for student in new.STUDENTS
    }


@pytest.mark.usefixtures("folder")
def test_a_hub_id_is_not_asked_for() -> None:
    assert "owner/name is looked at when it is fetched" in write(given="owner/name")


def test_names_that_do_not_agree_leave_the_tables_order(folder: Path) -> None:
    save_bert(folder / "tuned", ["LABEL_0", "LABEL_1"])
    assert "LABEL_0 is taken for bad, LABEL_1 is taken for good (`labels:`" in write(given="tuned")
    assert task()["labels"] is None


def test_a_classifier_for_something_else_is_refused(folder: Path) -> None:
    save_bert(folder / "three", ["a", "b", "c"])
    assert faults(given="three") == [
        "three: its classifier must be for 2 classes, bad, good, not for a, b, c; give a checkpoint without a"
        " classifier, or one that fits"
    ]
    for name in ("train.tsv", "dev.tsv"):
        table(folder / name, "review\tstars", [(f"row {n}", f"{n % 4 / 2}") for n in range(20)])
    (fault,) = faults("--metric", "pearson", given="three")
    assert fault.startswith("three: its classifier must be for a score, not for a, b, c;")
    save_bert(folder / "one", ["LABEL_0"])
    assert "the teacher as it is: it gives a score" in write("--metric", "pearson", given="one")


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_written(folder: Path) -> None:
    (folder / "dev.tsv").write_text("review\tverdict\nrow\tgod\n")
    told = faults("--machine", "ternary_egde", "--machine", "toy", given="chekpoint")
    assert told == [
        "dev.tsv:2: column 'verdict': must be one of bad, good, not 'god'",
        "chekpoint: no such folder (nor 'minilm', nor a hub id OWNER/NAME)",
        told[2],
    ]
    assert told[2].endswith("not 'ternary_egde'; did you mean 'ternary_edge'?")


@pytest.mark.usefixtures("folder")
def test_a_study_that_is_there_is_not_written_over() -> None:
    write()
    before = Path("mine.yaml").read_text()
    with pytest.raises(BitwrightError, match=r"mine\.yaml: exists already; give another name"):
        write("--steps", "3")
    assert Path("mine.yaml").read_text() == before


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("train.tsv", "", r"train\.tsv: the file is empty"),
        ("train.jsonl", "[1]\n", r"train\.jsonl:1: the first line must be a JSON object"),
        ("train.jsonl", "", r"train\.jsonl:1: the first line must be a JSON object"),
        ("train.xlsx", "x", r"train\.xlsx: the suffix must be \.tsv, \.txt, \.csv or \.jsonl, not '\.xlsx'"),
        ("none.tsv", None, r"none\.tsv: no such file"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table(name: str, content: str | None, fault: str, folder: Path) -> None:
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(BitwrightError, match=fault):
        write(train=name)
