"""Squared distance between tensors of a student and of its teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qat.ops import cpu
from qat.ops.define import Context


def mean_square(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of (student - teacher)^2 over the elements where the mask is True; the teacher gets no gradient.

    Args:
        student, teacher: one shape.
        mask: bool of the same rank that broadcasts to them, or None for all elements.
    """
    if cpu.takes(student) and cpu.takes(teacher):
        return _MeanSquare.apply(student, teacher, mask)  # type: ignore[no-any-return, no-untyped-call]
    square = (student - teacher.detach()).square()
    if mask is None:
        return square.mean()
    full = mask.expand_as(square)
    return torch.where(full, square, 0.0).sum() / full.sum()


class _MeanSquare(torch.autograd.Function):
    """One pass forward and one backward, with nothing saved but the operands."""

    @staticmethod
    def forward(ctx: Context, student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            ctx.count = student.numel()
        else:
            ctx.count = int(mask.sum()) * (student.numel() // mask.numel())
        ctx.save_for_backward(student, teacher, mask)
        return (cpu.square_sum(student, teacher, mask) / ctx.count).to(student.dtype).reshape(())

    @staticmethod
    def backward(ctx: Context, *gradients: Any) -> tuple[Tensor, None, None]:
        student, teacher, mask = ctx.saved_tensors
        factor = float(gradients[0]) * 2.0 / ctx.count
        return cpu.difference(student, teacher, mask, factor), None, None
