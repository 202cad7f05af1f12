"""A page whose snippets are run: named fences are files, `console` fences are commands with what they print.

```yaml mine.yaml        is written to the folder, in the order of the page
```console               `$ COMMAND` and its output; `...` in it stands for anything, on a line of its own for lines
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from hwsim.cli import main

COLUMNS = "100"
"""width of what is printed, whatever terminal the tests run in"""
_FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """A fence: its language, its file's name where it has one, its text."""

    language: str
    name: str | None
    text: str

    def commands(self) -> list[tuple[str, str]]:
        """Return (command, what the page says that it prints)."""
        parts = re.split(r"^\$ (.*)\n", self.text, flags=re.MULTILINE)[1:]
        return list(zip(parts[::2], parts[1::2], strict=True))


def snippets(page: str) -> list[Snippet]:
    """Return the fences of a page, in order."""
    return [Snippet(language, name or None, text) for language, name, text in _FENCE.findall(page)]


def matches(shown: str, printed: str) -> bool:
    """Tell whether what was printed is what the page shows."""
    lines = [
        "(.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + "\n"
        for line in shown.splitlines()
    ]
    kept = "".join(line.rstrip() + "\n" for line in printed.splitlines())
    return re.fullmatch("".join(lines), kept) is not None


class Shell:
    """Runs `python -m hwsim ...` in a folder: in this process until a package is installed there."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self._patch, self._captured = folder, patch, captured
        self._installed: list[str] = []
        patch.chdir(folder)
        patch.setenv("COLUMNS", COLUMNS)

    def write(self, name: str, text: str) -> None:
        """Write a file; a `pyproject.toml` is installed as `pip install --editable` would do it."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if path.name == "pyproject.toml":
            self._install(path.parent, tomllib.loads(text)["project"])

    def run(self, command: str) -> str:
        """Return what a command prints."""
        line, _, target = command.partition(" > ")
        python, dash, module, *arguments = shlex.split(line)
        assert (python, dash, module) == ("python", "-m", "hwsim")
        printed = self._beside(arguments) if self._installed else self._here(arguments)
        if not target:
            return printed
        (self.folder / target).write_text(printed, encoding="utf-8")
        return ""

    def _here(self, arguments: list[str]) -> str:
        self._patch.setattr(sys, "argv", ["hwsim", *arguments])
        with pytest.raises(SystemExit):
            main()
        return "".join(self._captured.readouterr())

    def _beside(self, arguments: list[str]) -> str:
        paths = os.pathsep.join([*self._installed, os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-m", "hwsim", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def _install(self, package: Path, project: dict[str, object]) -> None:
        info = package / f"{project['name']}-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        groups = project["entry-points"]
        assert isinstance(groups, dict)
        (info / "entry_points.txt").write_text(
            "".join(
                f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in points.items())
                for group, points in groups.items()
            )
        )
        self._installed.append(str(package))
