"""Training that is killed again and again, at any instant, ends with the bits of training that never was.

Real processes and SIGKILL: nothing of theirs runs any more. A method joins by an entry in `METHODS`.
"""

import json
import random
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from apart import start
from test_chain import chain
from tiny_runs import SMALL_VIT, digits_run, text_run

from qat.chain import ChainConfig, train_chain
from qat.config import RunConfig
from qat.loop import train
from qat.recipe import load_recipe

HOW = ("starting", "running", "writing", "writing", "running")
STEPS = {"batch_size": 16, "learning_rate": 3e-3, "evaluate_every": 1, "log_every": 1}


def ti_g(teacher: Path) -> RunConfig:
    # output, context and map intervention begin at 0, 1 and 2, plain distillation at 6, constant ranges at 19
    recipe = load_recipe("ti_g_w2a8", ["method.steps=6", "method.fraction=null"])
    values = recipe.model_dump(mode="json", by_alias=True)
    return digits_run(values, teacher=str(teacher), train=STEPS | {"steps": 24})


def bit(teacher: Path) -> ChainConfig:
    stages = [
        {"name": name, "recipe": f"bit_{name}", "train": STEPS | {"steps": steps}}
        for name, steps in (("w1a2", 5), ("w1a1", 19))
    ]
    return chain(model=None, teacher=str(teacher), stages=stages)


def quadapter(teacher: Path) -> RunConfig:
    # blocks by themselves until 6, then end to end with a new optimiser, constant ranges at 19
    recipe = load_recipe(
        "quadapter_w8a8", ["method.blockwise_steps=6", "method.blockwise_fraction=null"]
    )
    values = recipe.model_dump(mode="json", by_alias=True)
    return text_run(teacher.parent, values, teacher=str(teacher), train=STEPS | {"steps": 24})


METHODS: dict[str, tuple[Callable[[Path], RunConfig | ChainConfig], str, str]] = {
    "ti_g": (ti_g, "digits", "bitwright/state-00000005"),
    "bit_chain": (bit, "digits", "1_w1a2/bitwright/state-00000005"),
    "quadapter": (quadapter, "text", "bitwright/state-00000005"),
}
"""Configuration of a training with the teacher, what it learns, and the last state before something switches: kills
lie on both sides of it."""


def work(config: RunConfig | ChainConfig, out: Path) -> None:
    if isinstance(config, ChainConfig):
        train_chain(config, out)
    else:
        train(config, out)


def states(out: Path) -> set[Path]:
    return {*out.glob("bitwright/state-*"), *out.glob("*/bitwright/state-*")}


def writing(out: Path) -> bool:
    places = (".", "*", "*/bitwright")  # no deeper: those folders come and go
    return any(path for place in places for path in out.glob(f"{place}/.*.tmp"))


def wait_for(happens: Callable[[], bool], alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happens():
        assert alive(), "the process ended before it could be killed: give the run more steps"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def newest(out: Path) -> str:
    return max((str(path.relative_to(out)) for path in states(out)), default="")


def kill_once(config: RunConfig | ChainConfig, out: Path, how: str, past: str) -> str:
    """Start or resume the training and kill it, once it has a state past a given one; return the newest that it left."""
    process = start(work, config, out)
    before = states(out)
    if how == "starting":
        time.sleep(random.Random(past).uniform(0.0, 0.4))
    else:
        # some progress first, so that the kills spread over the run
        wait_for(lambda: not states(out) <= before and newest(out) > past, process.is_alive)
        if how == "running":
            time.sleep(random.Random(newest(out)).uniform(0.0, 0.03))
        else:
            wait_for(lambda: writing(out), process.is_alive)
    process.kill()
    process.join()
    assert process.exitcode == -9
    return newest(out)


def outcome(out: Path) -> dict[str, Any]:
    """What every run of a training left, but for times and for where its teacher lies."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("result.json")):
        name, result = (
            path.parent.name if path.parent != out else "run",
            json.loads(path.read_text()),
        )
        for key in ("wall_s", "git_revision", "config_sha256"):
            del result[key]
        found[name] = {
            "result": result,
            "log": (path.parent / "train.jsonl").read_text(),
            "model": (path.parent / "model.safetensors").read_bytes(),
            "left": sorted(p.name for p in (path.parent / "bitwright").iterdir()),
        }
    return found


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`teachers(task)`: a run of 20 steps, made when a test first asks for it."""

    @cache
    def made(task: str) -> Path:
        folder = tmp_path_factory.mktemp(task)
        spec = {"steps": 20}
        if task == "digits":
            config = digits_run(model={"family": "vit", "config": SMALL_VIT}, train=spec)
        else:
            config = text_run(folder, train=spec)
        return train(config, folder / "run").folder

    return made


@pytest.mark.parametrize("method", METHODS)
def test_kills_change_no_bit(
    method: str, teachers: Callable[[str], Path], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    make, task, last = METHODS[method]
    config = make(teachers(task))
    count = int(pytestconfig.getoption("kills"))
    kills = [
        # the second half of them after the switch
        kill_once(config, tmp_path / "killed", HOW[n % len(HOW)], last if n >= count / 2 else "")
        for n in range(count)
    ]
    assert kills[0] <= last < kills[-1], kills
    for name in ("whole", "killed"):
        process = start(work, config, tmp_path / name)
        process.join(120)
        assert process.exitcode == 0
    whole, killed = outcome(tmp_path / "whole"), outcome(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert len(whole) == (2 if method == "bit_chain" else 1)
    for run, parts in whole.items():
        for part in parts:
            assert killed[run][part] == parts[part], f"{run} {part} {kills}"


def test_an_unfinished_last_line_of_the_log_is_dropped(tmp_path: Path) -> None:
    from qat.runlog import LOG_FILE, RunLog

    for step in (1, 2, 3):
        with RunLog(tmp_path, step - 1) as log:
            log.write({"step": step})
    whole = (tmp_path / LOG_FILE).read_text()
    for cut in range(1, len('{"step": 3}\n')):
        (tmp_path / LOG_FILE).write_text(whole[:-cut])
        with RunLog(tmp_path, 3) as log:
            log.write({"step": 3})
        assert (tmp_path / LOG_FILE).read_text() == whole
    with RunLog(tmp_path, 1):
        assert (tmp_path / LOG_FILE).read_text() == '{"step": 1}\n'


def test_a_start_that_was_killed_leaves_a_folder_that_can_be_used(tmp_path: Path) -> None:
    from qat.checkpoint import is_vacant

    run = tmp_path / "run"
    assert is_vacant(run)
    (run / "bitwright").mkdir(parents=True)
    (run / "bitwright" / ".run.json.tmp").write_text('{"sch')
    (run / ".chain.json.tmp").write_text('{"sch')
    assert is_vacant(run)
    (run / "bitwright" / "notes.txt").touch()
    assert not is_vacant(run)


def test_a_run_that_stopped_early_and_was_killed_then_trains_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qat import checkpoint

    spec = {"steps": 40, "evaluate_every": 2, "early_stopping": 2, "learning_rate": 1e-9}
    config = digits_run(train=spec)

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_final_model", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    measured = train(config, tmp_path / "run")
    assert measured.stopped_early
    assert measured.steps == 6
