"""A full disk and a folder that cannot be written: said clearly, nothing lost, and the same command goes on."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import standins
import typer

from studies import sweep
from studies.ledger import FINAL, Attempt, Ledger, read
from studies.plan import Plan, make_node, write_atomically
from studies.storage import StorageError, says_full, writing

HERE = Path(__file__).parent
MIB = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system to fill")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def standin_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study whose nodes are stand-ins: a teacher, and students who write 20 KB each."""
    counter = {"counter": str(tmp_path / "count")}
    teacher = make_node("train", "teacher", {"name": "teacher", **counter})
    students = [
        make_node("train", f"student {i}", {"name": f"s{i}" * 10_000, **counter}, [teacher])
        for i in range(4)
    ]
    plan = Plan({"name": "stand-in"}, (teacher, *students))
    monkeypatch.setattr("studies.nodes.build_plan", lambda *_: plan)
    monkeypatch.setattr("studies.trial.FUNCTIONS", standins.FUNCTIONS)

    def write_report(folder: Path) -> Path:
        write_atomically(folder / "report.html", "x" * 100_000)
        return folder / "report.html"

    monkeypatch.setattr("studies.report.build_report", write_report)
    monkeypatch.setattr("studies.ending.last_word", lambda folder: "")


def command(out: Path, workers: int) -> int:
    with pytest.raises(typer.Exit) as exit_:
        sweep.main("digits", out, workers)
    return exit_.value.exit_code


@pytest.mark.parametrize(("workers", "step"), [(0, 20 * 1024), (1, 110 * 1024)])
@pytest.mark.usefixtures("standin_study")
def test_a_full_disk_ends_the_sweep_and_the_same_command_goes_on(
    small_disk: Path, capsys: pytest.CaptureFixture[str], workers: int, step: int
) -> None:
    # how much is free at the start decides what meets the full disk: plan, lock, ledger, log, files, marker, report
    for free in range(0, MIB, step):
        out = small_disk / "out"
        shutil.rmtree(out, ignore_errors=True)
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"")
        left = shutil.disk_usage(small_disk).free
        if free >= left:
            break
        with ballast.open("wb") as stream:
            stream.write(b"x" * (left - free))
        code = command(out, workers)
        text = capsys.readouterr()
        if code == 0:
            break
        assert code == 2, (free, text)
        assert "No space left on device" in text.err
        assert "free space" in text.err
        assert "the same command goes on" in text.err
        assert "Traceback" not in text.err
        kept = [a.id for a in read(out / "ledger.jsonl")]
        assert not list(out.rglob("*.tmp"))
        ballast.unlink()
        assert command(out, workers) == 0
        capsys.readouterr()
        whole = read(out / "ledger.jsonl")
        assert [a.id for a in whole][: len(kept)] == kept
        final = [a.id for a in whole if a.status in FINAL]
        assert len(final) == len(set(final)) == 5
        assert not [a for a in whole if a.status == "failed"]  # no node is blamed for the disk
    assert code == 0
    assert (
        free > 400 * 1024
    )  # the students alone are larger: the loop met a full disk in many places


@pytest.mark.usefixtures("standin_study")
def test_a_folder_that_cannot_be_written_is_named(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert command(small_disk / "out", 0) == 2
    text = capsys.readouterr().err
    assert f"{small_disk / 'out'}: must be writable, but:" in text
    assert "make it writable, or give another --out" in text
    (tmp_path / "file").touch()
    assert command(tmp_path / "file" / "out", 0) == 2
    assert "make it writable, or give another --out" in capsys.readouterr().err


def test_only_what_the_disk_says_is_the_disks_fault(tmp_path: Path) -> None:
    assert says_full(OSError(errno.ENOSPC, "x"))
    assert says_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not says_full(OSError(errno.ENOENT, "x"))
    with pytest.raises(BrokenPipeError), writing(tmp_path):
        raise BrokenPipeError(errno.EPIPE, "the reader of our output is gone")
    with pytest.raises(StorageError, match="free space"), writing(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_line_that_does_not_fit_leaves_the_ledger_as_it_was(small_disk: Path) -> None:
    long = Attempt("b", 1, "ok", "train", "b", {}, (), {"text": "x" * 2 * MIB})
    short = Attempt("a", 1, "ok", "train", "a", {}, ())
    with Ledger(small_disk) as ledger:
        ledger.append(short)
        with pytest.raises(OSError, match="No space left"):
            ledger.append(long)
        assert read(small_disk / "ledger.jsonl") == ledger.attempts == [short]
        ledger.append(short)
    assert read(small_disk / "ledger.jsonl") == [short, short]


SWEEP = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
sys.path.insert(0, {here!r})
import standins, studies.nodes, studies.trial, studies.report
from studies import sweep
import typer

if __name__ == "__main__":
    plan = standins.make_plan(Path({folder!r}) / "count", ("a", "b"), seconds=60)
    studies.nodes.build_plan = lambda *_: plan
    studies.trial.FUNCTIONS = standins.FUNCTIONS
    sys.argv[1:1] = ["digits", "--out", {folder!r} + "/out"]
    typer.run(sweep.main)
"""


def start(tmp_path: Path, *options: str, **more: Any) -> subprocess.Popen[str]:
    script = tmp_path / "sweep_slowly.py"
    script.write_text(SWEEP.format(here=str(HERE), folder=str(tmp_path)))
    return subprocess.Popen(
        [sys.executable, str(script), *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


def wait_for_slow_student(tmp_path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob("out/nodes/student-b-*/log.txt")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("executor", "sign"),
    [("local", signal.SIGINT), ("local", signal.SIGTERM), ("dask-local", signal.SIGINT)],
)
def test_a_stop_by_signal_says_how_to_go_on_and_leaves_no_process(
    tmp_path: Path, executor: str, sign: signal.Signals
) -> None:
    if executor == "dask-local":
        pytest.importorskip("distributed", reason="Dask is not installed")
    process = start(tmp_path, "--workers", "1", "--executor", executor, start_new_session=True)
    wait_for_slow_student(tmp_path, process)
    if executor == "local" and sign == signal.SIGINT:
        second = start(tmp_path, "--workers", "1")
        _, said = second.communicate(timeout=60)
        assert second.returncode == 2
        assert f"another sweep is running in this folder (process {process.pid} on" in said
    os.killpg(process.pid, sign)  # as a terminal does: everyone in the group hears it
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "nodes are finished and kept; the same command goes on from here" in said
    assert "Traceback" not in said
    log = next(tmp_path.glob("out/nodes/student-b-*/log.txt"))
    deadline = time.monotonic() + 20
    while _holders(log):
        assert time.monotonic() < deadline, "a node still runs"
        time.sleep(0.05)
    assert not list(tmp_path.glob("out/cluster-*"))


def _holders(path: Path) -> list[str]:
    """Return the processes that have a file open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == str(path):
                found.append(link.parts[2])
        except OSError:
            continue  # it ended while we looked
    return found
