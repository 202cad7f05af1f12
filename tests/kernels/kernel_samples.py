"""Operands for the kernel tests: every range, its extremes, and the depths around a 64-bit word."""

import numpy as np

DEPTHS = (0, 1, 63, 64, 65, 127, 128, 129, 300)
"""K around word borders, and one above four words (the kernels take four words a pass)"""
ROWS = ((0, 2), (1, 1), (2, 0), (3, 5))
"""(M, N) pairs"""

LEVELS = {
    "bipolar": (-1, 1),
    "unipolar": (0, 1),
    "ternary": (-1, 0, 1),
    "int4": tuple(range(-8, 8)),
    "int8": tuple(range(-128, 128)),
    "uint8": tuple(range(256)),
    "int16": (-32768, -32767, -1, 0, 1, 12345, 32767),
}


def memory_type(kind):
    return {"uint8": np.uint8, "int16": np.int32}.get(kind, np.int8)


def codes(kind, shape, seed, fill="random"):
    """Codes of a kind: random, or all its lowest or highest, or both in turn."""
    levels = np.array(LEVELS[kind])
    if fill == "low":
        values = np.full(shape, levels[0])
    elif fill == "high":
        values = np.full(shape, levels[-1])
    elif fill == "alternate":
        size = int(np.prod(shape))
        values = levels[np.where(np.arange(size) % 2, -1, 0)].reshape(shape)
    else:
        values = np.random.default_rng(seed).choice(levels, size=shape)
    return values.astype(memory_type(kind))


FILLS = ("random", "low", "high", "alternate")
