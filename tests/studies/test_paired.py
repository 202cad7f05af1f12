"""Differences of two models: by seed, and with one seed by the rows that both were tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hwsim.metrics import pack_right, unpack_right
from studies import synthetic
from studies.latex import latex_tables
from studies.metric import METRICS
from studies.paired import gain_effect
from studies.quantities import judge
from studies.statistics import paired_effect, paired_share_difference, share_difference
from studies.table import Results, load_results
from studies.tables import Cell, method_table, rows_by_seed, score_table

ACCURACY = METRICS["accuracy"]
RIGHT = np.arange(100) >= 10, np.arange(100) % 5 > 0


@dataclass
class Model:
    score: float | None
    correct: int | None = None
    total: int | None = None
    right: str | None = None


def answered(right: np.ndarray) -> Model:
    correct = int(right.sum())
    return Model(correct / len(right), correct, len(right), pack_right(right))


def test_one_seed_is_compared_answer_by_answer() -> None:
    a, b = map(answered, RIGHT)
    effect = gain_effect(ACCURACY, {3: a, 4: a}, {3: b})
    assert effect is not None
    assert effect.difference == paired_share_difference(*RIGHT)
    assert (effect.seeds, effect.p_value) == ((3,), None)


def test_without_answers_the_two_are_independent_shares() -> None:
    a, b = map(answered, RIGHT)
    unknown = Model(b.score, b.correct, b.total)
    fewer = answered(RIGHT[1][:50])
    for other in (unknown, fewer):
        effect = gain_effect(ACCURACY, {0: a}, {0: other})
        assert effect is not None
        assert other.correct is not None
        assert other.total is not None
        assert effect.difference == share_difference((90, 100), (other.correct, other.total))


def test_what_is_not_counted_has_no_interval() -> None:
    effect = gain_effect(METRICS["perplexity"], {0: Model(5.0)}, {0: Model(6.0)})
    assert effect is not None
    assert effect.difference.mean > 0
    assert effect.difference.low is None
    assert gain_effect(ACCURACY, {0: answered(RIGHT[0])}, {1: answered(RIGHT[1])}) is None
    assert gain_effect(ACCURACY, {0: answered(RIGHT[0])}, {0: Model(None)}) is None


def test_several_seeds_are_paired_by_seed() -> None:
    a, b = map(answered, RIGHT)
    effect = gain_effect(ACCURACY, {0: a, 1: b}, {0: b, 1: b, 2: a})
    assert effect == paired_effect({0: 0.9, 1: 0.8}, {0: 0.8, 1: 0.8})


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("study") / "one"
    synthetic.make_folder(folder, (0,))
    return load_results(folder)


def difference_cells(table_rows: Sequence[Sequence[Cell]], column: int) -> dict[str, Cell]:
    return {cells[0].text: cells[column] for cells in table_rows}


def test_tables_of_one_seed_have_the_interval_of_its_answers(one_seed: Results) -> None:
    (teacher,) = (t for t in one_seed.trained if t.student == one_seed.teacher)
    name = "W2A8 KD"
    (row,) = rows_by_seed(one_seed, name).values()
    assert row.right is not None
    assert row.total is not None
    assert teacher.right is not None
    expected = paired_share_difference(
        unpack_right(row.right, row.total), unpack_right(teacher.right, row.total)
    )
    assert expected.low is not None
    assert expected.high is not None
    scores = score_table(one_seed)
    assert "with one seed its interval is that of two shares of the same test rows" in scores.text
    cell = difference_cells([line.cells for line in scores.rows], -1)[name]
    ends = ACCURACY.difference_ends(expected.low, expected.high)
    assert cell == Cell(ACCURACY.difference(expected.mean), " to ".join(ends))
    methods = method_table(one_seed)
    assert methods is not None
    cells = difference_cells([line.cells for line in methods.rows], -3)
    assert all(" to " in cell.small for cell in cells.values())
    latex = latex_tables(judge(one_seed)).split(r"\end{tabular}")[1]
    assert "Control" in latex
    assert latex.count("[") == len(methods.rows)


def test_several_seeds_say_nothing_of_rows(tmp_path: Path) -> None:
    synthetic.make_folder(tmp_path / "two", (0, 1))
    assert "same test rows" not in score_table(load_results(tmp_path / "two")).text
