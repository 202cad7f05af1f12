"""Kill a sweep again and again, and see that nothing is lost: `python tests/studies/kills.py --kills 50 --trials 200`.

A study of stand-in trials is run by a coordinator of its own process. At random moments (`--seed`) the coordinator, or
one of its workers, is killed by SIGKILL; a coordinator that is gone is started again. When all kills are spent and the
study is whole, its ledger must hold each node's final attempt exactly once, and the view must be that of a run that
nobody disturbed. One line of JSON says what happened; the exit code is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import standins

from studies.executor import PlaceOptions
from studies.ledger import FILE_NAME, FINAL, Attempt, read, view
from studies.plan import Node, Plan, make_node
from studies.sweep import run_study

TRIALS_A_STUDENT = 10
NODE_SECONDS = 0.03
WORKERS = 2
STUCK_SECONDS = 120.0
COUNTER = "count"


def make_plan(folder: Path, trials: int) -> Plan:
    """Return a teacher, and a student, an export and ten trials each until there are `trials`; every tenth is refused."""
    common: dict[str, Any] = {"counter": str(folder / COUNTER), "seconds": NODE_SECONDS}
    teacher = make_node("train", "teacher", {"name": "teacher", **common})
    nodes: list[Node] = [teacher]
    for i in range(trials):
        if i % TRIALS_A_STUDENT == 0:
            name = f"student {i}"
            student = make_node("train", name, {"name": name, **common}, [teacher])
            export = make_node("export", f"export {i}", common, [student])
            nodes += [student, export]
        machine = "refuser" if i % TRIALS_A_STUDENT == 9 else f"m{i}"
        nodes.append(make_node("evaluate", f"trial {i}", {"machine": machine, **common}, [export]))
    return Plan({"name": "kills"}, tuple(nodes))


def declared(attempts: dict[str, Attempt]) -> dict[str, Any]:
    """Return what two runs must agree in: all but the numbers of attempts and what is volatile."""
    return {k: (a.status, a.result, a.error, a.spec, a.parents) for k, a in attempts.items()}


def workers_of(coordinator: int) -> list[int]:
    """Return the processes that a coordinator has started for its nodes."""
    listed = Path(f"/proc/{coordinator}/task").glob("*/children")
    found: list[int] = []
    for children in listed:
        try:
            found += map(int, children.read_text().split())
        except OSError:
            continue  # that thread has ended
    return found


def kill_until_whole(folder: Path, kills: int, trials: int, seed: int) -> dict[str, Any]:
    """Run and kill; return what happened.

    Raises:
        AssertionError: something was lost, made twice or changed.
    """
    draw = random.Random(seed)
    plan = make_plan(folder, trials)
    # kills are spread over the first two thirds of the study, by what the ledger has grown since the last
    most_lines = max(1, 4 * len(plan.nodes) // (3 * kills + 3))
    ledger = folder / "killed" / FILE_NAME
    happened: Counter[str] = Counter()
    start = time.monotonic()
    process = start_coordinator(folder, trials)
    try:
        for target in [draw.choice(("coordinators", "workers")) for _ in range(kills)]:
            wait_for_lines(ledger, lines_of(ledger) + draw.randrange(most_lines), process)
            time.sleep(draw.uniform(0, 3 * NODE_SECONDS))
            while not kill(target, process, draw):
                if process.poll() is not None:  # a node that was killed twice has ended it: go on
                    happened["resumes"] += 1
                    process = start_coordinator(folder, trials)
                time.sleep(0.005)
            happened[target] += 1
            if target == "coordinators":
                process.wait()
                happened["resumes"] += 1
                process = start_coordinator(folder, trials)
        while process.wait(STUCK_SECONDS) != 0:
            happened["resumes"] += 1
            process = start_coordinator(folder, trials)
    finally:
        process.kill()
    attempts = read(ledger)
    final = Counter(a.id for a in attempts if a.status in FINAL)
    assert final == Counter(n.id for n in plan.nodes), "a node has no final attempt, or several"
    undisturbed = folder / "undisturbed"
    with redirect_stdout(sys.stderr):
        assert run_study(plan, undisturbed, standins.FUNCTIONS, PlaceOptions(workers=0)) == []
    assert declared(view(attempts)) == declared(view(read(undisturbed / FILE_NAME)))
    return {
        "trials": trials, "nodes": len(plan.nodes), "seed": seed,
        "kills": kills,
        "of_coordinators": happened["coordinators"], "of_workers": happened["workers"],
        "resumes": happened["resumes"], "attempts": len(attempts),
        "failed_attempts": sum(a.status == "failed" for a in attempts),
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def kill(target: str, process: subprocess.Popen[bytes], draw: random.Random) -> bool:
    """Kill a coordinator or one of its workers; return whether there was one."""
    if process.poll() is not None:
        return False
    victims = [process.pid] if target == "coordinators" else workers_of(process.pid)
    if victims:
        os.kill(draw.choice(victims), signal.SIGKILL)
    return bool(victims)


def start_coordinator(folder: Path, trials: int) -> subprocess.Popen[bytes]:
    """Start, or start again, the sweep in a process of its own."""
    return subprocess.Popen(
        [sys.executable, __file__, "--coordinate", str(folder), "--trials", str(trials)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def lines_of(ledger: Path) -> int:
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


def wait_for_lines(ledger: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STUCK_SECONDS
    while process.poll() is None and lines_of(ledger) < lines:
        assert time.monotonic() < deadline, "the sweep does not go on"
        time.sleep(0.005)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--coordinate", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.coordinate:
        plan = make_plan(given.coordinate, given.trials)
        options = PlaceOptions(workers=WORKERS)
        return bool(run_study(plan, given.coordinate / "killed", standins.FUNCTIONS, options))
    with tempfile.TemporaryDirectory() as name:
        try:
            print(json.dumps(kill_until_whole(Path(name), given.kills, given.trials, given.seed)))
        except AssertionError as lost:
            print(f"seed {given.seed}: {lost}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
