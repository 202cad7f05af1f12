"""Memories and arrays whose name nobody stated before, and that lack what they must state: mostly a slip of the pen.

A mapping of names takes any name. One letter too many in `memories.weight_sram` makes a second memory, of which every
key is missing; none of those messages names the cause.
"""

from __future__ import annotations

from collections.abc import Iterator

from hwsim.arch.memory import MemorySpec
from hwsim.config.source import Document
from hwsim.errors import nearest

_PARTS = {
    "memories": (
        "memory",
        [name for name, info in MemorySpec.model_fields.items() if info.is_required()],
    ),
    "arrays": ("array", ["kind"]),
}
"""section -> what an entry of it is, the keys without which there is none"""


def misnamed(document: Document) -> Iterator[str]:
    """Yield a message for each incomplete entry that stands beside entries of another file.

    Args:
        document: a machine with all that it extends.
    """
    for section, (what, keys) in _PARTS.items():
        entries = document.data.get(section)
        if not isinstance(entries, dict):
            continue
        for name, entry in entries.items():
            place = document.place((section, name), of_key=True)
            inherited = [
                other
                for other in entries
                if document.place((section, other), of_key=True).origin != place.origin
            ]
            incomplete = isinstance(entry, dict) and any(key not in entry for key in keys)
            if inherited and incomplete:
                yield (
                    f"{place}: {section}.{name}: a new {what} beside the inherited"
                    f" {', '.join(inherited)}{nearest(name, inherited)}"
                )
