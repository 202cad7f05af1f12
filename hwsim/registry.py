"""One seam per kind of extension: a table from (seam, kind) to the class that implements it.

The built-in parts register here exactly as a user's own do, so the public path is the tested path.
Classes of other distributions are found through the seam's entry-point group.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TypeVar

from hwsim.errors import ConfigError, nearest

ENTRY_POINT_GROUPS: dict[str, str] = {"array": "bitwright.arrays"}
"""seam -> entry-point group whose members register themselves when they are loaded"""

_registered: dict[tuple[str, str], type] = {}
_loaded: set[str] = set()

C = TypeVar("C", bound=type)


def register(seam: str, kind: str) -> Callable[[C], C]:
    """Return a class decorator that makes the class the implementation of `kind`.

    Args:
        seam: what is extended, for example `array`.
        kind: the word that a YAML file says after `kind:`.

    Raises:
        ValueError: the kind is taken; the message names both classes.
    """

    def decorate(cls: C) -> C:
        taken = _registered.get((seam, kind))
        if taken is not None:
            raise ValueError(
                f"{seam} kind {kind!r} is registered twice:"
                f" by {_qualified(taken)} and by {_qualified(cls)}"
            )
        _registered[seam, kind] = cls
        return cls

    return decorate


def kinds(seam: str) -> tuple[str, ...]:
    """Return the kinds of a seam in alphabetical order, those of other distributions included."""
    _load_entry_points(seam)
    return tuple(sorted(kind for owner, kind in _registered if owner == seam))


def lookup(seam: str, kind: str) -> type:
    """Return the class registered for a kind.

    Raises:
        KeyError: no such kind; the message lists the known ones and the nearest.
        ConfigError: a distribution's entry point cannot be loaded.
    """
    known = kinds(seam)
    if kind not in known:
        raise KeyError(
            f"must be a known {seam} kind ({', '.join(known)}), not {kind!r}{nearest(kind, known)}"
        )
    return _registered[seam, kind]


def _load_entry_points(seam: str) -> None:
    if seam in _loaded or seam not in ENTRY_POINT_GROUPS:
        return
    _loaded.add(seam)
    for point in entry_points(group=ENTRY_POINT_GROUPS[seam]):
        try:
            point.load()
        except Exception as error:
            owner = point.dist.name if point.dist is not None else "unknown distribution"
            raise ConfigError(
                f"entry point {point.name!r} of {owner} ({point.value}) cannot be loaded:"
                f" {type(error).__name__}: {error}"
            ) from error


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
