"""A study's result file, and what the page says of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from hwsim.errors import CheckpointError
from hwsim.report.figure import render_files
from studies import table
from studies.curves import curve, curves_figure, families
from studies.front import front_of
from studies.metric import METRICS
from studies.record import load_results, results_page, study
from studies.record_front import MOST_POINTS
from studies.record_study import collect_study, study_section
from studies.synthetic import MACHINES, STUDENTS, make_folder, make_hardware_folder
from studies.text import SPACE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("study") / "digits", unequal=True)


def test_every_student_and_seed_is_there_with_its_curve(folder: Path) -> None:
    result = collect_study(folder)
    students = {s["name"]: s for s in result["students"]}
    assert list(students) == ["float32", *STUDENTS]
    assert students["W2A8 TI-G"]["control"] == "W2A8 KD"
    for name, student in students.items():
        assert list(student["by_seed"]) == ["0", "1", "2"]
        for cell in student["by_seed"].values():
            assert len(cell["curve"]) == 2
            assert list(cell["machines"]) == ([] if name == "float32" else list(MACHINES))
    assert "lacks" in students["W8A8"]["by_seed"]["0"]["machines"]["xnor_edge"]["refused"]
    assert json.loads(json.dumps(result)) == result


def test_the_section_has_means_paired_differences_and_unequal_tensors(folder: Path) -> None:
    result = collect_study(folder)
    text = "\n".join(study_section(result)).replace(SPACE, " ")
    cells = {s["name"]: s["by_seed"] for s in result["students"]}
    differences = [
        cells["W2A8 TI-G"][seed]["machines"]["xnor_edge"]["accuracy"]["value"]
        - cells["W2A8 KD"][seed]["machines"]["xnor_edge"]["accuracy"]["value"]
        for seed in "012"
    ]
    mean = 100 * math.fsum(differences) / 3
    assert f"| {mean:+.1f} (" in text
    assert text.count(" on W2A8 KD |") == 1
    # W8A8 is refused by one of four machines; its seed 1 has 3 unequal tensors on one
    assert (
        "3 unequal tensors in 45 runs on machines; rungs A1 to A3 hold on 12 of 12 exports" in text
    )


def test_what_is_not_finished_is_no_result(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "digits", fail=True)
    with pytest.raises(
        CheckpointError, match="1 of 75 nodes are not finished, first W1A1 BiT seed 1"
    ):
        collect_study(folder)


def test_file_and_page(folder: Path, tmp_path: Path) -> None:
    study(folder, tmp_path / "digits.json")
    page = results_page(load_results(tmp_path))
    assert "## digits" in page
    assert "| W1A1 BiT |" in page


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "digits", seeds=(0,))
    rows = [line for line in study_section(collect_study(folder)) if line.startswith("| W1A1 BiT")]
    assert "(no interval: one seed)" in rows[0]


def test_curves_of_what_is_compared(folder: Path, tmp_path: Path) -> None:
    result = collect_study(folder)
    names = [[s["name"] for s in group] for group in families(result["students"])]
    assert names == [["W2A8 KD", "W2A8 TI-G"]]  # those without a control stand alone
    assert "](img/curves_digits.svg)" in "\n".join(study_section(result))
    png, svg = render_files(curves_figure(result), tmp_path / "curves")
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert "W2A8 TI-G" in svg.read_text()


def test_a_curve_is_the_mean_and_the_range_of_its_seeds() -> None:
    cells = {"0": {"curve": [[10, 0.5], [20, 0.75]]}, "1": {"curve": [[10, 0.25], [20, 0.75]]}}
    assert curve({"by_seed": cells}, METRICS["accuracy"]) == (
        [10, 20],
        [37.5, 75.0],
        [25.0, 75.0],
        [50.0, 75.0],
    )


def test_the_front_is_kept_with_the_answer_and_shown(folder: Path) -> None:
    result = collect_study(folder)
    front = front_of(table.load_results(folder), table.load_results(folder).points())
    assert result["answer"][0].startswith(f"{len(front.members)} of {len(front.points)} measured")
    kept = [(p["student"], p["machine"]) for p in result["front"]]
    assert kept == [(front.points[i].student, front.points[i].machine) for i in front.members]
    first = front.points[front.members[0]]
    low, nominal, high = result["front"][0]["energy_pj"]
    assert nominal == pytest.approx(first.cost("energy_pj").nominal, rel=1e-5)
    assert low < high
    section = study_section(json.loads(json.dumps(result)))
    assert all(paragraph in section for paragraph in result["answer"])
    assert sum(line.startswith("| model") for line in section) == 1


def test_a_study_of_hardware_alone_is_kept_too(tmp_path: Path) -> None:
    made = make_hardware_folder(tmp_path / "hw", 30)
    result = collect_study(made)
    assert (result["metric"], result["students"], result["seeds"]) == (None, [], [])
    assert result["criteria"] == ["energy_pj", "latency_s", "area_um2"]
    assert result["machines"] == 30
    section = study_section(result)
    assert section[0] == f"## {result['name']}"
    assert f"{result['points']} combinations of 30 machines" in section[2]
    more = len(result["front"]) - MOST_POINTS
    assert (f"The {more} other points of the front are in the result file." in section) == (more > 0)  # fmt: skip
