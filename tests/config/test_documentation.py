"""docs/machine-files.md: its example is a machine, and it names every key. docs/your-own-machine.md: all of it is run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from page import Shell, matches, snippets

from hwsim.config.load import load_machine
from hwsim.config.schema import machine_schema
from hwsim.config.source import read_yaml

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "machine-files.md").read_text(encoding="utf-8")


def test_the_shortest_file_is_a_machine(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(schema: .*?)```", PAGE, re.DOTALL)
    assert example is not None
    path = tmp_path / "xnor_wide.yaml"
    path.write_text(example[1], encoding="utf-8")
    assert load_machine(path).spec.arrays["main"].rows == 16


def test_every_key_is_explained() -> None:
    def keys(schema: dict[str, Any]) -> set[str]:
        return set(schema.get("properties", {}))

    schema = machine_schema()
    known = keys(schema).union(*(keys(part) for part in schema["$defs"].values()))
    unexplained = {key for key in known if not re.search(rf"\b{key}\b", PAGE)}
    assert not unexplained


def test_the_page_of_ones_own_machine_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(tmp_path, monkeypatch, capsys)
    ran = 0
    for snippet in snippets((DOCS / "your-own-machine.md").read_text(encoding="utf-8")):
        if snippet.name is not None:
            shell.write(snippet.name, snippet.text)
            continue
        assert snippet.language == "console", "a snippet is a file with a name, or commands"
        for command, shown in snippet.commands():
            printed = shell.run(command)
            assert matches(shown, printed), f"$ {command}\n{printed}"
            ran += 1
    assert ran > 10
    editor = Draft7Validator(json.loads((tmp_path / "machine.schema.json").read_text()))
    for name in ("mine", "larger", "published"):
        editor.validate(read_yaml(tmp_path / f"{name}.yaml").data)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\n", "a\nb\n", False),
        ("a\n...\n", "a\nb\nc\n", True),
        ("...\nc\n", "a\nb\nc\n", True),
        ("a ... c\n", "a b c\n", True),
        ("a ... c\n", "a b d\n", False),
        ("1.5\n", "115\n", False),
        ("", "a\n", False),
    ],
)
def test_what_a_page_shows_is_compared_line_by_line(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same


def test_the_front_page_leads_to_every_page() -> None:
    front = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in sorted(DOCS.glob("*.md")) if f"](docs/{p.name})" not in front] == []


@pytest.mark.parametrize(
    "path", [*DOCS.parent.glob("*.md"), *DOCS.glob("*.md")], ids=lambda path: path.name
)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!http)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        there = path.parent / target if target else path
        assert there.exists(), f"{path.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in anchors, f"{path.name}: {target}#{anchor}"
