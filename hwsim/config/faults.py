"""What pydantic found, in the words and with the place that a person needs."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union

from pydantic import BaseModel, Discriminator, Tag, ValidationError

from hwsim.config.source import Document, KeyPath, dotted
from hwsim.errors import nearest

MISSING, UNKNOWN, WRONG_TYPE = "missing", "extra_forbidden", "wrong_type"

_BOUNDS = {
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
}
_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "list_type": "a list",
    "tuple_type": "a list",
    "none_required": "null",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "at least {min_length} long",
    "too_long": "at most {max_length} long",
}


@dataclass(frozen=True, slots=True)
class _Error:
    kind: str
    path: KeyPath
    text: str
    value: Any
    context: dict[str, Any]


def explain(error: ValidationError, document: Document, model: type[BaseModel]) -> list[str]:
    """Return one message a fault, in the order of the file: `place: path: must be ..., not ...`.

    An unknown key whose name is close to a missing one beside it makes one message, not two.
    """
    found = [
        _Error(
            e["type"],
            _in_document(e["loc"], document.data, missing=e["type"] == MISSING),
            e["msg"],
            e["input"],
            e.get("ctx", {}),
        )
        for e in error.errors(include_url=False)
    ]
    found = _unions_joined(found)
    missing = {e.path for e in found if e.kind == MISSING}
    messages: list[tuple[tuple[str, int, int], str]] = []
    for e in found:
        if e.kind != UNKNOWN:
            continue
        beside = {str(p[-1]): p for p in missing if p[:-1] == e.path[:-1]}
        text = _unknown(e, list(beside), _known_keys(model, document.data, e.path[:-1]))
        for name, path in beside.items():
            if f"'{name}'" in text:
                missing.discard(path)
        messages.append(_placed(document, e.path, text, of_key=True))
    for e in found:
        if e.kind == MISSING:
            if e.path in missing:
                meaning = _meaning(model, document.data, e.path)
                messages.append(_placed(document, e.path, f"must be given: {meaning}"))
        elif e.kind != UNKNOWN:
            of_key = bool(e.context.get("of_key"))
            messages.append(_placed(document, e.path, _wording(e), of_key=of_key))
    return [text for _, text in sorted(messages, key=lambda m: m[0])]


def _unions_joined(errors: list[_Error]) -> list[_Error]:
    """Make one error of those that a union of plain types gives for one value, one a type."""
    wanted: dict[KeyPath, list[str]] = {}
    joined: list[_Error] = []
    for e in errors:
        if e.kind not in _TYPES:
            joined.append(e)
            continue
        if e.path not in wanted:
            wanted[e.path] = []
            joined.append(_Error(WRONG_TYPE, e.path, "", e.value, {"wanted": wanted[e.path]}))
        wanted[e.path].append(_TYPES[e.kind].format(**e.context))
    return joined


def _placed(
    document: Document, path: KeyPath, text: str, *, of_key: bool = False
) -> tuple[tuple[str, int, int], str]:
    place = document.place(path, of_key=of_key)
    if not of_key and path not in document.values and path[:-1]:
        # A missing key is shown where its parent's key stands, not where the parent's content starts.
        place = document.keys.get(path[:-1], place)
    return (place.origin, place.line, place.column), f"{place}: {dotted(path)}: {text}"


def _unknown(error: _Error, missing: list[str], known: list[str]) -> str:
    name = str(error.path[-1])
    close = nearest(name, missing)
    if close:
        return f"must be a known key{close} (that one is missing)"
    listed = f" ({', '.join(known)})" if known else ""
    others = [key for key in known if key != name]
    return f"must be a known key{listed}, not {name!r}{nearest(name, others)}"


def _wording(error: _Error) -> str:
    shown = _shown(error.value)
    if error.kind in _BOUNDS:
        return f"must be {_BOUNDS[error.kind].format(**error.context)}, not {shown}"
    if error.kind == WRONG_TYPE:
        return f"must be {' or '.join(dict.fromkeys(error.context['wanted']))}, not {shown}"
    if error.kind == "literal_error":
        allowed = str(error.context["expected"])
        options = [o.strip(" '") for o in allowed.replace(" or ", ", ").split(",")]
        hint = nearest(error.value, options) if isinstance(error.value, str) else ""
        return f"must be {allowed}, not {shown}{hint}"
    if error.kind in ("union_tag_invalid", "union_tag_not_found"):
        expected = error.context.get("expected_tags", "given")
        discriminator = str(error.context["discriminator"]).strip("'")
        tag = error.context.get("tag")
        return f"must have {discriminator} {expected}, not {_shown(tag)}"
    if error.kind == "value_error":
        return str(error.context["error"])
    return error.text


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _in_document(loc: tuple[int | str, ...], data: Any, *, missing: bool) -> KeyPath:
    """Drop the parts of an error's location that pydantic invents, such as a union's tag.

    A tag may be spelled like a key, so all ways of dropping parts are tried and the one that explains
    most of the location wins. A missing key is kept although the document lacks it.
    """
    if not missing:
        return max(_readings(loc, data), key=lambda path: (path[-1:] == loc[-1:], len(path)))
    parents = [
        path
        for path in _readings(loc[:-1], data)
        if isinstance(at := _at(data, path), dict) and loc[-1] not in at
    ]
    return (*max(parents, key=len, default=()), loc[-1])


def _readings(loc: tuple[int | str, ...], data: Any) -> Iterator[KeyPath]:
    """Yield every way to read a location as a path of the document by dropping parts."""
    if not loc:
        yield ()
        return
    if _holds(data, loc[0]):
        for rest in _readings(loc[1:], data[loc[0]]):
            yield (loc[0], *rest)
    yield from _readings(loc[1:], data)


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


def _holds(data: Any, part: str | int) -> bool:
    if isinstance(data, list):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, dict) and part in data


def _meaning(model: type[BaseModel], data: Any, path: KeyPath) -> str:
    """Return what a missing key stands for, in the words of its description."""
    for owner in _models(model, data, path[:-1]):
        for name, info in owner.model_fields.items():
            if path[-1] == (info.alias or name) and info.description:
                return f"this key is missing ({info.description})"
    return "this key is missing"


def _known_keys(model: type[BaseModel], data: Any, path: KeyPath) -> list[str]:
    """Return the keys that the models at a path know; none where that cannot be told."""
    return sorted({key for m in _models(model, data, path) for key in _keys(m)})


def _models(model: type[BaseModel], data: Any, path: KeyPath) -> list[Any]:
    """Return the models that may describe what stands at a path."""
    current: list[Any] = [model]
    for part in path:
        data = data[part] if _holds(data, part) else None
        current = [inner for annotation in current for inner in _step(annotation, part, data)]
        current = [_chosen(annotation, data) for annotation in current]
    return [m for m in current if _is_model(m)]


def _step(annotation: Any, part: str | int, data: object) -> Iterator[Any]:
    """Yield the annotations of what lies one key below, where `data` stand."""
    if _is_model(annotation):
        for name, info in annotation.model_fields.items():
            if part in (name, info.alias):
                yield from _options(info.annotation, data, info.metadata)
        return
    arguments = typing.get_args(annotation)
    if arguments and typing.get_origin(annotation) in (dict, list, tuple):
        of_values = len(arguments) == 2 and isinstance(part, str)
        yield from _options(arguments[1] if of_values else arguments[0], data)


def _options(annotation: Any, data: object, metadata: Sequence[Any] = ()) -> Iterator[Any]:
    """Yield the members of a union, and the annotation under `Annotated`; of a union with tags the one that data choose."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = typing.get_args(annotation)
        yield from _options(inner, data, metadata)
    elif origin in (Union, UnionType):
        tag = _tag(metadata, data)
        for option in typing.get_args(annotation):
            if tag is None or tag in _tags(option):
                yield from _options(option, data)
    else:
        yield annotation


def _tag(metadata: Sequence[Any], data: object) -> object:
    """Return the tag of the member that data choose; None where a union has no such choice, or there are no data."""
    if data is None:
        return None
    chosen = (
        mark.discriminator(data)
        for mark in metadata
        if isinstance(mark, Discriminator) and callable(mark.discriminator)
    )
    return next(chosen, None)


def _tags(option: Any) -> list[str]:
    marks = typing.get_args(option)[1:] if typing.get_origin(option) is Annotated else ()
    return [mark.tag for mark in marks if isinstance(mark, Tag)]


def _chosen(annotation: Any, data: object) -> Any:
    """Let a model whose data name another model (an array's `kind:`) be replaced by that one."""
    choose: Callable[[object], Any] | None = getattr(annotation, "model_for", None)
    return annotation if choose is None else choose(data) or annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _keys(model: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()]
