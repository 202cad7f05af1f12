"""The words of a compute step: what stands in the operand registers in each beat, and what the beat is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwsim.arch.encoding import Patterns
from hwsim.rtl.memh import pack_positions
from hwsim.rtl.product import Operand, StepBeat

BEAT_FIELDS: tuple[tuple[str, int], ...] = (
    ("first", 1),
    ("last", 1),
    ("loads_a", 1),
    ("loads_w", 1),
    ("a_plane", 6),
    ("w_plane", 6),
    ("rows", 16),
    ("cols", 16),
    ("lanes", 16),
    ("m", 32),
    ("n", 32),
    ("k", 32),
)
"""fields of a word of beats.memh and their bits, the first in the least significant ones"""


def operand_words(operand: Operand, patterns: Patterns, beats: Sequence[StepBeat]) -> list[int]:
    """Return the register's word in each beat; positions that a beat does not use are 0.

    Row r and lane l are position r * lanes + l.

    Args:
        operand: how it enters.
        patterns: bits of its codes in the step, [rows, K].
        beats: the step's beats.
    """
    mask = np.uint32((1 << operand.pass_bits) - 1)
    words = []
    for beat in beats:
        rows, plane = (
            (beat.m, beat.a_plane) if operand.port == "activation" else (beat.n, beat.w_plane)
        )
        used = patterns[rows.start : rows.stop, beat.k.start : beat.k.stop]
        word = np.zeros((operand.rows, operand.lanes), np.uint32)
        word[: len(rows), : len(beat.k)] = (used >> np.uint32(plane * operand.pass_bits)) & mask
        words.append(pack_positions(word, operand.pass_bits))
    return words


def beat_words(beats: Sequence[StepBeat]) -> list[int]:
    """Return the words of beats.memh; `first` and `last` are those of a block of accumulators in this step."""
    blocks = [(b.m.start, b.n.start) for b in beats]
    first = {block: i for i, block in reversed(list(enumerate(blocks)))}
    last = {block: i for i, block in enumerate(blocks)}
    words = []
    for i, (beat, block) in enumerate(zip(beats, blocks, strict=True)):
        values = {
            "first": int(first[block] == i),
            "last": int(last[block] == i),
            "loads_a": int(beat.loads_a),
            "loads_w": int(beat.loads_w),
            "a_plane": beat.a_plane,
            "w_plane": beat.w_plane,
            "rows": len(beat.m),
            "cols": len(beat.n),
            "lanes": len(beat.k),
            "m": beat.m.start,
            "n": beat.n.start,
            "k": beat.k.start,
        }
        word = shift = 0
        for name, bits in BEAT_FIELDS:
            word |= values[name] << shift
            shift += bits
        words.append(word)
    return words
