"""The terms of knowledge distillation, each with its reduction stated and padded positions left out.

`valid` is bool [B, T] or None. With `padding == "excluded"` a mean is over real elements only, so a loss
does not depend on how far a batch was padded; `"counted"` averages over all of them, as released code does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from qat import ops
from qat.recipe import LogitLoss

Padding = Literal["excluded", "counted"]
IGNORED_LABEL = -100
SMALLEST_NORM = 1e-12


def logit_loss(student: Tensor, teacher: Tensor, spec: LogitLoss, valid: Tensor | None) -> Tensor:
    """Soft cross-entropy -sum_c softmax(t/T)_c log softmax(s/T)_c: mean over batch (and real positions),
    sum or mean over the classes as the recipe says.

    Args:
        student, teacher: logits [B, classes] or [B, T, vocabulary].
        spec: reduction over classes and temperature.
        valid: positions that count, for the second form.
    """
    target = torch.softmax(teacher / spec.temperature, dim=-1)
    terms = -target * torch.log_softmax(student / spec.temperature, dim=-1)
    rows = terms.sum(-1) if spec.reduction == "sum" else terms.mean(-1)
    if valid is None or rows.dim() == 1:
        return rows.mean()
    return (rows * valid).sum() / valid.sum()


def label_loss(logits: Tensor, labels: Tensor, regression: bool) -> Tensor:
    """Plain loss against labels, mean over the batch (over predicted tokens for a language model).

    Args:
        logits: [B, classes], [B, 1] or [B] for regression, [B, T, vocabulary] for a language model.
        labels: [B], or [B, T] with -100 at positions that do not count (shifted here by one).
        regression: mean squared error instead of cross-entropy.
    """
    if regression:
        return functional.mse_loss(logits.reshape(-1), labels.reshape(-1).to(logits.dtype))
    if logits.dim() == 3:
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        total = functional.cross_entropy(
            logits, labels, ignore_index=IGNORED_LABEL, reduction="sum"
        )
        return total / (labels != IGNORED_LABEL).sum().clamp_min(1)
    return functional.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL)


def layer_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], valid: Tensor | None, padding: Padding
) -> Tensor:
    """Sum over layers of the mean squared error of [B, T, C] tensors."""
    mask = None if valid is None or padding == "counted" else valid[:, :, None]
    return _sum_of_means(student, teacher, mask)


def score_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    valid: Tensor | None,
    causal: bool,
    padding: Padding,
) -> Tensor:
    """Sum over layers of the mean squared error of the scores before the softmax, [B, H, T, S].

    Masked entries contribute nothing. With `padding == "counted"` they still count as elements of the mean.
    """
    keep = ops.unmasked(student[0], valid, causal)
    if keep is None:
        return _sum_of_means(student, teacher, None)
    if padding == "counted":
        share = keep.expand_as(student[0]).sum() / student[0].numel()
        return _sum_of_means(student, teacher, keep) * share
    if valid is not None:
        keep = keep & valid[:, None, :, None]  # a padded query has scores too, of no use to anyone
    return _sum_of_means(student, teacher, keep)


def similarity_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], valid: Tensor | None
) -> Tensor:
    """Sum over layers of ||F(X_S) - F(X_T)||^2, mean over samples and heads, F(X) = X X^T / ||X X^T||.

    BiBERT's direction-matching distillation (Qin et al., ICLR 2022): which positions resemble each other, not how
    large they are. X [B, H, T, D] is a query, key or value tensor; padded positions are left out.
    """
    terms = []
    for s, t in zip(student, teacher, strict=True):
        distance = (_similarity(s, valid) - _similarity(t, valid)).square()
        terms.append(distance.sum(dim=(-2, -1)).mean())
    return torch.stack(terms).sum()


def _similarity(x: Tensor, valid: Tensor | None) -> Tensor:
    if valid is not None:
        x = x * valid[:, None, :, None]
    product = x @ x.transpose(-1, -2)
    return product / product.flatten(2).norm(dim=-1).clamp_min(SMALLEST_NORM)[:, :, None, None]


def _sum_of_means(
    student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None
) -> Tensor:
    pairs = zip(student, teacher, strict=True)
    return torch.stack([ops.mean_square(s, t, mask) for s, t in pairs]).sum()
