"""Where nothing can be written: one line, before the work where the path alone shows it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

USER_ERROR = 2
ON = ("--machine", "toy")
FULL = Path("/dev/full")


@pytest.fixture(autouse=True)
def in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder and a file where something is to be written; there is no model: what fails first is the place."""
    monkeypatch.chdir(tmp_path)
    Path("dir").mkdir()
    Path("file.yaml").touch()


FOLDER = "dir: is a folder; name a file, for example dir/result.json\n"
BELOW = "file.yaml/x/y: file.yaml is a file, not a folder; give another path\n"
FILE = "file.yaml: is a file; name a folder\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run", "none", *ON, "--json", "dir"), FOLDER),
        (("run", "none", *ON, "--json", "file.yaml/x/y"), BELOW),
        (("run", "none", *ON, "--trace", "dir"), FOLDER),
        (("run", "none", *ON, "--trace-cold", "dir"), FOLDER),
        (("decode", "none", *ON, "--sample", 0, "--json", "dir"), FOLDER),
        (("verify", "none", *ON, "--json", "dir"), FOLDER),
        (("explain", "none", *ON, "--operator", "x", "--json", "dir"), FOLDER),
        (("diff", "toy", "xnor_edge", "--model", "none", "--json", "dir"), FOLDER),
        (("validate", "none", "--json", "dir"), FOLDER),
        (("random", "none", "--out", "file.yaml"), FILE),
        (("random", "none", "--out", "file.yaml/x/y"), BELOW),
        (("plot", "none", *ON, "--out", "file.yaml"), FILE),
        (("sensitivity", "toy", "--model", "none", "--out", "file.yaml"), FILE),
        (("vectors", "none", *ON, "--operator", "x", "--tile", 0, "--out", "file.yaml"), FILE),
        (("activity", "none", *ON, "--out", "file.yaml"), FILE),
    ],
)
def test_a_place_that_takes_nothing_is_found_first(hwsim, arguments, text):
    done = hwsim(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (USER_ERROR, "", text)
    assert sorted(path.name for path in Path().iterdir()) == ["dir", "file.yaml"]


@pytest.mark.parametrize("option", ["--json", "--trace"])
def test_a_folder_without_the_right_to_write_is_found_first(hwsim, monkeypatch, option):
    monkeypatch.setattr(os, "access", lambda place, mode: (str(place), mode) != ("dir", os.W_OK))
    done = hwsim("run", "none", *ON, option, "dir/new/x")
    assert (done.returncode, done.stdout) == (USER_ERROR, "")
    assert done.stderr == "dir/new/x: dir may not be written to; give another path\n"


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")
@pytest.mark.parametrize("option", ["--json", "--trace"])
def test_a_full_disk_is_one_line(hwsim, export, option):
    done = hwsim("run", export, "--machine", "int8_edge", "--cost", option, FULL)
    assert done.returncode == USER_ERROR
    assert done.stderr == (
        f"{FULL}: cannot be written: No space left on device; give another path\n"
    )
