"""`extends:` and `--set`: one way to build a configuration from others, places kept.

A mapping is merged key by key, anything else replaces. A mapping that states its own `kind:` or `preset:`
replaces the base's as a whole: a quantity never keeps the bounds of the number it replaces, nor an array of
one kind the keys of another, nor a preset what was said of another part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwsim.config.source import Document, KeyPath, Place, dotted, parse_yaml, read_yaml, scalar
from hwsim.errors import ConfigError, nearest

EXTENDS = "extends"
PRESET = "preset"
_WHOLE = ("kind", PRESET)


Rewrite = Callable[[Document], Document]
Setting = tuple[str, Any]
"""An override as a path and plain data, `("a.b.c", 8)`; lists and mappings are taken over as they are."""


def compose(
    path: Path,
    overrides: Sequence[str] = (),
    presets: Path | None = None,
    rewrite: Rewrite = lambda document: document,
) -> Document:
    """Read a file with all that it extends, then apply overrides.

    Args:
        path: the YAML file.
        overrides: texts `a.b.c=value`, later ones win; the value is a YAML value.
        presets: folder in which `extends: NAME` and `extends: base/NAME` are looked up.
        rewrite: what is done to each file by itself, and to the whole once overrides are applied.

    Raises:
        ConfigError: a file is wrong, `extends:` goes in a circle or leads nowhere, an override is no
            `path=value`.
    """
    return with_overrides(compose_bases(path, presets, rewrite), overrides, rewrite)


def compose_bases(
    path: Path, presets: Path | None = None, rewrite: Rewrite = lambda document: document
) -> Document:
    """Read a file with all that it extends, before any override; arguments and errors as in `compose`."""
    return _with_bases(path, presets, (), rewrite)


def with_overrides(
    document: Document, overrides: Sequence[str | Setting], rewrite: Rewrite
) -> Document:
    """Return the document of `compose_bases` with overrides applied; arguments and errors as in `compose`."""
    faults: list[str] = []
    for override in overrides:
        try:
            document = _apply(document, override)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return rewrite(document)


def with_preset(document: Document, key: str, folder: Path) -> Document:
    """Return the document with the part `key` filled from the preset that it names, if it names one.

    Args:
        document: composed data.
        key: of the part, a mapping.
        folder: of the presets, one file each.

    Raises:
        ConfigError: there is no such preset.
    """
    part = document.data.get(key)
    if not isinstance(part, dict) or PRESET not in part:
        return document
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    name = part[PRESET]
    if name not in known:
        raise ConfigError(
            f"{document.place((key, PRESET))}: {key}.{PRESET}: must be one of {', '.join(known)},"
            f" not {name!r}{nearest(str(name), list(known))}"
        )
    preset = _without(read_yaml(known[name]), ("description",))
    below = Document(
        {key: preset.data},
        {(key, *p): place for p, place in preset.values.items()},
        {(key, *p): place for p, place in preset.keys.items()},
    )
    rest = {k: v for k, v in part.items() if k != PRESET}
    return _merge(below, replace(document, data={**document.data, key: rest}))


def _with_bases(
    path: Path, presets: Path | None, seen: tuple[Path, ...], rewrite: Rewrite
) -> Document:
    document = rewrite(read_yaml(path))
    if EXTENDS not in document.data:
        return document
    place = document.values[(EXTENDS,)]
    name = document.data[EXTENDS]
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{place}: extends: must be a file or a preset's name, not {name!r}")
    base = _find_base(name, path, presets, place)
    chain = (*seen, path.resolve())
    if base.resolve() in chain:
        circle = " -> ".join(p.name for p in (*chain[chain.index(base.resolve()) :], base))
        raise ConfigError(f"{place}: extends: must not come back to itself: {circle}")
    below = _with_bases(base, presets, chain, rewrite)
    return _merge(below, _without(document, (EXTENDS,)))


def _find_base(name: str, path: Path, presets: Path | None, place: Place) -> Path:
    beside = path.parent / name
    candidates = [beside, beside.with_name(beside.name + ".yaml")]
    if presets is not None and not name.endswith((".yaml", ".yml")):
        candidates.append(presets / f"{name}.yaml")
    own = path.resolve()
    found = [c for c in candidates if is_file(c)]
    # A user's `toy.yaml` may extend the shipped `toy`: a bare name never means the file itself
    # where the presets offer another.
    for candidate in found:
        if candidate.resolve() != own:
            return candidate
    if found:
        return found[0]
    known = [] if presets is None else sorted(_preset_names(presets))
    listed = f" or a preset ({', '.join(known)})" if known else ""
    raise ConfigError(
        f"{place}: extends: must be a YAML file beside this one{listed},"
        f" not {name!r}{nearest(name, known)}"
    )


def difference(base: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """Return what a file that `extends:` the base must say to become the changed one.

    The changed one lacks no key of the base, except in mappings that state their own `kind:` or `preset:`.
    """
    own: dict[str, Any] = {}
    for key, value in changed.items():
        below = base.get(key)
        if key in base and below == value:
            continue
        if isinstance(below, dict) and isinstance(value, dict):
            inside = difference(below, value)
            whole = bool(below.keys() - value.keys()) or any(k in inside for k in _WHOLE)
            own[key] = value if whole else inside
        else:
            own[key] = value
    return own


def is_file(path: Path) -> bool:
    """Tell whether there is a file; a name that no file system takes is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _preset_names(presets: Path) -> list[str]:
    return [p.relative_to(presets).with_suffix("").as_posix() for p in presets.rglob("*.yaml")]


def _merge(base: Document, top: Document) -> Document:
    values: dict[KeyPath, Place] = {(): top.values[()]}
    keys: dict[KeyPath, Place] = {}

    def take(source: Document, path: KeyPath) -> None:
        for table, out in ((source.values, values), (source.keys, keys)):
            for p, place in table.items():
                if p[: len(path)] == path:
                    out[p] = place

    def merge(below: dict[str, Any], above: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for key in [*below, *(k for k in above if k not in below)]:
            here = (*path, key)
            if key not in above:
                merged[key] = below[key]
                take(base, here)
            elif _mergeable(below.get(key), above[key]):
                keys[here], values[here] = top.keys[here], top.values[here]
                merged[key] = merge(below[key], above[key], here)
            else:
                merged[key] = above[key]
                take(top, here)
        return merged

    return Document(merge(base.data, top.data, ()), values, keys)


def _mergeable(below: object, above: object) -> bool:
    return (
        isinstance(below, dict) and isinstance(above, dict) and not any(k in above for k in _WHOLE)
    )


def _without(document: Document, path: KeyPath) -> Document:
    data = {k: v for k, v in document.data.items() if (k,) != path}
    return Document(
        data,
        {p: v for p, v in document.values.items() if p[: len(path)] != path},
        {p: v for p, v in document.keys.items() if p[: len(path)] != path},
    )


def _apply(document: Document, override: str | Setting) -> Document:
    """Return the document with one `a.b.c=value` applied."""
    name, value, below, origin = _parsed(override)
    parts = name.split(".")
    if not all(parts):
        raise ConfigError(f"{origin}: must be PATH=VALUE, for example clock_hz=100000000")
    if parts[-1] == PRESET and len(parts) > 1:  # replaces the mapping that it stands in
        parts, value, below = parts[:-1], {PRESET: value}, [(PRESET,)]
    place = Place(origin)
    data = _copy(document.data)
    path = _put(data, parts, value, origin)
    values = {p: v for p, v in document.values.items() if p[: len(path)] != path}
    keys = dict(document.keys)
    for length in range(1, len(path) + 1):
        keys.setdefault(path[:length], place)
        values.setdefault(path[:length], place)
    keys[path] = place
    for p in below:
        values[(*path, *p)] = keys[(*path, *p)] = place
    return Document(data, values, keys)


def _parsed(override: str | Setting) -> tuple[str, Any, list[KeyPath], str]:
    """Return path, value, the paths inside the value, and what to call the override in a message."""
    if not isinstance(override, str):
        name, value = override
        return name, _copy(value), _paths(value), f"{name}={value!r}"
    origin = f"--set {override}"
    name, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"{origin}: must be PATH=VALUE, for example clock_hz=100000000")
    return name, *_override_value(text, origin), origin


def _paths(value: object) -> list[KeyPath]:
    inside: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    return [path for key, v in inside for path in ((key,), *((key, *p) for p in _paths(v)))]


def _override_value(text: str, origin: str) -> tuple[Any, list[KeyPath]]:
    """Read the value of an override: a scalar, or a YAML list or mapping in flow style."""
    if not text.lstrip().startswith(("{", "[")):
        return scalar(text.strip()), []
    inner = parse_yaml(f"value: {text}", origin)
    return inner.data["value"], [p[1:] for p in inner.values if len(p) > 1]


def _put(data: dict[str, Any], parts: list[str], value: object, origin: str) -> KeyPath:
    """Set a value in nested data; missing mappings are made, so that validation can judge the key."""
    at: Any = data
    path: list[str | int] = []
    for position, part in enumerate(parts):
        key: str | int = part
        if isinstance(at, list):
            if not part.isdecimal() or int(part) >= len(at):
                raise ConfigError(
                    f"{origin}: {dotted(tuple(path))} is a list of {len(at)};"
                    f" the next part must be an index below that, not {part!r}"
                )
            key = int(part)
        elif not isinstance(at, dict):
            raise ConfigError(
                f"{origin}: {dotted(tuple(path))} is {at!r}, so it has no key {part!r}"
            )
        path.append(key)
        if position == len(parts) - 1:
            at[key] = value
        else:
            if isinstance(at, dict) and at.get(part) is None:
                at[part] = {}
            at = at[key]
    return tuple(path)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value
