"""Two studies side by side: what is paired with what, what stands alone, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hwsim.errors import ConfigError
from studies import synthetic
from studies.compare import Comparison, app, compare_studies, markdown
from studies.ledger import Attempt
from studies.statistics import paired_effect
from studies.table import Results, load_results

TWO = {"W8A8": 0.97, "W1A1 BiT": 0.93}


def study(folder: Path, **changes: Any) -> Results:
    return load_results(synthetic.make_folder(folder, **{"students": TWO, **changes}))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return study(tmp_path_factory.mktemp("a") / "a", seeds=(0, 1, 2))


def with_study(results: Results, **changes: Any) -> Results:
    plan = replace(results.plan, study={**results.plan.study, **changes})
    return replace(results, plan=plan)


def with_attempts(results: Results, change: Callable[[Attempt], Attempt]) -> Results:
    return replace(results, attempts={k: change(v) for k, v in results.attempts.items()})


def test_a_study_beside_itself_is_equal(base: Results) -> None:
    found = compare_studies(base, base)
    assert len(found.pairs) == 7  # W8A8 is refused by one of four machines
    for pair in found.pairs:
        assert pair.a == pair.b
        assert pair.energy_ratio == pair.latency_ratio == 1.0
        assert pair.score is not None
        assert (pair.score.difference.mean, pair.seeds) == (0.0, (0, 1, 2))
        assert (pair.identical_models, pair.same_machine) == (3, True)
    assert not found.only_a
    assert not found.only_b
    assert not found.notes


def test_accuracies_are_paired_by_seed_and_costs_are_of_the_same_seeds(
    base: Results, tmp_path: Path
) -> None:
    # machines that are twice as dear; of the seeds only 1 and 2 are common
    dear = {name: 2 * dearness for name, dearness in synthetic.MACHINES.items()}
    other = study(tmp_path / "b", seeds=(2, 9, 1), machines=dear, students={"W8A8": 0.90})
    found = compare_studies(base, other)
    assert [(p.student, p.seeds) for p in found.pairs] == [("W8A8", (1, 2))] * 3
    for pair in found.pairs:
        of_a, of_b = (
            {
                r.seed: r
                for r in results.rows
                if (r.student, r.machine) == (pair.student, pair.machine)
            }
            for results in (base, other)
        )
        effect = paired_effect(
            {s: of_b[s].score or 0.0 for s in (1, 2)},
            {s: of_a[s].score or 0.0 for s in (1, 2)},
        )
        assert pair.score == effect
        assert effect.difference.mean < -0.05
        assert pair.a.score == pytest.approx(((of_a[1].score or 0) + (of_a[2].score or 0)) / 2)
        # the energy of 8 bits grows with the square of how dear a machine is
        assert pair.energy_ratio == pytest.approx(4.0)
        assert pair.latency_ratio == pytest.approx(2**0.3, rel=1e-3)


def test_without_a_common_seed_there_is_no_effect(base: Results, tmp_path: Path) -> None:
    other = study(tmp_path / "b", seeds=(7,))
    pairs = compare_studies(base, other).pairs
    assert len(pairs) == 7
    assert all(p.score is None and p.seeds == () for p in pairs)
    assert all(p.energy_ratio == pytest.approx(1.0) for p in pairs)  # costs hang on no seed here
    assert "no common seed" in markdown(compare_studies(base, other))


def test_hardware_alone_has_costs_and_no_accuracy(base: Results) -> None:
    bare = replace(base, rows=tuple(replace(r, score=None) for r in base.rows))
    for pair in compare_studies(base, bare).pairs:
        assert pair.score is pair.b.score is None
        assert pair.a.score is not None
        assert pair.energy_ratio == 1.0
    assert "%" not in markdown(compare_studies(bare, bare)).replace("95 %", "")


def test_what_only_one_has_is_listed_with_what_came_of_it(base: Results, tmp_path: Path) -> None:
    fewer = {k: synthetic.MACHINES[k] for k in ("xnor_edge", "int8_edge")}
    other = study(tmp_path / "b", machines=fewer, seeds=(1,), fail=True)
    found = compare_studies(base, other)
    assert found.only_b == {}
    assert found.only_a == {
        "W8A8 on ternary_edge": "not asked",
        "W8A8 on bitserial_edge": "not asked",
        "W1A1 BiT on ternary_edge": "not asked",
        "W1A1 BiT on bitserial_edge": "not asked",
        "W1A1 BiT on int8_edge": "failed",
    }
    back = compare_studies(other, base)
    assert (back.only_a, back.only_b) == ({}, found.only_a)
    assert "- W1A1 BiT on int8_edge (in B: failed)" in markdown(found)


def test_what_cannot_be_compared_is_refused_all_at_once(base: Results) -> None:
    other = with_study(base, task={"name": "sentence", "metric": "f1"})
    rows = tuple(replace(r, total=64) if r.total else r for r in base.rows)
    newer = {"environment": {"graph_schema": "hwsim/model/99"}}
    other = with_attempts(
        replace(other, rows=rows), lambda a: replace(a, volatile={**a.volatile, **newer})
    )
    trained = tuple(replace(t, metric="f1") for t in base.trained)
    with pytest.raises(ConfigError) as fault:
        compare_studies(base, replace(other, trained=trained))
    said = [line.partition(" cannot be compared: ")[2] for line in str(fault.value).splitlines()]
    assert said[:4] == [
        "task.name is 'digits' and 'sentence'",
        "task.metric is None and 'f1'",
        "metric is accuracy and f1",
        "number of test rows is 540 and 64",
    ]
    assert said[4].startswith("schema of exports is hwsim/model/")
    assert said[4].endswith(" and hwsim/model/99")
    assert len(said) == 5


def test_what_has_the_same_name_and_is_not_the_same_is_said(base: Results) -> None:
    students = [dict(s) for s in base.plan.study["students"]]
    students[0]["train"] = {"steps": 3}
    hashes = {**base.plan.study["machine_sha256"], "int8_edge": "f" * 64}
    rows = tuple(
        replace(r, machine_sha256="f" * 64) if r.machine == "int8_edge" else r for r in base.rows
    )
    other = with_study(base, students=students, machine_sha256=hashes, teacher={"name": "big"})
    other = with_attempts(
        replace(other, rows=rows), lambda a: replace(a, volatile={"sources_sha256": "0" * 64})
    )
    found = compare_studies(base, other)
    assert found.notes == (
        "student 'W8A8' differs in train",
        "the teachers differ",
        f"machine 'int8_edge' is not the same: {base.plan.study['machine_sha256']['int8_edge'][:12]}"
        " in A, ffffffffffff in B",
        "the evaluations were made by different versions of hwsim",
        "B does not say which schema its exports have",
    )
    differs = {p.machine for p in found.pairs if not p.same_machine}
    assert differs == {"int8_edge"}
    assert "| int8_edge (differs)" in markdown(found)


def test_command_writes_markdown_and_json(base: Results, tmp_path: Path) -> None:
    other = study(tmp_path / "b", seeds=(0, 1))
    files = ["--out", str(tmp_path / "c.md"), "--json", str(tmp_path / "c.json")]
    answer = CliRunner().invoke(app, [str(base.folder), str(other.folder), *files])
    assert answer.exit_code == 0
    found: Comparison = compare_studies(base, other)
    assert answer.stdout == markdown(found) == (tmp_path / "c.md").read_text()
    data = json.loads((tmp_path / "c.json").read_text())
    assert data["schema"] == "studies/comparison/2"
    assert data["pairs"][0]["score"]["seeds"] == [0, 1]
    assert data == json.loads(json.dumps(found.to_json()))
