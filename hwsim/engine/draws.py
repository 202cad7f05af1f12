"""The worlds in which energies are drawn: how many, and where in its range each unknown lies in each of them.

A world gives every unknown one value on all machines, so what machines share cancels when they are compared draw by
draw. This file needs numpy alone: a study that compares results runs no machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

DRAWS = 1000
SEED = 20250101
"""Seed of the draws; fixed, so that two machines compared with each other see the same worlds."""
LOW_PERCENT, HIGH_PERCENT = 5, 95

Draws = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Band:
    """An energy in pJ, or a ratio of two: nominal, and the 5th and 95th percentile over the draws."""

    low: float
    nominal: float
    high: float

    @classmethod
    def of(cls, draws: Draws, nominal: float) -> Band:
        """Return the band of some draws."""
        low, high = np.percentile(draws, (LOW_PERCENT, HIGH_PERCENT))
        return cls(float(low), nominal, float(high))

    def to_json(self) -> dict[str, float]:
        """Return the three numbers by name."""
        return {"low": self.low, "nominal": self.nominal, "high": self.high}


@lru_cache(maxsize=4096)
def draw_position(name: str, draws: int = DRAWS, seed: int = SEED) -> Draws:
    """Return where each draw of a quantity lies between its low (0) and its high (1): [draws].

    The stream depends on the quantity's name alone: not on the machine, nor on which others exist. Read-only.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    position = np.random.default_rng(int.from_bytes(digest[:16], "little")).random(draws)
    position.setflags(write=False)
    return position
