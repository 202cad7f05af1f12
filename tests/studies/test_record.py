"""Result files and the page drawn from them."""

from pathlib import Path

import pytest

from hwsim.errors import CheckpointError
from studies.record import RESULTS_FOLDER, RESULTS_PAGE, load_results, results_page, stage_values
from studies.text import SPACE

ROOT = Path(__file__).resolve().parents[2]


def result(metric: str = "accuracy", value: float = 0.9, unequal: int = 0) -> dict:
    """A result file's content, as small as the page needs it."""
    measured = {"value": value, "total": 200, "wilson_95": [value - 0.05, value + 0.04]}
    return {
        "schema": "studies/result/1",
        "name": "tiny",
        "date": "2026-01-02",
        "git_revision": "0123456789abcdef",
        "host": {"processor": "some processor"},
        "teacher": {"tests": {"dev": {metric: 0.95}}},
        "student": {
            "recipe": "kd_w2a8", "task": "sst2", "seed": 3, "steps": 600, "kept_step": 500, "wall_s": 120.0,
            "metric": metric, "tests": {"dev": {metric: value + 0.01}},
        },
        "rungs": {
            "holds": True, "failures": [], "a1_operators": 40, "operator_samples": 64, "a2_agreement": 1.0,
            "a2_identical_bits": None, "a3_agreement": 0.985,
            "measured": {"static": measured, "graph": measured},
        },
        "machines": {
            "int8_edge": {
                "unequal_tensors": unequal, "tensors": 40, "samples": 200, "accuracy": measured,
                "latency_s": {"steady": 1.5e-3}, "share_assumed_frac": 0.25,
                "energy_pj": {"low": 1.0e6, "nominal": 2.0e6, "high": 3.0e6},
            }
        },
        "bytes": {"float32": 4000, "export": {"weights.safetensors": 300, "graph.json": 100}},
    }  # fmt: skip


def test_every_stage_of_the_ladder_stands_side_by_side() -> None:
    stages = {stage: value.replace(SPACE, " ") for stage, value in stage_values(result()).items()}
    assert stages == {
        "teacher": "95.0 %",
        "student": "91.0 %",
        "static student": "90.0 %",
        "integer graph": "90.0 %",
        "machine": "90.0 %",
    }


def test_the_page_says_sizes_energies_and_unequal_tensors() -> None:
    page = results_page([result(unequal=2)]).replace(SPACE, " ")
    assert "10.0 times less" in page
    assert "| int8_edge | 2 of 40 | 200 |" in page
    assert "85.0 % to 94.0 %" in page


def test_a_rung_that_fails_is_on_the_page() -> None:
    failed = result()
    failed["rungs"] |= {"holds": False, "failures": ["A3 agreement 0.9 is below 0.97"]}
    assert "do not all hold: A3 agreement 0.9 is below 0.97" in results_page([failed])


def test_a_note_is_on_the_page() -> None:
    assert "Note: resumed twice" in results_page([result() | {"notes": ["resumed twice"]}])


def test_perplexity_is_no_percentage() -> None:
    assert stage_values(result("perplexity", 5.25))["machine"] == "5.250"


def test_texts_of_other_distributions_stand_beside_the_teachers() -> None:
    values = result("perplexity", 5.25)
    values["teacher"]["tests"]["news"] = {"perplexity": 7.5}
    values["student"]["tests"]["news"] = {"perplexity": 8.125}
    assert "(teacher / student, in float32 fake quantisation): news 7.500 / 8.125." in results_page(
        [values]
    )


@pytest.mark.parametrize("content", ["{", '{"schema": "other"}'])
def test_a_damaged_or_foreign_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"bad\.json"):
        load_results(tmp_path)


def test_the_committed_page_is_what_the_committed_files_give() -> None:
    results = load_results(ROOT / RESULTS_FOLDER)
    assert results, "no result files are committed"
    assert (ROOT / RESULTS_PAGE).read_text(encoding="utf-8") == results_page(results)
