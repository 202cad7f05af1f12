"""Makes the plain-Python operators and the hand-made graphs of the neighbouring folders importable."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "kernels"), str(TESTS / "graph")]
