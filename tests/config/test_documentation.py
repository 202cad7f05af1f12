"""docs/machine-files.md: its example is a machine, and it names every key that there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hwsim.config.load import load_machine
from hwsim.config.schema import machine_schema

PAGE = (Path(__file__).parents[2] / "docs" / "machine-files.md").read_text(encoding="utf-8")


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
