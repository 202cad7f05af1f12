"""YAML text -> plain data with the place of every key and value.

Stricter than YAML on purpose: no repeated keys, no tags, no merge keys, one document, text keys only.
Plain scalars follow the YAML 1.2 core schema, so `1e-12` is a number and `on`, `no`, `12:30` and `010`
are text that validation refuses where a number is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from hwsim.errors import ConfigError

KeyPath = tuple[str | int, ...]

MAX_NODES = 20_000
"""most values a file may hold once its aliases are expanded; the largest real one has a few thousand"""
MAX_DEPTH = 40
"""deepest nesting; deeper files exhaust the parser's stack"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written: a file position, or the command-line option that set it."""

    origin: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.origin}:{self.line}:{self.column}" if self.line else self.origin


@dataclass(frozen=True)
class Document:
    """Plain data of one YAML file, or of several composed ones, with places by path."""

    data: dict[str, Any]
    values: Mapping[KeyPath, Place] = field(default_factory=dict)
    """path -> where the value starts; the empty path is the document"""
    keys: Mapping[KeyPath, Place] = field(default_factory=dict)
    """path -> where the key of that path was written"""

    def place(self, path: KeyPath, *, of_key: bool = False) -> Place:
        """Return the place of the longest prefix of a path that the document knows."""
        for length in range(len(path), -1, -1):
            part = path[:length]
            if length == len(path) and of_key and part in self.keys:
                return self.keys[part]
            if part in self.values:
                return self.values[part]
        return Place("?")


# YAML 1.2 core schema, except that a number with leading zeros stays text: it is rarely meant as one.
_INT = r"[-+]?(?:0|[1-9][0-9]{0,38})|0x[0-9a-fA-F]{1,32}|0o[0-7]{1,42}"
_FLOAT = r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
_SCALARS: tuple[tuple[str, str, str], ...] = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
)


class CoreResolver(BaseResolver):
    """Resolves plain scalars by the rules above."""


for _name, _pattern, _first in _SCALARS:
    CoreResolver.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}",
        re.compile(f"^(?:{_pattern})$"),
        [*_first, ""] if _name == "null" else list(_first),
    )


class _Loader(Reader, Scanner, Parser, Composer, CoreResolver):
    """PyYAML's parser with our scalar rules, which refuses tags and deep nesting while it composes."""

    def __init__(self, text: str, origin: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        CoreResolver.__init__(self)
        self.origin = origin
        self.depth = 0
        self.faults: list[str] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            self.faults.append(
                f"{_mark(self.origin, event.start_mark)}: tag {event.tag!r} is not allowed:"
                " values must be plain text, numbers, lists and mappings"
            )
            event.tag = None
            if isinstance(event, yaml.ScalarEvent):
                event.implicit = (True, False)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConfigError(
                f"{_mark(self.origin, event.start_mark)}: must be nested at most {MAX_DEPTH} deep"
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_yaml(path: Path) -> Document:
    """Read one YAML file whose top is a mapping.

    Raises:
        ConfigError: the file cannot be read or breaks the rules; one message a fault, all of them.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    parsed = _parse_once(_decode(raw, str(path)), str(path))
    return Document(deepcopy(parsed.data), dict(parsed.values), dict(parsed.keys))


def parse_yaml(text: str, origin: str) -> Document:
    """Read YAML text whose top is a mapping; `origin` stands for the file in messages.

    Raises:
        ConfigError: as `read_yaml`.
    """
    try:
        loader = _Loader(text, origin)
        node = loader.get_single_node()
    except ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        raise ConfigError(
            f"{origin}:{line}:{column}: character U+{error.character:04X} is not allowed in YAML"
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{_mark(origin, mark)}: {_problem(error)}") from error
    if node is None:
        raise ConfigError(f"{origin}:1:1: must be a mapping of keys, not an empty file")
    if not isinstance(node, yaml.MappingNode):
        shown = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
        raise ConfigError(
            f"{_mark(origin, node.start_mark)}: must be a mapping of keys at its top, not {shown}"
        )
    builder = _Builder(origin, loader.faults)
    data = builder.build(node, ())
    if builder.faults:
        raise ConfigError(builder.faults)
    return Document(data, builder.values, builder.keys)


@lru_cache(maxsize=64)
def _parse_once(text: str, origin: str) -> Document:
    # A study and a list of machines read the same few bases again and again; a parse takes 20 to 60 ms, a copy 1 ms.
    return parse_yaml(text, origin)


def scalar(text: str) -> Any:
    """Return what a plain scalar of YAML means: a number, a truth value, None or the text itself."""
    tag: str = CoreResolver().resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return _scalar_value(tag, text)


class _Builder:
    """Turns composed nodes into data, noting places and faults on the way."""

    def __init__(self, origin: str, faults: list[str]) -> None:
        self.origin = origin
        self.faults = faults
        self.values: dict[KeyPath, Place] = {}
        self.keys: dict[KeyPath, Place] = {}
        self.count = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self.count += 1
        if self.count > MAX_NODES or len(path) > MAX_DEPTH:
            raise ConfigError(
                f"{_mark(self.origin, node.start_mark)}: aliases expand to more than {MAX_NODES}"
                f" values or {MAX_DEPTH} levels: write the values out instead"
            )
        self.values[path] = _place(self.origin, node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        return _scalar_value(node.tag, node.value)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = _place(self.origin, key_node.start_mark)
            key = self._key(key_node, place, path)
            if key is None:
                continue
            here = (*path, key)
            if key in data:
                self.faults.append(
                    f"{place}: {dotted(here)}: key is given twice;"
                    f" the first is at {self.keys[here]}"
                )
                continue
            self.keys[here] = place
            data[key] = self.build(value_node, here)
        return data

    def _key(self, node: yaml.Node, place: Place, path: KeyPath) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.faults.append(f"{place}: a key must be plain text, not a list or mapping")
            return None
        if node.value == "<<" and node.style is None:
            self.faults.append(
                f"{place}: {dotted((*path, '<<'))}: merge keys are not allowed; use `extends:`"
            )
            return None
        if node.tag != "tag:yaml.org,2002:str":
            self.faults.append(
                f"{place}: {dotted((*path, node.value))}: a key must be text,"
                f" not {_scalar_value(node.tag, node.value)!r}; put it in quotes"
            )
            return None
        return str(node.value)


def dotted(path: KeyPath) -> str:
    """Return a path as people write it: `arrays.main.rows`; the document itself is `(top)`."""
    return ".".join(str(part) for part in path) or "(top)"


def _scalar_value(tag: str, text: str) -> Any:
    kind = tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text, 0)
    if kind == "float":
        lowered = text.lower()
        return float(lowered.replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _decode(raw: bytes, origin: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = before.count(b"\n") + 1
        column = len(before) - (before.rfind(b"\n") + 1) + 1
        raise ConfigError(
            f"{origin}:{line}:{column}: must be UTF-8 text,"
            f" not a byte 0x{raw[error.start]:02X} ({error.reason})"
        ) from error


def _place(origin: str, mark: Any) -> Place:
    return Place(origin, mark.line + 1, mark.column + 1)


def _mark(origin: str, mark: Any) -> str:
    return f"{origin}:1:1" if mark is None else str(_place(origin, mark))


def _problem(error: yaml.MarkedYAMLError) -> str:
    if error.context == "expected a single document in the stream":
        return "must hold one document, but a second one starts here"
    context = error.context
    if context and error.context_mark and error.problem_mark:
        begin = error.context_mark
        if begin.line != error.problem_mark.line:
            context += f" that begins at {begin.line + 1}:{begin.column + 1}"
    text = "is not YAML: " + ", ".join(t for t in (context, error.problem) if t)
    if "<block end>" in str(error.problem) or "mapping values are not allowed" in str(
        error.problem
    ):
        text += " (is this line indented as its neighbours are, and the key above it there and no comment?)"
    return text
