"""Thousands of mutated machine files and model folders: `python tests/fuzz/fuzz.py machines --count 10000`.

Each case must end as a valid run or as an error of ours with its place. A traceback, a case of more than
`--seconds`, or more than `--gib` of memory is a finding: its seed is printed, and `--seed N --count 1` repeats it.
Cases run in a process of their own, which is replaced when it dies or hangs. The exit code is 1 if there are findings.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MACHINES = (
    *sorted((ROOT / "tests/machines").glob("*.yaml")),
    *sorted((ROOT / "accelerators").glob("*.yaml")),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("machines", "models"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the others follow")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit of one case")
    parser.add_argument(
        "--gib", type=float, default=4.0, help="limit of a process's memory beyond its start"
    )
    parser.add_argument(
        "--model",
        type=Path,
        action="append",
        default=[],
        help="exports to mutate besides a small one",
    )
    given = parser.parse_args()
    todo = range(given.seed, given.seed + given.count)
    ends: Counter[str] = Counter()
    findings: list[dict[str, Any]] = []
    at = 0
    while at < len(todo):
        done, found = run_worker(given, todo[at:])
        for result in done:
            ends[result["end"]] += 1
            if result["end"] == "finding":
                findings.append(result)
        at += len(done)
        if found:  # the process died or hung in the case after the last that it reported
            findings.append({"seed": todo[at], "text": found})
            ends["finding"] += 1
            at += 1
    for finding in findings:
        print(f"seed {finding['seed']}: {finding['text']}", file=sys.stderr)
    print(json.dumps({"what": given.what, "count": len(todo), "seed": given.seed, **ends}))
    return 1 if findings else 0


def run_worker(given: argparse.Namespace, seeds: range) -> tuple[list[dict[str, Any]], str]:
    """Run cases in a new process; return their results, and why it stopped before the last (or nothing)."""
    order = pickle.dumps((given.what, list(seeds), [str(m) for m in given.model], given.gib))
    worker = subprocess.Popen(
        [sys.executable, __file__, "--worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE), str(ROOT / "tests/cost")))},
    )  # fmt: skip
    assert worker.stdin is not None
    worker.stdin.write(order)
    worker.stdin.close()
    lines: queue.Queue[bytes | None] = queue.Queue()

    def read() -> None:
        assert worker.stdout is not None
        for line in worker.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    done: list[dict[str, Any]] = []
    limit = 180.0  # the first case waits for imports and compiled loops
    try:
        while len(done) < len(seeds):
            line = lines.get(timeout=limit)
            if line is None:
                assert worker.stderr is not None
                return (
                    done,
                    f"the process died: {worker.stderr.read().decode(errors='replace')[-600:]}",
                )
            done.append(json.loads(line))
            limit = given.seconds
    except queue.Empty:
        return done, f"more than {limit:.0f} s"
    finally:
        worker.kill()
        worker.wait()
    return done, ""


def work() -> None:
    """Run the cases that stdin names, one line of JSON each."""
    import numpy as np
    from cases import machine_case, model_case
    from graph_maker import attention_block

    from hwsim.graph.serialize import Samples, save

    what, seeds, models, gib = pickle.loads(sys.stdin.buffer.read())
    out = os.fdopen(os.dup(1), "w", buffering=1)  # the cases may print
    os.dup2(2, 1)
    graph = attention_block("INT8", "INT8", width=16, length=6)
    with tempfile.TemporaryDirectory() as name:
        folder, small = Path(name) / "cases", Path(name) / "small"
        folder.mkdir()
        ids = np.arange(24, dtype=np.int64).reshape(4, 6)
        save(small, graph, Samples({"ids": ids}, None, np.array([6, 1, 3, 5])))
        models = [str(small), *models]
        for i, seed in enumerate(seeds):
            if i == 1:  # what importing and compiling takes is not the case's
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                limit = used + int(gib * 2**30)
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            result: dict[str, Any] = {"seed": seed}
            try:
                if what == "machines":
                    result["end"] = machine_case(
                        MACHINES[seed % len(MACHINES)], graph, folder, seed
                    )
                else:
                    result["end"] = model_case(Path(models[seed % len(models)]), folder, seed)
            except Exception:
                result |= {"end": "finding", "text": traceback.format_exc(limit=-4)}
            out.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        work()
    else:
        sys.exit(main())
