"""Calibration: the range of every value of the captured student over training samples.

Padded positions are excluded. `hwsim.freeze` turns the ranges into static grids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hwsim.capture import Captured
from hwsim.graph.dtype import DataType
from hwsim.student import Interpreter

RangeMethod = Literal["max", "percentile", "mse"]
PERCENTILE = 99.99
_SAMPLES_A_BATCH = 4096
_MSE_STEPS = 64


@dataclass
class Range:
    """What calibration saw of one value, padded positions excluded."""

    low: float = 0.0
    high: float = 0.0
    samples: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def update(self, values: Tensor) -> None:
        """Widen by a batch of values, and keep a strided sample of them."""
        if values.numel() == 0:
            return
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        flat = values.flatten()
        self.samples.append(flat[:: max(1, flat.numel() // _SAMPLES_A_BATCH)].numpy().copy())

    @property
    def amax(self) -> float:
        """Largest magnitude seen."""
        return max(-self.low, self.high)

    def limit(self, method: RangeMethod, dtype: DataType) -> float:
        """Magnitude that the largest code of `dtype` should stand for."""
        if method == "max" or not self.samples:
            return self.amax
        magnitudes = np.abs(np.concatenate(self.samples))
        if method == "percentile":
            return float(np.percentile(magnitudes, PERCENTILE))
        best, best_error = self.amax, np.inf
        for step in range(_MSE_STEPS // 4, _MSE_STEPS + 1):
            limit = self.amax * step / _MSE_STEPS
            scale = limit / dtype.qmax
            snapped = np.clip(np.floor(magnitudes / scale + 0.5), 0, dtype.qmax) * scale
            error = float(np.square(snapped - magnitudes).mean())
            if error < best_error:
                best, best_error = limit, error
        return best


def collect_ranges(captured: Captured, batches: Iterable[Mapping[str, Tensor]]) -> dict[str, Range]:
    """Run the student on calibration batches and return the range of every call's value.

    Args:
        captured: the calls.
        batches: keyword inputs; `attention_mask` marks the real positions where there is one.
    """
    ranges: dict[str, Range] = {}
    shapes = dict(captured.inputs) | {c.name: c.shape for c in captured.calls}
    valid: Tensor | None = None

    def observe(name: str, value: Tensor) -> None:
        shape = shapes.get(name)
        if shape and value.is_floating_point():
            ranges.setdefault(name, Range()).update(_real_positions(value, shape, valid))

    interpreter = Interpreter(captured, observe=observe)
    for batch in batches:
        mask = batch.get("attention_mask")
        valid = None if mask is None else mask.bool()
        interpreter.run(batch)
    return ranges


def _real_positions(value: Tensor, shape: tuple[int | str, ...], valid: Tensor | None) -> Tensor:
    """Select the entries none of whose T axes lies on a padded position."""
    axes = [i for i, d in enumerate(shape) if d == "T"]
    if valid is None or not axes or value.shape[0] != valid.shape[0]:
        return value
    keep = torch.ones(value.shape[0], *([1] * (value.ndim - 1)), dtype=torch.bool)
    for axis in axes:
        view = [valid.shape[0], *([1] * (value.ndim - 1))]
        view[axis] = valid.shape[1]
        keep = keep & valid.reshape(view)
    return value[keep.expand(value.shape)]
