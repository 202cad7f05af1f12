"""Stand-in node functions: a study's shape without its cost. At module level, so that workers find them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from hwsim.errors import ConfigError, DataError
from studies.plan import Node, Plan, make_node
from studies.worker import Call, Refused

FAULTS = {
    True: ValueError,
    "ValueError": ValueError,
    "DataError": DataError,
    "ConfigError": ConfigError,
}


def train(call: Call) -> dict[str, Any]:
    """Write a weight file; fail, die, hang or dawdle where the spec says so."""
    print("training", call.spec["name"])
    if call.spec.get("hang"):
        _endless_loop()(0)
    if fail := call.spec.get("fail"):
        raise FAULTS[fail]("loss is nan at step 7")
    if call.spec.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    die_once = call.spec.get("die_once")
    if die_once and not Path(die_once).exists():
        Path(die_once).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(call.spec.get("seconds", 0))
    (call.folder / "weights.txt").write_text(call.spec["name"])
    count_run(call.spec)
    return {"accuracy": len(call.spec["name"]) / 100}


def export(call: Call) -> dict[str, Any]:
    """Read the parent's weights, write a smaller file."""
    time.sleep(call.spec.get("seconds", 0))
    text = (call.parents[0] / "weights.txt").read_text()
    (call.folder / "model.txt").write_text(text[::-1])
    count_run(call.spec)
    return {"bytes": len(text)}


def evaluate(call: Call) -> dict[str, Any]:
    """Turn the export into numbers; one machine refuses."""
    if call.spec["machine"] == "refuser":
        raise Refused("softmax: no unit runs it")
    time.sleep(call.spec.get("seconds", 0))
    count_run(call.spec)
    text = (call.parents[0] / "model.txt").read_text()
    return {"value": sum(map(ord, text + call.spec["machine"]))}


def _endless_loop() -> Any:
    """Return a compiled loop that never ends and never lets another Python thread of its process run."""
    from numba import njit

    @njit
    def spin(x: int) -> int:
        while x < 1:
            x = -x
        return x

    return spin


def gpu(call: Call) -> dict[str, Any]:
    """Say which GPU this process sees, after a while in which another node could have been given the same."""
    folder = Path(call.spec["counter"]).parent
    device = os.environ.get("CUDA_VISIBLE_DEVICES")
    if device is not None:
        (folder / f"busy-{device}").touch(exist_ok=False)
        time.sleep(call.spec.get("seconds", 0))
        (folder / f"busy-{device}").unlink()
    return {"device": device}


def count_run(spec: Any) -> None:
    """Leave one byte for each run of a node, so that tests can see what was done again."""
    with Path(spec["counter"]).open("a") as stream:
        stream.write(".")


FUNCTIONS = {"train": train, "export": export, "evaluate": evaluate}


def make_plan(counter: Path, names: tuple[str, ...] = ("a", "bb"), **extra: Any) -> Plan:
    """One teacher; one student, one export and three evaluations a name. `extra` goes to the last student."""
    common = {"counter": str(counter)}
    teacher = make_node("train", "teacher", {"name": "teacher", **common})
    nodes: list[Node] = [teacher]
    for name in names:
        more = extra if name == names[-1] else {}
        student = make_node("train", f"student {name}", {"name": name, **common, **more}, [teacher])
        exported = make_node("export", f"export {name}", {**common}, [student])
        rows = [
            make_node("evaluate", f"{name} on {m}", {"machine": m, **common}, [exported])
            for m in ("x", "y", "refuser")
        ]
        nodes += [student, exported, *rows]
    return Plan({"name": "stand-in"}, tuple(nodes))
