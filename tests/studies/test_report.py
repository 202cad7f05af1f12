"""The report: complete, self-contained, honest about what went wrong."""

from __future__ import annotations

import csv
import doctest
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hwsim.report.figure import WIDE
from studies import figures, latex, synthetic, text
from studies.figures import GRID_CELLS, MOST_NAMES, Mark, front_figure, thinned
from studies.operators import Names, compact
from studies.pareto import Interval
from studies.plan import Plan
from studies.provenance import provenance, reproduce
from studies.quantities import COSTS, judge
from studies.report import build_report, main, problems
from studies.row import COLUMNS, Row
from studies.table import Point, load_results
from studies.tables import rows_by_seed

DOCS = Path(__file__).parents[2] / "docs"


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
    # two fronts, two figures wide and narrow, and the interactive front
    assert page.svgs == 2 + 2 * 2 + 1
    assert len(page.ids) == len(set(page.ids))
    assert all(load.startswith("#") and load[1:] in page.ids for load in page.loads)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(page.ids)
    for word in ("http:", "https:", "//cdn", "@import", "<script src", "<link", "<img", "<iframe"):
        assert word not in html
    assert len(html) < 1_500_000


def test_page_says_what_a_reader_needs(html: str) -> None:
    order = [
        "What do one and two bits cost",
        "on the front of accuracy against energy",
        "Accuracy against energy</h2>",
        "Where the energy goes</h2>",
        "How the trainings converged</h2>",
        "Accuracy</h2>",
        "Methods</h2>",
        "Who is on the front</h2>",
        "At equal accuracy</h2>",
        "What one machine or one student reaches alone</h2>",
        "Machines</h2>",
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
    assert "To know before the numbers are believed" not in html
    assert html.count("<title>") > 100  # every mark can be hovered
    assert "color-scheme: light dark" in html
    assert "@media print" in html


def test_figures_are_files_with_labelled_axes(folder: Path) -> None:
    figures = folder / "figures"
    names = {"front_energy", "front_latency", "energy_by_component", "curves"}
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


def test_each_figure_has_its_data_beside_it(folder: Path) -> None:
    results = load_results(folder)
    judged = judge(results)
    with (folder / "figures/front_energy.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(judged.points) == 15
    assert [r["standing"] for r in rows] == judged.standing
    assert [float(r["energy_pj"]) for r in rows] == [
        p.cost("energy_pj").nominal for p in judged.points
    ]
    with (folder / "figures/energy_by_component.csv").open(newline="") as stream:
        parts = list(csv.DictReader(stream))
    total = sum(float(r["energy_pj"]) for r in parts)
    assert total == pytest.approx(
        sum(sum(synthetic.COMPONENTS.values()) * p.cost("energy_pj").nominal for p in judged.points)
    )
    with (folder / "figures/curves.csv").open(newline="") as stream:
        curves = list(csv.DictReader(stream))
    assert len(curves) == 4 * 3 * 2  # students, seeds, evaluations; teachers have no control


def test_latex_tables_hold_the_front_and_the_paired_differences(folder: Path) -> None:
    results = load_results(folder)
    judged = judge(results)
    front, methods = (folder / "table.tex").read_text().split(r"\end{tabular}")[:2]
    lines = front.splitlines()
    first = judged.front()[0]
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == len(judged.front())
    assert body[0].startswith(f"{first.student} & {first.machine.replace('_', chr(92) + '_')} & ")
    assert f" {first.cost('energy_pj').nominal * 1e-6:.3f} [" in body[0]
    ours, theirs = (rows_by_seed(results, name) for name in ("W2A8 TI-G", "W2A8 KD"))
    mean = 100 * sum((ours[s].score or 0) - (theirs[s].score or 0) for s in ours) / 3
    assert f"& W2A8 KD & ${mean:+.1f} [" in methods
    assert front.count("{") == front.count("}")
    assert methods.count("&") % 4 == 0


def test_equal_layers_are_one_line_and_others_are_not() -> None:
    kept = synthetic.operators(1000.0, 5000)
    names = Names()
    rows = compact(kept, names)["rows"]
    assert [(names.texts[r[0]], r[4]) for r in rows] == [
        ("vit.embeddings.acc", 1),
        ("vit.layers.*.mlp.fc1.acc", 3),
        ("vit.layers.*.sum", 3),
    ]
    kept["operators"][2]["dram_bytes"] = 64  # this layer's weights are streamed
    rows = compact(kept, names)["rows"]
    assert [(names.texts[r[0]], r[4]) for r in rows][1:3] == [
        ("vit.layers.*.mlp.fc1.acc", 2),
        ("vit.layers.1.mlp.fc1.acc", 1),
    ]
    assert sum(r[7] for r in rows) == pytest.approx(sum(o["energy_pj"] for o in kept["operators"]))


def test_hardware_alone_has_no_accuracy_and_few_lines(tmp_path: Path) -> None:
    made = synthetic.make_hardware_folder(tmp_path / "hw", 100)
    page = build_report(made).read_text()
    assert "accuracy" not in page[page.index("<body>") : page.index("<script")].lower()
    judged = judge(load_results(made))
    assert {p.stem for p in (made / "figures").glob("*.csv")} == {
        "front_energy_latency",
        "front_energy_area",
        "front_latency_area",
        "energy_by_component",
    }
    assert "Front and extremes</h2>" in page
    for word in ("least energy", "least latency", "least area"):
        assert word in page
    assert len(judged.points) == 200
    assert page.count("<tr") < 150
    assert all(
        s == "infeasible"
        for s, p in zip(judged.standing, judged.points, strict=True)
        if p.cost("latency_s").nominal > 9e-5
    )


def test_thinning_keeps_the_step_line_and_stays_small() -> None:
    draw = random.Random(2)
    point = Point("s", "m", (Row("s", 0, "m", "ok", family="m"),), None, {})
    marks = []
    for _ in range(5000):
        x, y = draw.uniform(1, 100), draw.uniform(1, 100)
        look = ("blue", draw.choice("os"))
        marks.append(Mark(point, look, "dominated", Interval(x, x, x), Interval(y, y, y)))
    kept = thinned(marks, COSTS["latency_s"])
    line = [
        m
        for m in marks
        if not any(o.x.nominal <= m.x.nominal and o.y.nominal < m.y.nominal for o in marks)
    ]
    assert {id(m) for m in line} <= {id(m) for m in kept}
    # one a cell and look
    assert len(kept) <= 2 * GRID_CELLS[0] * GRID_CELLS[1] + len(line)
    assert len(kept) > GRID_CELLS[0] * GRID_CELLS[1]


def test_machines_beyond_all_shapes_leave_the_figure_its_place(tmp_path: Path) -> None:
    shown = []
    for count in (MOST_NAMES, MOST_NAMES + 1):
        machines = synthetic.many_machines(count)
        made = synthetic.make_folder(tmp_path / str(count), (0,), {"W8A8": 0.9}, machines=machines)
        judged = judge(load_results(made))
        figure = front_figure(
            judged, judged.quantities["energy_pj"], judged.quantities["score"], None
        )
        assert figure is not None
        legend = figure.painter(WIDE).figure.legends[0]
        texts = [text.get_text() for text in legend.get_texts()]
        shown.append((figure.caption, [name for name in machines if name in texts]))
        assert "W8A8" in texts
        assert len(figure.rows) == count
    (few, named), (many, unnamed) = shown
    assert "share" not in few
    assert len(named) == MOST_NAMES
    assert "25 machines share 8 shapes: the data beside the figure names them." in many
    assert unnamed == []


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


@pytest.mark.usefixtures("without_figures")
def test_faults_stand_at_the_top(tmp_path: Path) -> None:
    folder = synthetic.make_folder(
        tmp_path / "bad", (0, 1), {"W8A8": 0.97, "W1A1 BiT": 0.93}, True, True
    )
    results = load_results(folder)
    found = problems(results)
    assert "W8A8 seed 1 on int8_edge: 3 tensors differ from the reference" in found
    assert any(p.startswith("W1A1 BiT seed 1 on int8_edge failed: MemoryError") for p in found)
    results.exported[0].rungs["failures"].append("A2 prediction agreement 0.9250 is below 0.99")
    (rung,) = (p for p in problems(results) if "A2" in p)
    heading = re.search(r"docs/verify\.md, '(.*)'", rung)
    assert heading is not None
    assert f"## {heading[1]}\n" in (DOCS / "verify.md").read_text(encoding="utf-8")
    page = build_report(folder).read_text()
    assert page.index("To know before the numbers are believed") < page.index("Accuracy</h2>")
    assert "<script>alert" not in page  # an error's text is text
    assert "&lt;script&gt;" in page


def test_one_evaluation_a_student_is_no_curve(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = judge(load_results(folder))
    students = figures.students_of(judged.results)
    assert "curves" in figures.study_figures(judged, None)
    for student in students:
        for cell in student["by_seed"].values():
            del cell["curve"][1:]
    monkeypatch.setattr(figures, "students_of", lambda _: students)
    assert "curves" not in figures.study_figures(judged, None)


def test_a_table_of_ones_own_is_named_and_so_are_its_files(folder: Path) -> None:
    shipped = load_results(folder)
    assert ("Task", "digits") in provenance(shipped)
    assert "# the study's own files" not in reproduce(shipped)
    task = {"text": ["title", "review"], "label": "verdict", "train": "t.tsv", "dev": "d.tsv"}
    teacher = {"name": "float32", "model": {"checkpoint": "ckpt"}}
    study = {**shipped.plan.study, "task": task, "teacher": teacher}
    node = replace(shipped.plan.nodes[0], spec={"machine": "my_edge.yaml"})
    invocation = "python -m studies.sweep 'my study.yaml' --set seeds=[0]"
    own = replace(shipped, plan=Plan(study, (*shipped.plan.nodes, node), invocation))
    assert ("Task", "table t.tsv / d.tsv, title, review -> verdict") in provenance(own)
    assert reproduce(own).splitlines()[-2:] == [
        "# the study's own files are not in the repository; put them here:"
        " my study.yaml, my_edge.yaml, t.tsv, d.tsv, the checkpoint ckpt",
        f".venv/bin/{invocation}",
    ]


@pytest.mark.usefixtures("without_figures")
def test_one_seed_has_no_interval_and_nothing_measured_is_no_crash(tmp_path: Path) -> None:
    one = synthetic.make_folder(tmp_path / "one", seeds=(0,), students={"W8A8": 0.97})
    page = build_report(one).read_text()
    assert "one seed" in page
    assert re.search(r"\bnan\b", page) is None
    (one / "ledger.jsonl").write_text("")
    page = build_report(one).read_text()
    assert "No point has been measured: 4 of 4 rows are not there yet." in page
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
    assert doctest.testmod(latex).failed == 0
