"""Strict YAML: what each plain scalar means, where everything stands, what writing and reading keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.config.dump import to_yaml
from hwsim.config.source import Place, parse_yaml, read_yaml
from hwsim.units import parse_capacity_bytes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-12", 1e-12),
        ("1.5e6", 1.5e6),
        ("3", 3),
        ("-3", -3),
        ("0x1F", 31),
        ("0o17", 15),
        (".5", 0.5),
        ("1.", 1.0),
        ("010", "010"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("on", "on"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2026-11-22", "2026-11-22"),
        ("'3'", "3"),
        ("=", "="),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    got = parse_yaml(f"key: {text}", "t.yaml").data["key"]
    assert got == value
    assert type(got) is type(value)


def test_every_key_and_value_has_its_place() -> None:
    document = parse_yaml("a:\n  b: 1\n  c: [x,  y]\n", "t.yaml")
    assert document.keys[("a", "b")] == Place("t.yaml", 2, 3)
    assert document.values[("a", "b")] == Place("t.yaml", 2, 6)
    assert document.values[("a", "c", 1)] == Place("t.yaml", 3, 11)
    assert document.place(("a", "missing", "deeper")) == Place("t.yaml", 2, 3)


plain: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.dictionaries(st.text(), plain, min_size=1, max_size=3))
def test_what_is_written_is_read_back(data: dict[str, Any]) -> None:
    assert parse_yaml(to_yaml(data), "t.yaml").data == data


def test_a_file_read_again_is_whole_and_new(tmp_path: Path) -> None:
    """What a reader changes stays with that reader, though the same text is parsed once."""
    path = tmp_path / "a.yaml"
    path.write_text("a: {b: [1, 2]}", encoding="utf-8")
    first = read_yaml(path)
    first.data["a"]["b"].append(3)
    first.values.clear()  # type: ignore[attr-defined]
    again = read_yaml(path)
    assert again.data == {"a": {"b": [1, 2]}}
    assert again.place(("a", "b", 1)) == Place(str(path), 1, 12)
    path.write_text(
        "a: {b: [1, 4]}", encoding="utf-8"
    )  # as long as before, perhaps in the same tick
    assert read_yaml(path).data == {"a": {"b": [1, 4]}}


@pytest.mark.parametrize(
    ("text", "count"), [("64KiB", 65536), ("2 MiB", 2 << 20), (12, 12), ("12B", 12)]
)
def test_capacities_have_binary_units(text: object, count: int) -> None:
    assert parse_capacity_bytes(text) == count


@pytest.mark.parametrize("text", ["64KB", "64", "1.5KiB", "-1KiB", "0KiB", 0, True, 1.0, None])
def test_other_capacities_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a positive whole number of bytes"):
        parse_capacity_bytes(text)
