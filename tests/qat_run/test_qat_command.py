"""`python -m qat` as a user meets it: exit codes, messages without a traceback, no torch for --help."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CONFIG = """\
schema: qat/run/1
name: tiny
task: digits
model:
  family: vit
  config: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 24, patch_size: 4}
recipe: float
train: {steps: 4, batch_size: 16, evaluate_every: 2}
"""


Answer = tuple[int, str, str]
Qat = Callable[..., Answer]


@pytest.fixture
def qat(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Qat:
    """`qat(*arguments)` runs the command's `main` in this process: exit code, stdout and stderr."""
    from qat.__main__ import main

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["qat", *arguments])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        return code, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    return run


def test_train_then_eval_print_the_same_measurements(qat: Qat, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG)
    # a process of its own: whatever libraries say when they are first imported is on its stderr
    command = [sys.executable, "-m", "qat", "train", "run.yaml", "--out", "run", "--set", "seed=3"]
    trained = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr == ""
    code, measured, faults = qat("eval", "run")
    assert (code, faults) == (0, "")
    assert measured.splitlines() == trained.stdout.splitlines()[1:]
    assert "540 rows" in measured


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "none.yaml", "--out", "run"), "none.yaml"),
        (("train", "bad.yaml", "--out", "run"), "bad.yaml:9:3: train.step"),
        (("eval", "nowhere"), "nowhere: not a run of `python -m qat train`"),
    ],
)
def test_a_users_fault_is_a_message_and_exit_code_2(
    qat: Qat, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    bad = CONFIG.replace(
        "train: {steps: 4, batch_size: 16, evaluate_every: 2}", "train:\n  step: 4"
    )
    (tmp_path / "bad.yaml").write_text(bad)
    code, _, faults = qat(*arguments)
    assert code == 2
    assert message in faults
    assert "Traceback" not in faults


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["export", "--help"]])
def test_help_does_not_load_torch(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from qat.__main__ import app\n"
        f"answer = CliRunner().invoke(app, {arguments!r})\n"
        "assert answer.exit_code == 0, answer.output\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'numba'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
