"""One tiny export for all commands, and two ways to run them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bitexact"))


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A W2A8 text classifier with 12 padded sentences."""
    from lowbit_students import build

    folder = tmp_path_factory.mktemp("cli") / "sentences"
    build("bert", "kd_w2a8", folder)
    return folder


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Hwsim = Callable[..., Done]


@pytest.fixture
def hwsim(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Hwsim:
    """`hwsim(*arguments)` runs the command's `main` in this process: no second import of torch."""
    from hwsim.cli import main

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["hwsim", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run


@pytest.fixture
def hwsim_process(tmp_path_factory: pytest.TempPathFactory) -> Hwsim:
    """The same in a new process, in a folder that is not the repository."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*arguments: object) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "hwsim", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=elsewhere,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run
