"""Words as text that `$readmemh` reads: one hexadecimal word a line, comments in front."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class WordFile:
    """A file of words, as the manifest lists it."""

    path: str
    words: int
    width_bits: int
    sha256: str

    def to_json(self) -> dict[str, object]:
        """Return the entry as plain data."""
        return {
            "path": self.path,
            "words": self.words,
            "width_bits": self.width_bits,
            "sha256": self.sha256,
        }


def pack_positions(patterns: npt.NDArray[Any], bits: int) -> int:
    """Return a word of equally wide positions, the first in the least significant bits.

    >>> hex(pack_positions(np.array([[0x1, 0x2], [0x3, 0x4]]), 4))
    '0x4321'
    """
    ones = (patterns.reshape(-1, 1).astype(np.int64) >> np.arange(bits)) & 1
    packed = np.packbits(ones.astype(np.uint8).reshape(-1), bitorder="little")
    return int.from_bytes(packed.tobytes(), "little")


def write_words(
    folder: Path, path: str, words: Sequence[int], width_bits: int, layout: Sequence[str]
) -> WordFile:
    """Write a file of words.

    Args:
        folder: where paths start.
        path: of the file within it.
        words: unsigned numbers below 2^width_bits.
        width_bits: bits of a word.
        layout: what a word holds, a line of comment each.
    """
    digits = -(-width_bits // 4)
    lines = [f"// {line}" for line in (f"{len(words)} words of {width_bits} bits", *layout)]
    lines += [f"{word:0{digits}x}" for word in words]
    data = ("\n".join(lines) + "\n").encode("ascii")
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return WordFile(path, len(words), width_bits, hashlib.sha256(data).hexdigest())
