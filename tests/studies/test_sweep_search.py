"""Searched studies: the same proposals however they run, two levels, halving, ends; with stand-ins for trainings and machines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
from search_standins import FUNCTIONS, HARDWARE, ROWS, TRAINED, cost, search

from hwsim.errors import ConfigError
from studies import sweep
from studies.ledger import FILE_NAME, attempts_in, view
from studies.nodes import build_plan
from studies.plan import PLAN_FILE, load_plan
from studies.search_record import SEARCH_FILE
from studies.space import Budget, load_study
from studies.table import load_results
from studies.worker import Call


def record(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / SEARCH_FILE).read_text(encoding="utf-8"))
    return read


def kept(folder: Path) -> tuple[str, str, dict[str, Any]]:
    """What a search leaves that must not depend on how it ran."""
    found = view(attempts_in(folder / FILE_NAME))
    results = {k: (a.status, a.result, a.error, a.spec, a.parents) for k, a in found.items()}
    return (folder / SEARCH_FILE).read_text(), (folder / PLAN_FILE).read_text(), results


def runs(folder: Path) -> int:
    return (folder / "count").stat().st_size


@pytest.mark.parametrize("text", [HARDWARE, TRAINED], ids=["hardware", "trained"])
def test_serial_parallel_and_portioned_searches_are_the_same(text: str, tmp_path: Path) -> None:
    assert search(text, tmp_path / "serial") == []
    assert search(text, tmp_path / "parallel", workers=2) == []
    wanted = kept(tmp_path / "serial")
    assert kept(tmp_path / "parallel") == wanted

    for _ in range(100):
        unfinished = search(
            text, tmp_path / "portions", budget=Budget(nodes=9 if text == HARDWARE else 25)
        )
        if record(tmp_path / "portions")["ended"] != "budget":
            break
        assert unfinished
    assert kept(tmp_path / "portions") == wanted


def test_a_search_whose_coordinator_is_killed_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, search_standins as s\n"
        "s.search(s.TRAINED, pathlib.Path(sys.argv[1]), functions=s.killing(25))\n"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "killed")]
    assert subprocess.run(arguments, check=False, cwd=Path(__file__).parent).returncode == -9
    assert 25 <= runs(tmp_path / "killed") < 40  # in the first batch's machines
    assert search(TRAINED, tmp_path / "killed") == []
    search(TRAINED, tmp_path / "undisturbed")
    assert kept(tmp_path / "killed") == kept(tmp_path / "undisturbed")
    assert runs(tmp_path / "killed") == runs(tmp_path / "undisturbed")


def test_a_finished_search_runs_nothing_and_a_longer_one_goes_on(tmp_path: Path) -> None:
    search(HARDWARE, tmp_path / "out")
    made = runs(tmp_path / "out")
    before = kept(tmp_path / "out")
    search(HARDWARE, tmp_path / "out")
    assert runs(tmp_path / "out") == made
    assert kept(tmp_path / "out") == before
    search(HARDWARE, tmp_path / "out", "search.trials=22")
    search(HARDWARE, tmp_path / "at once", "search.trials=22")
    assert record(tmp_path / "out") == record(tmp_path / "at once")
    assert runs(tmp_path / "out") == made + 8 == runs(tmp_path / "at once")
    with pytest.raises(
        ConfigError, match=r"holds a search of .* that cannot go on as another one: changed search;"
    ):
        search(HARDWARE, tmp_path / "out", "search.seed=4")


def test_the_record_says_what_was_proposed_and_how_the_front_grew(tmp_path: Path) -> None:
    constrained = HARDWARE + "constraints: [{column: energy_pj, at_most: 200}]\n"
    search(constrained, tmp_path / "out", "search.trials=30")
    found = record(tmp_path / "out")
    trials = found["trials"]
    assert (found["space"], found["ended"], len(trials)) == (8 * 5, "trials", 30)
    assert [t["batch"] for t in trials] == [i // 4 for i in range(30)]
    assert len({t["points"][0]["machine"] for t in trials}) == 30
    assert {t["status"] for t in trials} == {"ok", "refused"}
    volumes = [t["hypervolume"] for t in trials]
    assert volumes == sorted(volumes)
    assert volumes[-1] > volumes[0]
    attempts = view(attempts_in(tmp_path / "out" / FILE_NAME))
    for trial in trials:
        (point,) = trial["points"]
        attempt = attempts[point["nodes"][0]]
        assert attempt.status == trial["status"]
        if attempt.result is None:
            assert (trial["reason"], point["energy_pj"]) == ("20 rows are unlucky", None)
        else:
            assert point["energy_pj"] == attempt.result["energy_pj"]["nominal"]
            assert (point["infeasible"] is not None) == (point["energy_pj"] > 200)
    # the volume by hand, of two objectives: the staircase below the reference, on logarithmic scales
    import math

    able = [
        p for t in trials for p in t["points"] if p["status"] == "ok" and p["infeasible"] is None
    ]
    edge = [math.log(found["reference"][name]) for name in ("energy_pj", "latency_s")]
    points = sorted((math.log(p["energy_pj"]), math.log(p["latency_s"])) for p in able)
    volume, lowest = 0.0, edge[1]
    for x, y in points:
        volume += (edge[0] - x) * max(0.0, lowest - y)
        lowest = min(lowest, y)
    assert volumes[-1] == pytest.approx(volume, rel=1e-9)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "random", "qmc"])
def test_a_space_that_is_smaller_than_the_trials_ends(sampler: str, tmp_path: Path) -> None:
    small = HARDWARE.replace("{from: 16KiB, to: 256KiB, log2: true}", "[32768]").replace(
        "to: 32,", "to: 16,"
    ).replace("nsga2, seed: 3, trials: 14, batch: 4, population: 4", f"{sampler}, trials: 50, batch: 3")  # fmt: skip
    assert search(small, tmp_path / "out") == []
    found = record(tmp_path / "out")
    assert (found["space"], found["ended"], len(found["trials"])) == (4, "exhausted", 4)


def test_a_student_is_trained_once_and_costed_on_machines_of_its_own(tmp_path: Path) -> None:
    search(TRAINED, tmp_path / "out")
    plan = load_plan(tmp_path / "out")
    trials = record(tmp_path / "out")["trials"]
    students = [t["student"] for t in trials]
    assert len(set(students)) == len(students) == 6
    trained = Counter(str(n.tags["student"]) for n in plan.of_kind("train"))
    assert trained == {"float32": 2, **dict.fromkeys(students, 2)}
    assert len(plan.of_kind("export")) == 2 * 6
    for trial in trials:
        assert len(trial["points"]) == len({p["machine"] for p in trial["points"]}) == 4
        for point in trial["points"]:
            assert point["status"] in ("ok", "refused")
            assert len(point["nodes"]) == 2  # one a seed
            if point["status"] == "ok":
                assert point["score"] == trial["score"]
    assert [s["name"] for s in plan.study["students"]] == students
    # later students begin with machines that were on the fronts of earlier ones
    best = {p["machine"] for t in trials[:3] for p in t["points"]}
    assert all(trial["points"][0]["machine"] in best for trial in trials[3:6])
    nodes = {n.id: n for n in plan.nodes}
    assert all(p in nodes for n in plan.nodes for p in n.parents)


def test_halving_goes_by_the_carve_out_and_leaves_the_held_out_data_unread(tmp_path: Path) -> None:
    halved = TRAINED.replace("machines_per_student", "halving: {factor: 3, first_steps: 10}, machines_per_student")  # fmt: skip
    search(halved, tmp_path / "out")
    folder = tmp_path / "out"
    trials = record(folder)["trials"]
    attempts = view(attempts_in(folder / FILE_NAME))
    for begin in (0, 3):
        batch = trials[begin : begin + 3]
        assert Counter(t["status"] for t in batch) == {"stopped": 2, "ok": 1}
        (winner,) = (t for t in batch if t["status"] == "ok")
        behind = [t for t in batch if t["status"] == "stopped"]
        assert {t["steps"] for t in behind} == {10}
        # what ten steps reached; the winner's is of its whole training
        assert winner["score"] - 1 / 10 + 1 / 90 >= max(t["score"] for t in behind) - 1e-12
        assert not any(t["points"] for t in behind)
    short = [a for a in attempts.values() if a.kind == "train" and a.spec["run"]["train"]["steps"] == 10]  # fmt: skip
    assert len(short) == 6 * 2
    for attempt in short:
        assert attempt.result is not None
        assert attempt.result["test"] is None
    whole = [a for a in attempts.values() if a.kind == "train" and a.spec["run"]["train"]["steps"] == 90]  # fmt: skip
    assert len(whole) == 2 * 2
    # a student that was trained whole is the same node as without halving
    search(TRAINED, tmp_path / "whole")
    assert {a.id for a in whole} & view(attempts_in(tmp_path / "whole" / FILE_NAME)).keys()


def failing(call: Call) -> dict[str, Any]:
    raise ValueError("no licence")


def test_a_batch_that_fails_ends_the_search(tmp_path: Path) -> None:
    left = search(HARDWARE, tmp_path / "out", functions={**FUNCTIONS, "untrained": failing})
    found = record(tmp_path / "out")
    assert (found["ended"], len(found["trials"])) == ("failed", 4)
    assert len(left) == 1 + 4
    assert search(HARDWARE, tmp_path / "out") == []
    search(HARDWARE, tmp_path / "undisturbed")
    assert record(tmp_path / "out") == record(tmp_path / "undisturbed")


def test_one_failure_tells_the_sampler_nothing_and_the_search_goes_on(tmp_path: Path) -> None:
    def often(call: Call) -> dict[str, Any]:
        if dict(call.spec["settings"])[ROWS] in (4, 8):
            raise ValueError("out of licences")
        return cost(call)

    left = search(HARDWARE, tmp_path / "out", functions={**FUNCTIONS, "cost": often})
    found = record(tmp_path / "out")
    failed = [t for t in found["trials"] if t["status"] == "failed"]
    assert (found["ended"], len(found["trials"])) == ("trials", 14)
    assert len(left) == len(failed) > 0


def test_a_machine_whose_keys_do_not_go_together_is_a_row_of_the_record(tmp_path: Path) -> None:
    text = HARDWARE.replace("{from: 4, to: 32, step: 4}", "{from: -4, to: 32, step: 4}")
    search(text, tmp_path / "out", "search.trials=40")
    invalid = [t for t in record(tmp_path / "out")["trials"] if t["status"] == "invalid"]
    assert invalid
    for trial in invalid:
        assert trial["points"][0]["nodes"] == []
        assert "rows" in trial["reason"]


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (HARDWARE, HARDWARE[HARDWARE.index("search:") :], "", r"machines: 'bitserial_edge': vary: arrays\.main\.rows: a range is for a study with `search`"),
        (HARDWARE, "to: 32", "to: 4", r"study\.yaml:8:25: machines\.0\.vary\.arrays\.main\.rows: to must be greater than from \(4\), not 4"),
        (HARDWARE, ", step: 4}", "}", "exactly one of step and `log2: true`"),
        (HARDWARE, "16KiB, to", "16KB, to", "16KB"),
        (HARDWARE, "from: 4", "form: 4", "form.*did you mean 'from'"),
        (HARDWARE, "sampler: nsga2", "sampler: nsga4", r"sampler"),
        (HARDWARE, "sampler: nsga2", "sampler: tpe", "population is for nsga2 and nsga3, not for tpe"),
        (HARDWARE, "population: 4", "machines_per_student: 4", "a study of hardware trains nothing: it has no machines_per_student"),
        (HARDWARE, "arrays.main.rows", "arrays.main.rowz", "rowz.*did you mean 'rows'"),
        (HARDWARE, "objectives", "  - bitserial_edge\nobjectives", "machines of a search must each have a `name`.*bitserial_edge"),
        (TRAINED, "recipe.method.fraction", "recipe.method.fractoin", "fractoin.*did you mean 'fraction'"),
        (TRAINED, "{name: KD,", "{name: KD, control: TI,", "a search has no controls"),
        (TRAINED, "{name: KD,", "{name: KD, teacher: TI,", "the teacher of 'KD' must be a student above it"),
        (TRAINED, "trials: 6,", "trials: 8, halving: {first_steps: 10},", r"trials must be a multiple of batch \(3\) with halving"),
        (TRAINED, "trials: 6,", "trials: 6, halving: {first_steps: 90},", "'TI': train.steps must be given and more than 90"),
    ],
)  # fmt: skip
def test_faults_of_a_search_are_named(
    tmp_path: Path, text: str, old: str, new: str, message: str
) -> None:
    assert old in text
    path = tmp_path / "study.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        build_plan(load_study(path))


def command(path: Path, out: Path, **options: Any) -> int:
    with pytest.raises(typer.Exit) as exit_:
        sweep.main(str(path), out, 0, **options)
    return exit_.value.exit_code


def test_a_budget_ends_a_sweep_in_peace_and_a_dry_run_says_what_is_left(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studies.trial.FUNCTIONS", FUNCTIONS)
    monkeypatch.setattr("studies.report.build_report", lambda folder: folder / "report.html")
    monkeypatch.setattr("studies.ending.last_word", lambda folder: "")
    path, out = tmp_path / "edge.yaml", tmp_path / "out"
    path.write_text(HARDWARE)
    assert command(path, out, overrides=["budget.nodes=3"]) == 0
    text = capsys.readouterr().out
    assert "the budget is used up: 3 of 5 nodes are finished and kept; the same command" in text
    assert command(path, out, dry_run=True) == 0
    text = capsys.readouterr().out
    assert "cost        14 nodes at most, 2 finished" in text
    assert "cost      about " in text
    assert f"(median of 2 in {out})" in text
    assert command(path, out) == 0
    assert "the budget is used up" not in capsys.readouterr().out
    assert record(out)["ended"] == "trials"


def test_a_real_search_of_hardware_goes_to_the_report(tmp_path: Path, capsys: Any) -> None:
    path, out = tmp_path / "edge.yaml", tmp_path / "out"
    path.write_text(HARDWARE.replace("batch: 4", "batch: 2"))
    settings = ["search.trials=3"]
    assert command(path, out, overrides=settings, dry_run=True) == 0
    text = capsys.readouterr().out
    assert "space     40 points; nsga2 proposes 3, 2 at a time" in text
    assert "cost      not known before the first of its kind has run" in text
    assert not out.exists()
    assert command(path, out, overrides=settings) == 0
    machines = [t["points"][0]["machine"] for t in record(out)["trials"]]
    assert all(f"W1A1 on {machine}" in text for machine in machines[:2])
    assert load_plan(out).study["machines"] == machines
    assert len(machines) == 3
    rows = {row.machine: row for row in load_results(out).rows}
    for trial in record(out)["trials"]:
        (point,) = trial["points"]
        row = rows[point["machine"]]
        assert (row.status, row.energy_pj) == ("ok", point["energy_pj"])
        assert row.latency_s_steady == point["latency_s"]
    assert "costed combinations are on the front" in (out / "report.html").read_text()
