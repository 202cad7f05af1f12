"""What a graph worked out by hand is given, and what runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Inputs = dict[str, Any]
Run = Callable[..., dict[str, list[Any]]]
"""graph, inputs, lengths of the sequences -> every tensor as nested lists, the batch axis first"""

HALVES = [[1 << 24, 1 << 23, 1 << 22, 1 << 21, 1 << 20]]
"""a direct table whose exponential halves with every step"""
