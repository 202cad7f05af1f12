"""`python -m hwsim vectors` and `activity` as a user meets them: output, files and exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "rtl"))

OK, USER_ERROR = 0, 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from small_models import attention, export

    folder = tmp_path_factory.mktemp("chip") / "attention"
    export(folder, attention("INT8", "TERNARY"))
    return folder


def test_operators_are_listed_then_one_is_written(hwsim, model, tmp_path):
    on = ("vectors", model, "--machine", "ternary_edge")
    listed = hwsim(*on, "--json", tmp_path / "list.json")
    assert (listed.returncode, listed.stderr) == (OK, "")
    first = listed.stdout.splitlines()[0]
    assert first.startswith("x.acc       main: INT8 x TERNARY, batch x M x N x K = 1 x 9 x 22 x 37")
    names = [o["name"] for o in json.loads((tmp_path / "list.json").read_text())["operators"]]
    assert names == ["x.acc", "scores.acc", "mix.acc", "y.acc"]

    out = tmp_path / "new" / "v"
    done = hwsim(*on, "--operator", names[0], "--tile", 1, "--sample", 0, "--out", out)
    assert (done.returncode, done.stderr) == (OK, "")
    assert "tile 1: batch 0, m 0..8" in done.stdout
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "tile_00001"]
    assert hwsim(*on, "--operator", names[0], "--tile", 1, "--out", out).returncode == USER_ERROR


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--operator", "x.acc"), "--operator needs --tile I (or all) and --out DIR"),
        (("--tile", "0"), "--tile and --out need --operator NAME"),
        (("--operator", "x.acc", "--tile", "first", "--out", "v"), "--tile must be a number from 0, or all, not 'first'"),
        (("--operator", "x.ac", "--tile", "0", "--out", "v"), "did you mean 'x.acc'?"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(hwsim, model, tmp_path, monkeypatch, options, text):
    monkeypatch.chdir(tmp_path)
    done = hwsim("vectors", model, "--machine", "ternary_edge", *options)
    assert (done.returncode, done.stdout) == (USER_ERROR, "")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_activity_prints_and_writes(hwsim, model, tmp_path):
    out, file = tmp_path / "a", tmp_path / "a.json"
    done = hwsim(
        "activity", model, "--machine", "ternary_edge", "--samples", 2, "--out", out, "--json", file
    )
    assert (done.returncode, done.stderr) == (OK, "")
    assert done.stdout.startswith("attention on ternary_edge, 2 samples, ")
    assert sorted(p.name for p in out.iterdir()) == ["activity.csv", "activity.saif"]
    result = json.loads(file.read_text())
    assert len(result["operators"]) == 8
    assert result["left_out"] == []
    assert set(result["hashes"]) == {"model", "machine", "code"}
