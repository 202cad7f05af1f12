"""How an operator of the student is defined, and the rules of rounding and sign that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hwsim.graph.ops import STUDENT_NAMESPACE, STUDENT_OPS

# A scale must be positive even where all weights of a row are zero (a padding row of an embedding).
SMALLEST_SCALE = 2.0**-24

Context = Any  # torch gives the autograd context no public type


def custom_op(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Define one operator of the student. Under autocast it still computes in float32: codes must not
    depend on it."""

    def define(function: Callable[..., Any]) -> Any:
        op = torch.library.custom_op(
            f"{STUDENT_NAMESPACE}::{name}",
            function,
            mutates_args=(),
            schema=STUDENT_OPS[name],
        )
        for device in ("cpu", "cuda"):
            op.register_autocast(device, torch.float32)
        return op

    return define


def is_half_even(rounding: str) -> bool:
    """Say which of the two rules of rounding a name is: floor(u + 1/2), or half to even.

    Raises:
        ValueError: it is neither.
    """
    if rounding not in ("half_up", "half_even"):
        raise ValueError(f"rounding must be half_up or half_even, not {rounding!r}")
    return rounding == "half_even"


def round_(u: Tensor, rounding: str) -> Tensor:
    """Round u in place: `half_up` is floor(u + 1/2), `half_even` is what `torch.round` does."""
    return u.round_() if is_half_even(rounding) else u.add_(0.5).floor_()


def sign_codes(x: Tensor) -> Tensor:
    """Sign with sign(0) = +1, also for -0.0: a third level has no bit."""
    return (x >= 0).to(x.dtype).mul_(2.0).sub_(1.0)


def mask_like(valid: Tensor, x: Tensor) -> Tensor:
    """Bring `valid` to x's rank.

    Args:
        valid: bool [B, T] (True at real positions), or a mask of x's rank that broadcasts to x.
        x: [B, T, C], or [B, H, T, D] (heads before positions).

    Raises:
        ValueError: x has no position axis.
    """
    if valid.dim() == x.dim() and valid.dim() != 2:
        return valid
    if x.dim() == 3:
        return valid[:, :, None]
    if x.dim() == 4:
        return valid[:, None, :, None]
    raise ValueError(f"a validity mask needs [B, T, C] or [B, H, T, D], not shape {tuple(x.shape)}")
