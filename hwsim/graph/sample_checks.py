"""What inputs must be before they may run: of the graph's shapes, within its types and its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.graph.ir import QuantGraph


def sample_faults(
    graph: QuantGraph,
    inputs: Mapping[str, npt.NDArray[Any]],
    lengths: npt.NDArray[Any] | None,
) -> list[str]:
    """Return everything that is wrong with some samples, a line each.

    Args:
        graph: the integer graph.
        inputs: [N, *shape] of each of its inputs.
        lengths: [N] real length of each sequence, or None.
    """
    faults = []
    count = len(next(iter(inputs.values()))) if inputs else 0
    longest = 0
    for name, x in inputs.items():
        tensor = graph.tensors[name]
        wanted = ", ".join(["N", *map(str, tensor.shape)])
        fits = x.ndim == 1 + len(tensor.shape) and all(
            size == d if isinstance(d, int) else 0 < size <= max(graph.max_length, 1)
            for size, d in zip(x.shape[1:], tensor.shape, strict=True)
        )
        if not fits or len(x) != count:
            most = f" with T of 1 to {graph.max_length}" if "T" in tensor.shape else ""
            faults.append(f"inputs.{name}: must be [{wanted}]{most}, is {list(x.shape)}")
            continue
        longest = max(
            [
                longest,
                *(s for s, d in zip(x.shape[1:], tensor.shape, strict=True) if isinstance(d, str)),
            ]
        )
        faults += _range_faults(name, x, tensor.dtype.qmin, tensor.dtype.qmax, tensor.dtype.name)
        for node in graph.nodes:
            if node.op == "embedding" and node.inputs[0] == name:
                rows = graph.constant(node, "weight").shape[0]
                faults += _range_faults(name, x, 0, rows - 1, f"the table of {node.name}")
    if lengths is not None and (
        lengths.shape != (count,) or (count and not ((lengths >= 1) & (lengths <= longest)).all())
    ):
        faults.append(f"lengths: must be [{count}] whole numbers of 1 to {longest}")
    if lengths is None and graph.uses_length:
        faults.append("lengths: the model masks padding and needs the length of each sequence")
    return faults


def _range_faults(name: str, x: npt.NDArray[Any], low: int, high: int, what: str) -> list[str]:
    wrong = np.argwhere((x < low) | (x > high))
    if not len(wrong):
        return []
    row, *place = (int(i) for i in wrong[0])
    came = int(x[tuple(wrong[0])])
    return [f"inputs.{name}: row {row} {place}: must be {low} to {high} ({what}), is {came}"]
