"""Questions to a study: filter, front, order and formats agree with plain loops; faults name what is near."""

from __future__ import annotations

import csv
import doctest
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hwsim.errors import ConfigError
from studies import markdown, synthetic
from studies.columns import (
    Column,
    Origin,
    Record,
    all_columns,
    columns_of,
    find_column,
    result_records,
)
from studies.ledger import FILE_NAME, Attempt, Ledger
from studies.query import app, in_order, load, on_front, parse_front, parse_order
from studies.row import COLUMNS, Row
from studies.sql import where
from studies.table import load_results

duckdb = pytest.importorskip("duckdb")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.make_folder(tmp_path_factory.mktemp("study") / "digits", fail=True)


@pytest.fixture(scope="module")
def records(folder: Path) -> list[Record]:
    return load([folder])[1]


def ask(*arguments: object) -> str:
    answer = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert answer.exit_code == 0
    return answer.stdout


def test_every_column_says_what_it_means() -> None:
    columns = all_columns()
    assert [c.name for c in columns[: len(COLUMNS)]] == list(COLUMNS)
    assert all(c.meaning for c in columns)
    assert len({c.name for c in columns}) == len(columns)
    kinds = {c.name: (c.type, c.unit) for c in columns}
    assert kinds["student"] == ("text", "")
    assert kinds["seed"] == ("integer", "")
    assert kinds["energy_pj_high"] == ("number", "pJ")
    assert kinds["latency_s_steady"] == ("number", "s")
    assert kinds["latency_cycles_cold"] == ("integer", "cycles")
    assert kinds["side_array_cycles_frac"] == ("number", "fraction")  # a share of cycles, no cycles
    assert kinds["area_um2"] == ("number", "µm²")
    assert kinds["counts"] == ("boolean", "")
    assert kinds["date"] == ("date", "")


def test_the_list_of_columns_is_that_of_the_fields() -> None:
    listed = ask("--columns")
    for column in (*columns_of(Row), *columns_of(Origin)):
        assert f"| {column.name} " in listed
        assert column.meaning in listed


def test_a_record_has_its_row_and_where_that_came_from(folder: Path, records: Any) -> None:
    results = load_results(folder)
    assert len(records) == len(results.rows) == 48
    for record, row in zip(records, results.rows, strict=True):
        assert [record[name] for name in COLUMNS] == [getattr(row, name) for name in COLUMNS]
        node = results.plan.by_id[record["node"]]
        assert node.tags == {k: record[k] for k in ("student", "seed", "machine", "family")}
        assert (record["attempt"], record["host"], record["counts"]) == (1, "bench", True)
        assert record["date"].isoformat() == "2026-11-22T10:00:00+00:00"
        assert record["python"] == sys.version.split()[0]


def test_a_row_that_was_not_run_has_no_origin_but_its_node(tmp_path: Path) -> None:
    made = synthetic.make_folder(tmp_path / "one", seeds=(0,))
    (made / FILE_NAME).unlink()
    for record in load([made])[1]:
        assert record["status"] == "missing"
        assert record["label"].startswith(record["student"])
        assert record["attempt"] is record["date"] is record["host"] is None
        assert not record["counts"]


def test_a_condition_is_sql(records: list[Record]) -> None:
    found = where(records, all_columns(), "score > 0.96 AND machine LIKE '%nary_edge' -- so")
    wanted = [r for r in records if (r["score"] or 0) > 0.96 and r["machine"] == "ternary_edge"]
    assert found == wanted
    assert 0 < len(found) < len(records)
    assert {r["status"] for r in where(records, all_columns(), "score IS NULL")} == {
        "refused",
        "failed",
    }
    assert where(records, all_columns(), "score <> 0") == [r for r in records if r["score"]]
    assert where(records, all_columns(), "date < '2026-11-22 10:00:00+00:00'") == []


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("scre > 0.9", r"^--where: there is no column 'scre'; did you mean 'score'\?"),
        ("score >", "syntax error"),
        ("machine > 3", "Cannot compare"),
        ("sqroot(score) > 3", "sqroot does not exist"),
    ],
)
def test_a_condition_that_is_wrong_is_one_line(
    records: list[Record], condition: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as fault:
        where(records, all_columns(), condition)
    assert str(fault.value).count("\n") == 0
    assert condition in str(fault.value)


VALUES = st.one_of(st.none(), st.integers(0, 3))


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


@given(st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=12), st.tuples(*[st.booleans()] * 3))
@settings(derandomize=True, deadline=None, max_examples=80)
def test_front_is_what_no_other_beats(
    values: list[tuple[int | None, ...]], large: tuple[bool, ...]
) -> None:
    columns = [Column(name, "number", "", "") for name in "abc"]
    rows = [dict(zip("abc", row, strict=True)) for row in values]
    kept, dropped = on_front(rows, list(zip(columns, large, strict=True)))
    able = [row for row in rows if None not in row.values()]

    def costs(row: Record) -> list[float]:
        return [-v if big else v for v, big in zip(row.values(), large, strict=True)]

    assert kept == [r for r in able if not any(dominates(costs(o), costs(r)) for o in able)]
    assert dropped == len(rows) - len(able)


@given(st.lists(st.tuples(VALUES, VALUES), max_size=10), st.booleans(), st.booleans())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_order_is_stable_and_puts_what_is_missing_last(
    values: list[tuple[int | None, int | None]], down_a: bool, down_b: bool
) -> None:
    columns = [Column(name, "number", "", "") for name in "ab"]
    rows: list[Record] = [{"a": a, "b": b, "i": i} for i, (a, b) in enumerate(values)]

    def key(row: Record) -> list[float]:
        infinite = float("inf")
        signs = {"a": -1 if down_a else 1, "b": -1 if down_b else 1}
        return [infinite if row[n] is None else signs[n] * row[n] for n in signs]

    found = in_order(rows, list(zip(columns, (down_a, down_b), strict=True)))
    assert found == sorted(rows, key=key)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("score:max", "two or more different"),
        ("score:max,score:min", "two or more different"),
        ("score,energy_pj:min", "COLUMN:max or COLUMN:min, such as score:min"),
        ("score:max,enrgy_pj:min", "there is no column 'enrgy_pj'; did you mean 'energy_pj'"),
        ("score:max,machine:min", "'machine' must be a column of numbers, it is text"),
    ],
)
def test_a_front_that_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_front(text, all_columns())


def test_an_order_that_is_wrong() -> None:
    with pytest.raises(ConfigError, match="COLUMN:asc or COLUMN:desc"):
        parse_order("seed:up", all_columns())
    with pytest.raises(ConfigError, match="did you mean 'seed'"):
        parse_order("sed", all_columns())


def test_steps_follow_each_other(folder: Path) -> None:
    # the front is that of the rows which the condition leaves, and the limit counts what is on it
    asked = ("--where", "seed = 1", "--front", "score:max,energy_pj:min", "--format", "json")
    found = json.loads(ask(folder, *asked, "--order", "energy_pj:desc", "--limit", 2))
    rows = [r for r in load_results(folder).rows if r.seed == 1 and r.status == "ok"]
    front = [
        (r.energy_pj, r.student)
        for r in rows
        if not any(dominates((-o.score, o.energy_pj), (-r.score, r.energy_pj)) for o in rows)  # type: ignore[operator, arg-type]
    ]
    assert [(r["energy_pj"], r["student"]) for r in found] == sorted(front, reverse=True)[:2]
    assert len(front) > 2


def test_formats_hold_the_same(folder: Path, tmp_path: Path) -> None:
    chosen = ("--select", "student,seed,score,counts", "--order", "student,seed:desc")
    data = json.loads(ask(folder, *chosen, "--format", "json"))
    assert list(data[0]) == ["student", "seed", "score", "counts"]
    out = tmp_path / "a.csv"
    ask(folder, *chosen, "--out", out)
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["student"] for r in rows] == [d["student"] for d in data]
    assert [float(r["score"]) if r["score"] else None for r in rows] == [d["score"] for d in data]
    ask(folder, *chosen, "--out", tmp_path / "a.parquet")
    found = duckdb.execute(f"SELECT * FROM '{tmp_path / 'a.parquet'}'").fetchall()
    assert found == [tuple(d.values()) for d in data]
    table = ask(folder, *chosen).splitlines()
    assert len(table) == 2 + len(data)
    assert len({len(line) for line in table}) == 1  # aligned
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.csv", "a.parquet"]  # no rests


def test_parquet_says_units_and_meanings(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    ask(folder, "--out", out, "--limit", 1)
    meta = dict(duckdb.execute(f"SELECT key, value FROM parquet_kv_metadata('{out}')").fetchall())
    columns = json.loads(meta[b"columns"])
    assert list(columns) == [c.name for c in all_columns()]
    assert columns["energy_pj"] == {
        "unit": "pJ",
        "meaning": "energy of a steady inference, nominal",
    }
    assert meta[b"schema"] == b"studies/table/1"


def test_several_studies_are_told_apart(folder: Path, tmp_path: Path) -> None:
    other = synthetic.make_folder(tmp_path / "other", seeds=(7,))
    columns, records = load([folder, other])
    assert columns[0].name == "study"
    assert [r["study"] for r in records] == [str(folder)] * 48 + [str(other)] * 16
    with pytest.raises(ConfigError, match="given twice"):
        load([folder, tmp_path / ".." / tmp_path.name / "other", other])


def test_all_attempts_are_shown_and_which_counts(tmp_path: Path) -> None:
    folder = synthetic.make_folder(tmp_path / "s", seeds=(0,), students={"W8A8": 0.97})
    with Ledger(folder) as ledger:
        ok = ledger.attempts[-1]
        made = {"seconds": 1.0, "host": "h", "date": "2026-11-23T10:00:00+00:00"}  # as of old
        for node, status in ((ok.id, "failed"), ("gone", "failed"), ("gone", "ok")):
            new = (node, ledger.next_attempt(node), status, ok.kind, "l", {}, ())
            result = ok.result if status == "ok" else None
            ledger.append(Attempt(*new, result, None if result else "boom", made))  # type: ignore[arg-type]
    _, records = load([folder], attempts=True)
    assert len(records) == 7 + 3
    last = records[-4:]
    assert [(r["attempt"], r["status"], r["counts"]) for r in last] == [
        (1, "ok", True),
        (2, "failed", False),
        (1, "failed", False),
        (2, "ok", True),
    ]
    assert [r["reason"] for r in last] == [None, "boom", "boom", None]
    assert last[0]["energy_pj"] == last[3]["energy_pj"] > 0
    # the node that the plan has no more belongs to no student; an old attempt knows no versions
    assert [r["student"] for r in last] == ["W8A8", "W8A8", None, None]
    assert [r["torch"] is None for r in last] == [False, True, True, True]
    kinds = [r["kind"] for r in records]
    assert kinds[:3] == ["train", "train", "export"]
    assert records[0]["student"] == "float32"
    assert records[0]["machine"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give the folder of a study"),
        (["nowhere"], "no study was run here"),
        (["FOLDER", "--select", "student,scre"], "did you mean 'score'"),
        (["FOLDER", "--format", "parquet"], "give --out FILE"),
        (["FOLDER", "--out", "a.txt"], "must end in .md, .csv, .json, .parquet, not 'a.txt'"),
    ],
)
def test_faults_of_the_user(folder: Path, arguments: list[str], says: str) -> None:
    given_ = [str(folder) if a == "FOLDER" else a for a in arguments]
    answer = CliRunner().invoke(app, given_)
    assert says in str(answer.exception)


def test_nothing_heavy_is_imported_before_it_is_needed(folder: Path) -> None:
    code = (
        "import sys, studies.query, studies.merge, studies.compare, studies.table\n"
        f"studies.query.load([studies.query.Path({str(folder)!r})])\n"
        "heavy = {'duckdb', 'torch', 'numba', 'scipy', 'matplotlib', 'networkx'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_results_of_a_folder_are_those_of_its_records(folder: Path, records: list[Record]) -> None:
    assert result_records(load_results(folder)) == records
    assert find_column("seed", all_columns()).type == "integer"


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(markdown).failed == 0
