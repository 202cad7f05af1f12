"""GLUE layouts and the user's own tables, and what is said about damaged ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from tiny_runs import word_tokenizer

from hwsim.errors import DataError
from qat.data.spec import TaskSpec
from qat.data.tables import TABLES, Table
from qat.data.task import Task, carve_out, load_task
from qat.data.tsv import read_rows

HEADERS = {
    "sst2": "sentence\tlabel",
    "mrpc": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "rte": "index\tsentence1\tsentence2\tlabel",
    "stsb": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
    "qnli": "index\tquestion\tsentence\tlabel",
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "mnli": "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse"
    "\tsentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
}


def row(table: Table, columns: list[str], number: int) -> str:
    labels = ["0.5", "4.25"] if table.labels is None else list(table.labels)
    fields = {name: f"x{number}" for name in columns}
    fields |= {name: f"{name} of row {number}" for name in table.text}
    fields[table.label] = labels[number % len(labels)]
    return "\t".join(fields[name] for name in columns)


def glue_folder(root: Path, table: Table) -> Path:
    folder = root / table.folder
    folder.mkdir(parents=True)
    columns = list(table.columns) or HEADERS[table.name].split("\t")
    header = "" if table.columns else HEADERS[table.name] + "\n"
    for file in (table.train, *table.dev.values()):
        body = "\n".join(row(table, columns, number) for number in range(12))
        (folder / file).write_text(header + body + "\n", "utf-8")
    return folder


def task(values: Any) -> Task:
    return load_task(TypeAdapter(TaskSpec).validate_python(values), word_tokenizer())


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_glue_layout_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = TABLES[name]
    glue_folder(tmp_path / "glue", table)
    monkeypatch.setenv("BITWRIGHT_DATA", str(tmp_path))
    loaded = task(name)
    assert len(loaded.train) == 11
    assert len(loaded.validation) == 1
    assert set(loaded.tests) == set(table.dev)
    dev = next(iter(loaded.tests.values()))
    assert dev.texts[5] == tuple(f"{column} of row 5" for column in table.text)  # type: ignore[attr-defined]
    if table.labels is None:
        assert loaded.problem == "regression"
        assert dev.labels[:3].tolist() == [0.5, 4.25, 0.5]
        assert str(dev.batch([1])["labels"].dtype) == "torch.float32"
    else:
        assert loaded.labels == tuple(table.labels.values())
        assert dev.labels[:3].tolist() == [n % len(table.labels) for n in range(3)]


def test_a_byte_order_mark_and_unbalanced_quotes_are_plain_text(tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    file.write_text('\ufeffa\tlabel\nhe said "no\t1\nshe did\u2028not"\t0\r\n', "utf-8")
    rows = read_rows(file, ["a"], "label", {"0": "no", "1": "yes"})
    assert rows.texts == [('he said "no',), ('she did\u2028not"',)]
    assert rows.labels == [1, 0]


def test_csv_and_json_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"one, two",yes\nthree,no\n', "utf-8")
    (tmp_path / "b.jsonl").write_text(
        '{"text": "x", "label": "no"}\n\n{"text": "y", "label": "yes"}\n'
    )
    labels = {"no": "no", "yes": "yes"}
    assert read_rows(tmp_path / "a.csv", ["text"], "label", labels).texts == [
        ("one, two",),
        ("three",),
    ]
    assert read_rows(tmp_path / "b.jsonl", ["text"], "label", labels).labels == [0, 1]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("t.tsv", b"", "t.tsv: the file is empty"),
        ("t.tsv", b"text\tlabel\n", "t.tsv: the file has no rows"),
        ("t.tsv", b"texd\tlabel\nx\t0\n", "t.tsv:1: no column 'text'; the file has texd, label; did you mean 'texd'?"),
        ("t.tsv", b"text\tlabel\nx\t0\ny\t2\n", "t.tsv:3: column 'label': must be one of 0, 1, not '2'"),
        ("t.tsv", b"text\tlabel\nx\t0\ny\n", "t.tsv:3: must have 2 fields, has 1"),
        ("t.tsv", b"text\tlabel\nx\t0\n\xff\xfe\t1\n", "t.tsv:3: not UTF-8 text (byte 15)"),
        ("t.csv", b'text,label\n"x,0\n', "t.csv:2: unexpected end of data"),
        ("t.jsonl", b'{"text": "x", "label": "0"}\n{"text": \n', "t.jsonl:2: not JSON: Expecting value at column 10"),
        ("t.jsonl", b'{"text": "x"}\n', "t.jsonl:1: no key 'label'; the object has text"),
        ("t.jsonl", b"[1]\n", "t.jsonl:1: must be a JSON object, not list"),
        ("t.xls", b"x", "t.xls: the suffix must be .tsv, .txt, .csv or .jsonl, not '.xls'"),
    ],
)  # fmt: skip
def test_a_damaged_table_is_refused_with_its_place(
    tmp_path: Path, file: str, content: bytes, message: str
) -> None:
    path = tmp_path / file
    path.write_bytes(content)
    with pytest.raises(DataError) as fault:
        read_rows(path, ["text"], "label", {"0": "no", "1": "yes"})
    assert str(fault.value) == f"{tmp_path}/{message}"


def test_all_faults_of_a_file_come_at_once_but_not_thousands(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("text\tlabel\n" + "x\t7\n" * 12)
    with pytest.raises(DataError) as fault:
        read_rows(path, ["text"], "label", {"0": "no"})
    lines = str(fault.value).splitlines()
    assert len(lines) == 11
    assert lines[1].startswith(f"{path}:3: ")
    assert lines[-1] == "... and 2 more"


def test_a_score_must_be_a_finite_number(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("text\tscore\nx\tnan\n")
    with pytest.raises(DataError, match=r"t\.tsv:2: column 'score': must be a number, not 'nan'"):
        read_rows(path, ["text"], "score", None)


def test_broken_lines_are_skipped_only_up_to_the_allowed_share(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("text\tlabel\n" + "x\t0\n" * 1000 + "cut short\n")
    labels = {"0": "no"}
    assert read_rows(path, ["text"], "label", labels, broken_rows_max=0.001).skipped == 1
    with pytest.raises(DataError, match=r"t\.tsv:1002: must have 2 fields, has 1"):
        read_rows(path, ["text"], "label", labels)


def test_a_missing_folder_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BITWRIGHT_DATA", raising=False)
    with pytest.raises(DataError, match="set BITWRIGHT_DATA to the folder of the data sets, or"):
        task("rte")
    monkeypatch.setenv("BITWRIGHT_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no folder .*/glue/RTE; set BITWRIGHT_DATA or"):
        task("rte")


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"task 'sst3' is unknown; .*did you mean 'sst2'"):
        task("sst3")


def test_the_users_own_table(tmp_path: Path) -> None:
    for part in ("train", "dev"):
        body = "".join(f"question {n},answer {n},{'good' if n % 3 else 'bad'}\n" for n in range(20))
        (tmp_path / f"{part}.csv").write_text("q,a,verdict\n" + body)
    values = {
        "text": ["q", "a"],
        "label": "verdict",
        "metric": ["f1", "accuracy"],
        "train": str(tmp_path / "train.csv"),
        "dev": str(tmp_path / "dev.csv"),
        "validation": {"rows": 5},
    }
    loaded = task(values)
    assert loaded.labels == ("bad", "good")
    assert (len(loaded.train), len(loaded.validation)) == (15, 5)
    assert loaded.metrics == ("f1", "accuracy")
    with pytest.raises(
        ValidationError, match=r"must be of .*, not 'accurcy'; did you mean 'accuracy'"
    ):
        task(values | {"metric": "accurcy"})
    with pytest.raises(ValidationError, match=r"must all judge classes .* not accuracy, pearson"):
        task(values | {"metric": ["accuracy", "pearson"]})
    with pytest.raises(ValidationError, match="labels must be left out: metric 'pearson'"):
        task(values | {"metric": "pearson", "labels": ["good", "bad"]})


def test_the_carve_out_is_seeded_and_disjoint() -> None:
    from qat.data.spec import CarveOut

    train, held_out = carve_out(np.arange(5000), CarveOut())
    again = carve_out(np.arange(5000), CarveOut())
    assert (train == again[0]).all()
    assert len(held_out) == 500
    assert set(train.tolist()).isdisjoint(held_out.tolist())
    assert not (carve_out(np.arange(5000), CarveOut(seed=1))[1] == held_out).all()
    with pytest.raises(DataError, match="carve-out of 5 rows leaves nothing to train on"):
        carve_out(np.arange(5), CarveOut(rows=5))


def test_phrases_of_a_held_out_sentence_are_not_trained_on() -> None:
    from qat.data.parts import containers
    from qat.data.spec import CarveOut

    rows = [
        "A sour little movie at its core",
        "sour little movie",
        "a  Sour",
        "little",
        "a fine little film",
        "fine little",
        "our little",  # letters of `sour little`, not its words
        "a fine little film",
    ]
    found = containers([(row,) for row in rows])
    assert found.tolist() == [0, 0, 0, 0, 4, 4, 6, 4]
    pairs = [("a b c", "d e"), ("b c", "d"), ("c d", "e"), ("c", "d e"), ("b", "e")]
    # a pair lies in another if both its texts do, side by side: the end of one and the start of the next
    assert containers(pairs).tolist() == [0, 0, 2, 0, 4]

    for seed in range(20):
        train, held_out = carve_out(found, CarveOut(rows=1, seed=seed))
        assert held_out[0] in (0, 4, 6)
        assert train.tolist() == [i for i in range(8) if found[i] != held_out[0]]
    with pytest.raises(DataError, match=r"carve-out of 3 rows leaves nothing .* has 3 rows"):
        carve_out(found, CarveOut(rows=3))


def test_text_batches_are_padded_on_the_right_to_their_longest_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    glue_folder(tmp_path / "glue", TABLES["sst2"])
    monkeypatch.setenv("BITWRIGHT_DATA", str(tmp_path))
    dev = task({"name": "sst2", "max_tokens": 16}).tests["dev"]
    dev.texts[0], dev.texts[1] = ("row",), ("row of row of row",)  # type: ignore[attr-defined]
    batch = dev.batch([0, 1])
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0], [1] * 7]
    assert str(batch["attention_mask"].dtype) == "torch.int64"
    assert batch["input_ids"][0, 3:].tolist() == [0] * 4
