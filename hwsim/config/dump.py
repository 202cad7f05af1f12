"""Plain data -> YAML text that `hwsim.config.source` reads back as the same data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from yaml.emitter import Emitter
from yaml.representer import SafeRepresenter
from yaml.serializer import Serializer

from hwsim.config.source import CoreResolver, Document, KeyPath, dotted, scalar


class _Dumper(Emitter, Serializer, SafeRepresenter, CoreResolver):
    """PyYAML's writer with our scalar rules: what we read as text is quoted where we would not."""

    def __init__(self, stream: Any, **options: Any) -> None:
        Emitter.__init__(self, stream, width=options.get("width"))
        Serializer.__init__(self)
        flow = options.get("default_flow_style", False)
        SafeRepresenter.__init__(self, default_flow_style=flow, sort_keys=False)
        CoreResolver.__init__(self)

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value out: the reader of an expanded file should not look things up."""
        return True


def to_yaml(data: dict[str, Any]) -> str:
    """Return data as YAML text, keys in their own order."""
    text = yaml.dump(data, Dumper=_Dumper, width=110)
    return str(text)


def to_flow(value: Any) -> str:
    """Return one value as YAML on one line, a mapping or list in braces or brackets."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=float("inf"))
    return str(text).removesuffix("\n").removesuffix("\n...")


def leaves_with_origin(document: Document) -> Iterator[tuple[str, str, str]]:
    """Yield (path, value, place) of every leaf of a composed document, in order."""
    for path, value in _leaves(document.data, ()):
        yield dotted(path), _text(value), str(document.place(path))


def _leaves(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _leaves(below, (*path, key))
    elif isinstance(value, list) and value:
        for index, below in enumerate(value):
            yield from _leaves(below, (*path, index))
    else:
        yield path, value


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    # Quoted exactly where the plain text would be read as something else.
    return repr(value) if isinstance(value, str) and scalar(value) != value else str(value)
