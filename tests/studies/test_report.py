"""The report: complete, self-contained, honest about what went wrong."""

from __future__ import annotations

import csv
import doctest
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from studies import synthetic, text
from studies.report import build_report, main, problems
from studies.table import COLUMNS, load_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = synthetic.make_folder(tmp_path_factory.mktemp("study") / "digits")
    build_report(made)
    return made


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report.html").read_text()


class Page(HTMLParser):
    """Collects ids, references and open elements."""

    VOID = frozenset({"meta", "br", "path", "use", "rect", "clippath", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.svgs = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
                self.loads.append(value or "")
        self.svgs += tag == "svg"
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def test_page_is_well_formed_and_loads_nothing(html: str) -> None:
    page = Page()
    page.feed(html)
    assert page.open == []
    assert page.svgs == 6  # three figures, each wide and narrow
    assert len(page.ids) == len(set(page.ids))
    assert all(load.startswith("#") and load[1:] in page.ids for load in page.loads)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(page.ids)
    for word in ("http:", "https:", "//cdn", "@import", "<script", "<link", "<img", "<iframe"):
        assert word not in html
    assert len(html) < 1_000_000


def test_page_says_what_a_reader_needs(html: str) -> None:
    order = [
        "What do one and two bits cost",
        "on the front of accuracy against energy",
        "Accuracy against energy</h2>",
        "Where the energy goes</h2>",
        "Accuracy</h2>",
        "Machines</h2>",
        "The front</h2>",
        "At equal accuracy</h2>",
        "What one machine or one student reaches alone</h2>",
        "From student to integer graph</h2>",
        "Bytes on disk</h2>",
        "Verification</h2>",
        "Not modelled</h2>",
        "Provenance</h2>",
        "Reproduce</h2>",
    ]
    places = [html.index(words) for words in order]
    assert places == sorted(places)
    assert "4 differences are compared: each interval covers 95 % by itself" in html
    assert "0 unequal" in html
    assert "clock tree</li>" in html  # said by all machines
    assert "operand gating <span" in html  # said by one
    assert "it lacks: linear of INT8 x INT8" in html
    assert "git checkout 0123456789abcdef" in html
    assert "incomplete or something is wrong" not in html
    assert html.count("<title>") > 100  # every mark can be hovered
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_figures_are_files_with_labelled_axes(folder: Path) -> None:
    figures = folder / "figures"
    names = {"front_energy", "front_latency", "energy_by_component"}
    assert {p.stem for p in figures.iterdir()} == names
    for name in names:
        assert (figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    svg = (figures / "front_energy.svg").read_text()
    assert "Energy an inference (µJ)" in svg
    assert "Accuracy on the test set (%)" in svg
    assert "Latency of an inference, steady (ms)" in (figures / "front_latency.svg").read_text()


def test_parquet_has_the_values_of_the_csv_with_their_types(folder: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    names = ", ".join(COLUMNS)
    query = f"SELECT {names} FROM '{folder / 'results.parquet'}'"
    found = duckdb.execute(query).fetchall()
    rows = load_results(folder).rows
    assert found == [tuple(getattr(row, name) for name in COLUMNS) for row in rows]
    described = dict(r[:2] for r in duckdb.execute(f"DESCRIBE {query}").fetchall())
    wanted = {"student": "VARCHAR", "seed": "BIGINT", "energy_pj": "DOUBLE"}
    assert described.items() >= wanted.items()
    made = f"SELECT DISTINCT host, attempt, seconds, git_revision[:4] FROM '{folder / 'results.parquet'}'"
    assert duckdb.execute(made).fetchall() == [("bench", 1, 12.3, "0123")]


def test_csv_holds_every_row(folder: Path) -> None:
    with (folder / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * 4 * 4
    assert tuple(rows[0]) == COLUMNS
    assert sum(r["status"] == "refused" for r in rows) == 3
    assert all(r["unequal_tensors"] == "0" for r in rows if r["status"] == "ok")
    energies = [float(r["energy_pj"]) for r in rows if r["status"] == "ok"]
    assert min(energies) > 0


def test_tables_hold_the_measured_numbers(folder: Path, html: str) -> None:
    results = load_results(folder)
    student = next(r for r in results.rows if r.student == "W8A8" and r.status == "ok")
    assert student.correct is not None
    assert f"{100 * student.correct / 540:.1f}" in html
    export = next(e for e in results.exported if e.student == "W1A1 BiT")
    assert export.model_bytes == 13_400 + 41_000  # not the labelled samples
    assert f"{431_112 / export.model_bytes:.1f}" in html
    assert "431,112" in html


def test_faults_stand_at_the_top(tmp_path: Path) -> None:
    folder = synthetic.make_folder(
        tmp_path / "bad", (0, 1), {"W8A8": 0.97, "W1A1 BiT": 0.93}, True, True
    )
    results = load_results(folder)
    found = problems(results)
    assert "W8A8 seed 1 on int8_edge: 3 tensors differ from the reference" in found
    assert any(p.startswith("W1A1 BiT seed 1 on int8_edge failed: MemoryError") for p in found)
    results.plan.study["samples"] = 64  # type: ignore[index]
    assert any("first 64 test samples" in p for p in problems(results))
    page = build_report(folder).read_text()
    assert page.index("incomplete or something is wrong") < page.index(
        "Accuracy against energy</h2>"
    )
    assert "<script" not in page  # an error's text is text
    assert "&lt;script&gt;" in page


def test_one_seed_has_no_interval_and_nothing_measured_is_no_crash(tmp_path: Path) -> None:
    one = synthetic.make_folder(tmp_path / "one", seeds=(0,), students={"W8A8": 0.97})
    page = build_report(one).read_text()
    assert "one seed" in page
    assert re.search(r"\bnan\b", page) is None
    (one / "ledger.jsonl").write_text("")
    page = build_report(one).read_text()
    assert "No point has been measured yet" in page
    assert "4 of 4 rows are not there yet" in page


def test_a_folder_without_a_study_is_a_users_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import typer

    with pytest.raises(typer.Exit) as exit_:
        main(tmp_path)
    assert exit_.value.exit_code == 2
    assert "no study was run here" in capsys.readouterr().err


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(text).failed == 0
