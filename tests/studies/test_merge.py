"""Joining what was run in several places: nothing is lost or told twice, and what contradicts is said."""

from __future__ import annotations

import doctest
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import standins
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hwsim.errors import ConfigError
from studies import merge, merged_plan, synthetic
from studies.coordinator import Coordinator
from studies.executor import SerialExecutor
from studies.ledger import FILE_NAME, FINAL, Attempt, Ledger, Status, read, view
from studies.merge import app, merged_attempts
from studies.merged_plan import interleaved
from studies.plan import PLAN_FILE, load_plan
from studies.sweep import claim_folder
from studies.table import load_results

W8A8 = {"W8A8": 0.97}
BOTH = {**W8A8, "W2A8 KD": 0.96}
MACHINES = {"one": 1.0, "two": 2.0}


def join(out: Path, *arguments: object) -> Path:
    answer = CliRunner().invoke(
        app, [*map(str, arguments), "--out", str(out)], catch_exceptions=False
    )
    assert answer.exit_code == 0
    return out


def refusal(tmp_path: Path, *folders: Path) -> str:
    out = tmp_path / "refused"
    with pytest.raises(ConfigError) as fault:
        join(out, *folders)
    assert not out.exists()
    assert not list(tmp_path.glob("*.tmp"))
    return str(fault.value)


def same_study(a: Path, b: Path) -> None:
    """Two folders answer one question with the same rows, in the same order."""
    assert load_plan(a).study == load_plan(b).study
    assert load_plan(a).nodes == load_plan(b).nodes
    assert load_results(a).rows == load_results(b).rows


def make(folder: Path, **changes: Any) -> Path:
    given_ = {"seeds": (0, 1), "students": BOTH, "machines": MACHINES, **changes}
    return synthetic.make_folder(folder, **given_)


@pytest.mark.parametrize(
    "halves",
    [
        ({"seeds": (0,)}, {"seeds": (1,)}),
        ({"machines": {"one": 1.0}}, {"machines": {"two": 2.0}}),
        ({"students": W8A8}, {"students": {"W2A8 KD": 0.96}}),
        ({"seeds": (0,)}, {}),  # one half, and the whole
    ],
)
def test_halves_make_the_whole(tmp_path: Path, halves: tuple[Any, Any]) -> None:
    parts = [make(tmp_path / str(i), **half) for i, half in enumerate(halves)]
    merged = join(tmp_path / "merged", *parts)
    whole = make(tmp_path / "whole")
    same_study(merged, whole)
    assert {a.id for a in read(merged / FILE_NAME)} == {a.id for a in read(whole / FILE_NAME)}
    claim_folder(merged, load_plan(whole), fresh=False)  # a sweep goes on in it


def test_three_parts_in_any_order_hold_the_same(tmp_path: Path) -> None:
    parts = [make(tmp_path / str(seed), seeds=(seed,)) for seed in (4, 5, 6)]
    forth = load_results(join(tmp_path / "forth", *parts))
    back = load_results(join(tmp_path / "back", *reversed(parts)))
    assert forth.plan.study["seeds"] == [4, 5, 6] == back.plan.study["seeds"][::-1]
    assert Counter(map(str, forth.rows)) == Counter(map(str, back.rows))


def test_one_study_run_twice_is_itself(tmp_path: Path) -> None:
    a = make(tmp_path / "a")
    b = make(tmp_path / "b")
    merged = join(tmp_path / "merged", a, b)
    assert (merged / FILE_NAME).read_bytes() == (a / FILE_NAME).read_bytes()
    again = join(tmp_path / "again", merged, b)
    assert (again / FILE_NAME).read_bytes() == (a / FILE_NAME).read_bytes()
    same_study(merged, a)
    assert load_plan(merged).invocation == load_plan(a).invocation


def test_attempts_of_both_are_kept_and_numbered_anew(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b")
    with Ledger(b) as ledger:
        first = ledger.attempts[0]
        # done again on another host, after a failure: the same result
        ledger.append(replace(first, attempt=2, status="failed", result=None, error="boom"))
        ledger.append(replace(first, attempt=3, volatile={**first.volatile, "host": "other"}))
    merged = read(join(tmp_path / "merged", a, b) / FILE_NAME)
    tries = [x for x in merged if x.id == first.id]
    assert [(x.attempt, x.status, x.volatile["host"]) for x in tries] == [
        (1, "ok", "bench"),
        (2, "failed", "bench"),
        (3, "ok", "other"),
    ]
    assert len(merged) == len(read(a / FILE_NAME)) + 2


def spoil(folder: Path, label: str, change: Any) -> None:
    """Change the recorded result of a node."""
    attempts = read(folder / FILE_NAME)
    (folder / FILE_NAME).unlink()
    with Ledger(folder) as ledger:
        for attempt in attempts:
            ledger.append(change(attempt) if attempt.label == label else attempt)


def test_a_result_that_differs_is_a_contradiction(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b")

    def worse(attempt: Attempt) -> Attempt:
        result = json.loads(json.dumps(attempt.result))
        result["energy_pj"]["nominal"] += 0.5
        result["verify"]["unequal_tensors"] = 1
        return replace(attempt, result=result)

    spoil(b, "W8A8 seed 1 on two", worse)
    said = refusal(tmp_path, a, b).splitlines()
    held = next(r for r in load_results(a).rows if (r.seed, r.machine) == (1, "two"))
    assert held.energy_pj is not None
    assert said == [
        f"W8A8 seed 1 on two: energy_pj.nominal is {held.energy_pj} in {a}, {held.energy_pj + 0.5} in {b}",
        f"W8A8 seed 1 on two: verify.unequal_tensors is 0 in {a}, 1 in {b}",
    ]


def test_a_contradiction_ends_the_command_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b")
    spoil(b, "W8A8 seed 1", lambda x: replace(x, result={**(x.result or {}), "steps": 201}))
    arguments = [str(a), str(b), "--out", str(tmp_path / "merged")]
    monkeypatch.setattr("sys.argv", ["studies.merge", *arguments])
    with pytest.raises(SystemExit) as end:
        merge.main()
    assert end.value.code == 2
    assert capsys.readouterr().err == f"W8A8 seed 1: steps is 200 in {a}, 201 in {b}\n"


def test_a_refusal_of_what_ran_elsewhere_is_a_contradiction(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b")
    spoil(
        b,
        "W8A8 seed 0 on one",
        lambda x: replace(x, status="refused", result=None, error="no unit"),
    )
    said = refusal(tmp_path, a, b)
    assert f'status is "ok" in {a}, "refused" in {b}' in said
    assert "reason is null in" in said
    # a failure says nothing about the result
    spoil(b, "W8A8 seed 0 on one", lambda x: replace(x, status="failed"))
    join(tmp_path / "fine", a, b)


def test_other_studies_are_refused_with_what_differs(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b")
    plan = load_plan(b)

    def other(**changes: Any) -> str:
        replace(plan, study={**plan.study, **changes}).save(b)
        return refusal(tmp_path, a, b)

    assert "they differ in task, samples; only seeds, machines, students may" in other(
        task={"name": "sentence"}, samples=3
    )
    students = [{**s, "control": None, "train": {"steps": 3}} for s in plan.study["students"]]
    assert "student 'W8A8': differs in train" in other(students=students)
    changed = {**plan.study["machine_sha256"], "two": "0" * 64}
    assert "machine 'two': its file differs" in other(machine_sha256=changed)
    (b / PLAN_FILE).unlink()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(ConfigError, match="not empty; --out must be a new folder"):
        join(tmp_path / "full", a, b)
    with pytest.raises(ConfigError, match="two or more folders"):
        join(tmp_path / "alone", a)


def test_one_question_with_two_nodes_is_refused(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b")
    plan = load_plan(b)
    node = plan.nodes[-1]
    replace(plan, nodes=(*plan.nodes[:-1], replace(node, id="f" * 64))).save(b)
    said = refusal(tmp_path, a, b)
    assert said.startswith(f"{node.label}: {a} and {b} made different nodes of it: sources, input")
    changed = replace(node, id="f" * 64, spec={**node.spec, "samples": 3})
    replace(plan, nodes=(*plan.nodes[:-1], changed)).save(b)
    assert "made different nodes of it: samples differ" in refusal(tmp_path, a, b)


def test_halves_made_by_different_code_are_refused(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", seeds=(0,)), make(tmp_path / "b", seeds=(1,))
    made = read(b / FILE_NAME)[0].volatile
    newer = {**made, "environment": {**made["environment"], "torch": "99.0"}}
    spoil(b, "W8A8 seed 1", lambda x: replace(x, volatile=newer))
    said = refusal(tmp_path, a, b)
    assert said.startswith("train nodes were made by different code: ")
    assert f"{b} by sources {made['sources_sha256'][:12]}, torch 99.0, numpy " in said
    # what failed, and what does not know, decides nothing
    spoil(b, "W8A8 seed 1", lambda x: replace(x, volatile={**made, "environment": {}}))
    join(tmp_path / "fine", a, b)


@pytest.mark.parametrize("links", [True, False])
def test_files_are_brought_and_a_sweep_goes_on(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = standins.make_plan(tmp_path / "count")
    study = {"name": "s", "students": [], "seeds": [0], "machines": ["x"]}
    folders = []
    for name, nodes in (("a", plan.nodes[:6]), ("b", plan.nodes)):
        part = replace(plan, study=study, nodes=nodes)
        claim_folder(tmp_path / name, part, fresh=False)
        with Ledger(tmp_path / name) as ledger, SerialExecutor() as executor:
            functions = standins.FUNCTIONS if name == "a" else {}
            if functions:
                Coordinator(part, tmp_path / name, ledger, functions).run(executor, 1)
        folders.append(tmp_path / name)
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("cross-device")))
    done = (tmp_path / "count").stat().st_size
    merged = join(tmp_path / "m", *folders, "--files")
    source, target = (
        next((f / "nodes").glob("teacher-*/weights.txt")) for f in (folders[0], merged)
    )
    assert target.read_text() == "teacher"
    assert target.samefile(source) is links
    # the students of bb start from the teacher's files
    with Ledger(merged) as ledger, SerialExecutor() as executor:
        left = Coordinator(load_plan(merged), merged, ledger, standins.FUNCTIONS).run(executor, 1)
    assert left == []
    assert (tmp_path / "count").stat().st_size == done + 4  # student, export, two machines
    bare = join(tmp_path / "bare", *folders)
    assert not (bare / "nodes").exists()


ATTEMPTS = st.lists(
    st.tuples(
        st.sampled_from("ab"), st.sampled_from(["ok", "refused", "failed"]), st.integers(0, 1)
    ),
    max_size=6,
)
"""node, status, and what else may differ: few values, so that lists share attempts and repeat them"""


def ledger_of(drawn: Sequence[tuple[str, Status, int]]) -> list[Attempt]:
    numbers: Counter[str] = Counter()
    made = []
    for node, status, seconds in drawn:
        numbers[node] += 1
        volatile = {"seconds": seconds}
        made.append(
            Attempt(node, numbers[node], status, "train", node, {}, (), None, None, volatile)
        )
    return made


def contents(attempts: Sequence[Attempt]) -> Counter[str]:
    return Counter(replace(a, attempt=0).to_line() for a in attempts)


@given(ATTEMPTS, ATTEMPTS, ATTEMPTS)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_merging_is_a_union(x: Any, y: Any, z: Any) -> None:
    a, b, c = map(ledger_of, (x, y, z))
    ab = merged_attempts([a, b])
    assert contents(ab) == contents(a) | contents(b)  # of counts the larger: none lost, none twice
    assert contents(ab) == contents(merged_attempts([b, a]))
    assert merged_attempts([a, a]) == a
    assert merged_attempts([ab, b]) == merged_attempts([ab, a]) == ab
    assert merged_attempts([ab, c]) == merged_attempts([a, b, c])
    assert (
        ledger_of([(o.id, o.status, o.volatile["seconds"]) for o in ab]) == ab
    )  # numbers 1, 2, ...
    finals = {o.id for o in (*a, *b) if o.status in FINAL}
    assert {k for k, o in view(ab).items() if o.status in FINAL} == finals


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_orders_that_agree_are_both_kept(order: list[int], in_a: set[int], in_b: set[int]) -> None:
    a, b = ([x for x in order if x in chosen] for chosen in (in_a, in_b))
    found = interleaved(a, b)
    assert sorted(found) == sorted(in_a | in_b)
    assert [x for x in found if x in in_a] == a
    assert [x for x in found if x in in_b] == b


def test_orders_that_contradict_lose_nothing() -> None:
    assert interleaved([1, 2, 3], [3, 4, 1]) == [3, 4, 1, 2]
    assert doctest.testmod(merged_plan).failed == 0
