"""The sentences of a study, and the tables of its front."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from points import make_point
from scipy.stats import ttest_rel

from studies import synthetic
from studies.front import Front
from studies.front_tables import MOST_LINES, equal_score_table, front_table, share_table
from studies.ledger import LedgerError
from studies.metric import METRICS, SCORE
from studies.pareto import Interval
from studies.record_study import collect_study, study_section
from studies.table import load_results
from studies.tables import score_table
from studies.text import SPACE, answer, by_model_text, certainty_text, equal_score_text, front_text

BEST = {0: 0.970, 1: 0.975, 2: 0.965}
CLOSE = {0: 0.967, 1: 0.972, 2: 0.9625}
BAD = {0: 0.90, 1: 0.91, 2: 0.92}
NAMES = ("energy_pj", SCORE)
ACCURACY = METRICS["accuracy"]
POINTS = [
    make_point("int8", "x", BEST, 6e6, [("u", 4.0, 3e6)]),
    make_point("bit", "x", CLOSE, 2e6, [("u", 4.0, 1e6)]),
    make_point("bit", "y", BAD, 1e6, [("v", 2.0, 0.8e6)]),
]


def plain(text: str) -> str:
    return text.replace(SPACE, " ")


def test_front_is_told_with_its_ends_and_knee() -> None:
    text = plain(front_text(Front(POINTS, NAMES)))
    assert text == (
        "3 of 3 measured combinations are on the front of accuracy against energy. "
        "The least energy is that of bit on y, 1.00 µJ (1.00 µJ to 1.00 µJ) an inference, accuracy 91.0 % (88.5–93.5 %, n = 3); "
        "the highest accuracy is that of int8 on x, 6.00 µJ (6.00 µJ to 6.00 µJ) an inference, accuracy 97.0 % (95.8–98.2 %, n = 3). "
        "Between them: bit on x. Its knee is bit on x."
    )
    text = plain(front_text(Front([POINTS[0], make_point("bit", "y", BAD, 7e6)], NAMES)))
    assert text.startswith("1 of 2 measured combinations are on the front")
    assert text.endswith("(95.8–98.2 %, n = 3) is the best in both.")


def test_long_fronts_are_cut() -> None:
    points = [make_point(f"s{i}", "x", {0: 0.5 + i / 100}, 10.0 + i) for i in range(9)]
    assert "Between them: s1 on x, s2 on x, s3 on x, s4 on x, s5 on x and 2 more." in front_text(
        Front(points, NAMES)
    )


def test_equal_accuracy_is_told_with_band_interval_and_what_was_tried() -> None:
    assert equal_score_text(POINTS, "energy_pj", ACCURACY) == (
        # the two rest on one unknown, so nothing is unsure about their ratio
        "At equal accuracy, shown to within 1 point: bit on x costs 3.00 times less energy (5–95 % band 3.00 to 3.00) than "
        "int8 on x; its accuracy differs by -0.3 points (95 % interval -0.4 to -0.2, from 3 paired seeds). int8 on x is the "
        "cheapest combination of its student; 1 of 2 cheaper ones of other students are as good in this sense."
    )
    unsure = make_point("bit", "y", {0: 0.98, 1: 0.96, 2: 0.95}, 1e6, [("v", 2.0, 0.8e6)])
    text = equal_score_text([POINTS[0], unsure], "energy_pj", ACCURACY)
    assert text.startswith(
        "At equal accuracy, measured to within 1 point: bit on y costs 6.00 times less"
    )
    assert "; a larger loss is not excluded. int8 on x" in text
    assert "band" not in equal_score_text([POINTS[0], make_point("a", "x", BEST, 1.0, latency_s=9.0)], "latency_s", ACCURACY)  # fmt: skip


def test_many_variants_of_few_machines_are_counted() -> None:
    points = [
        replace(p, rows=tuple(replace(r, family="x" if i < 6 else "y") for r in p.rows))
        for i in range(9)
        for p in [make_point("s", f"m{i}", {0: 0.5 + i / 100}, 10.0 + i)]
    ]
    text = front_text(Front(points, NAMES))
    assert "Between them: 5 of s on x and 2 of s on y." in text


def test_a_student_that_nobody_undercuts_is_passed_over() -> None:
    better = make_point("best", "x", {s: v + 0.02 for s, v in BEST.items()}, 1e7)
    text = equal_score_text([better, *POINTS[:2]], "energy_pj", ACCURACY)
    assert "bit on x costs 3.00 times less" in text
    assert text.endswith(" At the accuracy of the 1 student that is better nothing is saved.")
    assert equal_score_text([POINTS[0], POINTS[2]], "energy_pj", ACCURACY) == (
        "At equal accuracy, to within 1 point, nothing is saved: no student costs less than another that it equals."
    )
    assert equal_score_text([POINTS[0]], "energy_pj", ACCURACY) == ""


def test_a_perplexity_is_the_better_the_lower_and_compared_by_its_ratio() -> None:
    points = [
        make_point("int8", "x", {0: 4.0, 1: 4.2, 2: 4.1}, 6e6, metric="perplexity"),
        make_point("tern", "x", {0: 4.01, 1: 4.215, 2: 4.115}, 2e6, metric="perplexity"),
        make_point("bit", "y", {0: 9.0, 1: 9.5, 2: 9.9}, 1e6, metric="perplexity"),
        make_point("bad", "y", {0: 9.9, 1: 9.9, 2: 9.9}, 3e6, metric="perplexity"),
    ]
    front = Front(points, NAMES)
    assert front.mask.tolist() == [True, True, True, False]
    text = plain(front_text(front))
    assert text.startswith("3 of 4 measured combinations are on the front of perplexity against")
    assert "the lowest perplexity is that of int8 on x, 6.00 µJ (6.00 µJ to 6.00 µJ) an inference, perplexity 4.10 (3.85–4.35, n = 3)" in text  # fmt: skip
    equal = plain(equal_score_text(points, "energy_pj", METRICS["perplexity"]))
    assert equal.startswith(
        "At equal perplexity, shown to within 1 %: tern on x costs 3.00 times less energy"
    )
    # ln(4.01 / 4) = 0.0025, ln(4.215 / 4.2) = 0.0036 and ln(4.115 / 4.1) = 0.0037: mean 0.0032, t interval of 0.0016
    assert "its perplexity differs by +0.3 % (95 % interval +0.2 to +0.5, from 3 paired" in equal


def test_certainty_is_told_where_something_was_drawn() -> None:
    front = Front(POINTS, NAMES)
    shares = dict(
        zip([f"{p.student} on {p.machine}" for p in POINTS], front.probability, strict=True)
    )
    text = plain(certainty_text(front))
    weakest = min(shares, key=lambda k: shares[k])
    assert text.startswith(
        f"Drawn jointly, every point of the front stays on it in {100 * shares[weakest]:.1f} % of"
    )
    assert weakest in text
    rival = make_point("rival", "z", {0: 0.969, 1: 0.974, 2: 0.967}, 6.1e6, [("w", 4.0, 3e6)])
    text = plain(certainty_text(Front([*POINTS, rival], NAMES)))
    assert "of those off it rival on z comes onto it in" in text
    assert certainty_text(Front(POINTS[:1], NAMES)) == ""
    assert certainty_text(Front(POINTS, ("latency_s", "latency_s"))) == ""


@dataclass(frozen=True)
class Hardware:
    """A point of a study that trains nothing: costs and rows, no accuracy."""

    student: str
    machine: str
    costs: dict[str, float]
    rows: tuple[object, ...]

    def cost(self, name: str) -> Interval:
        return Interval(self.costs[name], self.costs[name], self.costs[name])


def test_costs_alone_make_a_front_too() -> None:
    row = POINTS[0].rows[0]
    points = [
        Hardware("block", m, {"energy_pj": e, "latency_s": t, "area_um2": a}, (row,))
        for m, e, t, a in (
            ("p", 1e6, 3e-3, 2e6),
            ("q", 2e6, 1e-3, 2e6),
            ("r", 3e6, 2e-3, 1e6),
            ("s", 3e6, 3e-3, 2e6),
        )
    ]
    front = Front(points, ("energy_pj", "latency_s", "area_um2"))  # type: ignore[arg-type]
    assert plain(front_text(front)) == (
        "3 of 4 costed combinations are on the front of energy, latency and area. "
        "The least energy is that of block on p, 1.00 µJ (1.00 µJ to 1.00 µJ), 3.00 ms an inference, 2.000 mm²; "
        "the least latency is that of block on q, 2.00 µJ (2.00 µJ to 2.00 µJ), 1.00 ms an inference, 2.000 mm²; "
        "the least area is that of block on r, 3.00 µJ (3.00 µJ to 3.00 µJ), 2.00 ms an inference, 1.000 mm²."
    )
    assert front.knee is None  # a knee is one of two criteria
    assert by_model_text(front) == ""  # there is one
    dear = Hardware("stack", "q", {"energy_pj": 9e6, "latency_s": 1.0, "area_um2": 9e6}, (row,))
    cheap = Hardware("stack", "s", {"energy_pj": 8e6, "latency_s": 2.0, "area_um2": 9e6}, (row,))
    both = Front([dear, *points, cheap], front.names)  # type: ignore[list-item]
    assert plain(by_model_text(both)) == (
        "The least energy an inference of each model: stack 8.00 µJ (8.00 µJ to 8.00 µJ) on s; "
        "block 1.00 µJ (1.00 µJ to 1.00 µJ) on p."
    )
    table = front_table(front)
    assert list(table.head) == ["Student, machine", "energy", "latency", "area", "on the front", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.make_folder(tmp_path_factory.mktemp("study") / "digits")


def test_tables_hold_what_the_front_says(folder: Path) -> None:
    results = load_results(folder)
    front = Front(results.points(), NAMES)
    table = front_table(front)
    marked = [line.cells[0].text for line in table.rows if line.mark == "front"]
    assert marked == [
        f"{front.points[i].student}, {front.points[i].machine}" for i in front.members
    ]
    assert [line.cells[-1].text for line in table.rows].count("knee") == (front.knee is not None)
    assert len(table.rows) <= MOST_LINES
    shares = share_table(front)
    assert len(shares.rows) == len(synthetic.MACHINES) + len(synthetic.STUDENTS)
    by_machine = [line for line in shares.rows if line.cells[0].text.startswith("machine ")]
    assert sum(int(line.cells[3].text) for line in by_machine) == len(front.members)
    assert sum(int(line.cells[2].text) for line in by_machine) == len(front.points)
    equal = equal_score_table(front, ACCURACY)
    assert [line.cells[0].text.partition(",")[0] for line in equal.rows][-1] == "W1A1 BiT"
    assert {sum(cell.span for cell in line.cells) for line in equal.rows} == {len(equal.head)}
    assert plain(shares.text).count(" up to the reference of ") == 1
    text = " ".join(answer(results, results.points(), front))
    for part in ("on the front of accuracy against energy", "Drawn jointly, ", "At ", "The float32 teachers' accuracy is"):  # fmt: skip
        assert part in text


def test_from_six_seeds_on_tables_give_adjusted_p_values(tmp_path: Path) -> None:
    folder = synthetic.make_folder(tmp_path / "six", seeds=tuple(range(6)))
    results = load_results(folder)
    teacher = [t.score for t in results.trained if t.student == results.teacher]
    raw = {}
    for student in results.students:
        found = {r.seed: r.score for r in results.rows if r.student == student and r.score}
        raw[student] = float(ttest_rel([found[s] for s in range(6)], teacher).pvalue)
    ordered = sorted(raw.values())
    table = score_table(results)
    assert "4 differences are compared" in table.text
    assert "p-values are adjusted" in table.text
    printed = {line.cells[0].text: line.cells[-1].small for line in table.rows[1:]}
    for student, value in raw.items():
        steps = [min(1.0, (4 - k) * p) for k, p in enumerate(ordered[: ordered.index(value) + 1])]
        assert printed[student].endswith(f", p {max(steps):.2g}")
    section = "\n".join(study_section(collect_study(folder)))
    assert re.search(r"\| [+-]\d.\d \([+-]\d.\d to [+-]\d.\d, p \S+\) on W2A8 KD \|", section)
    assert "differences are compared" not in section  # there is one control


def test_rows_of_an_older_version_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes((folder / "plan.json").read_bytes())
    lines = (folder / "ledger.jsonl").read_text().splitlines()
    attempts = [json.loads(line) for line in lines]
    for attempt in attempts:
        if attempt["result"]:
            attempt["result"].pop("energy_terms", None)
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(a) + "\n" for a in attempts))
    with pytest.raises(LedgerError, match=r"^W8A8 seed 0 on ternary_edge: measured by .* --fresh$"):
        load_results(tmp_path)
