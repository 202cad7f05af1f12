"""Views: calls that move elements and change none. As torch operations, and as axes of one sample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from hwsim.capture import RESHAPES, Call
from hwsim.errors import GraphError
from hwsim.graph.ir import Shape

VIEWS = RESHAPES | {"aten.transpose", "aten.permute", "aten.slice", "aten.select", "getitem"}
SELECT_KEEP = "select_keep"
"""an `aten.select` that keeps its axis, of size 1: the first half of a selection"""
_PROBE_LENGTH = 3


def permutation(view: Call, rank: int) -> tuple[int, ...]:
    """Return the axes of one sample (without the batch) in their new order."""
    order = list(range(rank))
    if view.op == "aten.transpose":
        i, j = int(view.args[1]) % rank, int(view.args[2]) % rank
        order[i], order[j] = order[j], order[i]
    else:
        order = [int(d) % rank for d in view.args[1]]
    if order[0] != 0:
        raise GraphError(f"{view.origin}: the batch axis cannot move")
    return tuple(d - 1 for d in order[1:])


def apply_view(x: torch.Tensor, view: Call, length: int) -> torch.Tensor:
    """Apply a view call to a batched tensor whose sequence length is `length`."""
    if view.op in RESHAPES:
        sizes = [{"B": x.shape[0], "T": length}[d] if isinstance(d, str) else d for d in view.shape]
        return x.reshape(sizes)
    match view.op:
        case "aten.transpose":
            return x.transpose(int(view.args[1]), int(view.args[2]))
        case "aten.permute":
            return x.permute(view.args[1])
        case "aten.select":
            return x.select(int(view.args[1]), int(view.args[2]))
        case "select_keep":
            return x.select(int(view.args[1]), int(view.args[2])).unsqueeze(int(view.args[1]))
        case "aten.slice":
            axis, start = int(view.args[1]) % x.ndim, int(view.args[2] or 0)
            return x.narrow(axis, start, int(view.shape[axis]))
    raise GraphError(f"{view.op} is no view")


def channel_index(shape: Shape, views: tuple[Call, ...]) -> npt.NDArray[np.int64]:
    """Return, for every element of the viewed sample, its channel on the base tensor's last axis (T = 3)."""
    concrete = [_PROBE_LENGTH if isinstance(d, str) else d for d in shape]
    index = torch.arange(concrete[-1]).expand(1, *concrete).contiguous()
    for view in views:
        index = apply_view(index, view, _PROBE_LENGTH)
    result: npt.NDArray[np.int64] = index[0].numpy()
    return result


def cancel(shape: Shape, views: tuple[Call, ...]) -> bool:
    """Whether views together leave every element of a base tensor where it was (T = 3)."""
    concrete = [_PROBE_LENGTH if isinstance(d, str) else d for d in shape]
    index = torch.arange(int(np.prod(concrete))).reshape(1, *concrete)
    seen = index
    for view in views:
        seen = apply_view(seen, view, _PROBE_LENGTH)
    return torch.equal(seen, index)
