"""Names from a user's files are printed as they are: rich would take parts of these for markup and emoji."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from hwsim.api import verify
from hwsim.random_weights import random_model

MODEL = "net:fire:[bold]"
MARKUP, EMOJI = "a[/red]b", "key"
FORMATS = "activation: TERNARY, weight: TERNARY"
WORKLOAD = f"""\
schema: hwsim/workload/1
name: net
description: small
source: made up
energy_includes: nothing
layers:
  - {{name: "{MARKUP}", gemm: {{m: 1, n: 6, k: 8}}, {FORMATS}, result: TERNARY}}
  - {{name: {EMOJI}, gemm: {{m: 1, n: 4, k: 6}}, {FORMATS}, result: INT16}}
"""
ON = ("--machine", "ternary_edge")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    (folder / "net.yaml").write_text(WORKLOAD, encoding="utf-8")
    random_model(folder / "net.yaml", folder / MODEL, samples=2)
    return folder / MODEL


@pytest.mark.parametrize("node", [MARKUP, EMOJI])
def test_verify_prints_what_was_injected(hwsim, model, node):
    done = hwsim("verify", model, *ON, "--inject", f"weight:{node}:0:0")
    assert done.stdout.startswith(f"model {MODEL} (")
    assert f"injected: weight:{node}:0:0, in the machine's memory only" in done.stdout
    assert f"  {node} (linear): " in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("run", "--cost"),
        ("explain", "--operator", MARKUP),
        ("vectors", "--operator", MARKUP, "--tile", 0, "--out", "v"),
        ("activity",),
    ],
    ids=lambda command: command[0],
)
def test_views_print_the_names(hwsim, model, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    done = hwsim(command[0], model, *ON, *command[1:])
    assert (done.returncode, done.stderr) == (0, "")
    assert MARKUP in done.stdout
    assert MODEL in done.stdout


def test_lists_and_comparisons_print_the_names(hwsim, model):
    assert MARKUP in hwsim("vectors", model, *ON).stdout
    sizes = hwsim("sizes", model).stdout
    assert MODEL in sizes
    assert f"{MARKUP}.weight" in sizes
    done = hwsim("diff", "toy", "ternary_edge", "--model", model)
    assert done.stdout.startswith(f"{MODEL}, steady: A = toy, B = ternary_edge\n")
    assert MARKUP in done.stdout


def test_a_console_of_the_user_prints_them_too(model):
    """As docs/examples/five_lines.py makes one: rich's markup and emoji are on."""
    text = io.StringIO()
    verify(model, "ternary_edge", inject=f"weight:{EMOJI}:0:0").render(
        Console(file=text, soft_wrap=True)
    )
    assert f"model {MODEL} (" in text.getvalue()
    assert f"injected: weight:{EMOJI}:0:0," in text.getvalue()
