"""Optimisers, parameter groups and the learning-rate schedule.

`bert_adam` is the optimiser of the released TernaryBERT, Teacher Intervention and BiT codes. It differs from
Adam in two ways that change short trainings a lot: no bias correction (the first steps are up to
(1 - beta1) / sqrt(1 - beta2) = 3.2 times as long as Adam's) and a norm clip for each parameter by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qat.recipe import OptimizerSpec

ALPHA_SUFFIXES = ("alpha",)
NO_DECAY_SUFFIXES = ("bias", "shift")


class BertAdam(Optimizer):
    """Adam without bias correction, with a norm clip a parameter and decoupled weight decay.

        g <- g * min(1, clip / (|g| + 1e-6))
        m <- beta1 m + (1 - beta1) g        v <- beta2 v + (1 - beta2) g^2
        p <- p - lr (m / (sqrt(v) + eps) + weight_decay p)

    The decay is proportional to the scheduled learning rate, as in the released codes.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]] | Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        clip_norm: float = 1.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "clip_norm": clip_norm,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["exp_avg"] = torch.zeros_like(p)
                    state["exp_avg_sq"] = torch.zeros_like(p)
                # a tensor, not .item(): reading it would wait for the device at every parameter
                scale = (group["clip_norm"] / (p.grad.norm() + 1e-6)).clamp(max=1.0)
                g = p.grad.mul_(scale)
                m, v = state["exp_avg"], state["exp_avg_sq"]
                m.lerp_(g, 1 - beta1)
                v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
                if group["weight_decay"] > 0:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                p.addcdiv_(m, v.sqrt().add_(group["eps"]), value=-group["lr"])
        return loss


def parameter_groups(model: nn.Module, spec: OptimizerSpec) -> list[dict[str, Any]]:
    """Sort the trainable parameters in three groups: decayed, not decayed, quantiser scales.

    Biases, shifts and everything with one axis or none (layer norms, channel scales) are not decayed. Quantiser
    scales have their own learning rate; channel scales have the main one, since they're learned as logarithms. Empty groups are left out; each group has the key `role` and its own `base_lr`.
    """
    groups: dict[str, list[nn.Parameter]] = {"weight": [], "no_decay": [], "alpha": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        last = name.rsplit(".", 1)[-1]
        if last in ALPHA_SUFFIXES:
            groups["alpha"].append(parameter)
        elif last in NO_DECAY_SUFFIXES or parameter.ndim <= 1:
            groups["no_decay"].append(parameter)
        else:
            groups["weight"].append(parameter)
    alpha_lr = spec.alpha_learning_rate
    return [
        {
            "params": parameters,
            "role": role,
            "base_lr": alpha_lr if role == "alpha" and alpha_lr is not None else spec.learning_rate,
            "weight_decay": spec.weight_decay if role == "weight" else 0.0,
        }
        for role, parameters in groups.items()
        if parameters
    ]


def make_optimizer(model: nn.Module, spec: OptimizerSpec) -> Optimizer:
    """Return the optimiser that a recipe names, over the model's parameter groups."""
    groups = parameter_groups(model, spec)
    if spec.name == "bert_adam":
        return BertAdam(groups, lr=spec.learning_rate)
    # fused: one pass over the parameters a step; an embedding table makes the many small ones dear
    return torch.optim.AdamW(groups, lr=spec.learning_rate, fused=True)


def learning_rate_factor(step: int, steps: int, warmup_fraction: float) -> float:
    """Return the share of the base rate at `step` (0-based) of `steps`: linear rise, then linear fall.

    The first step is above 0 and so is the last: no step is spent without learning.
    """
    warmup = math.floor(warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (steps - step) / (steps - warmup)


@dataclass(frozen=True)
class Schedule:
    """Segments of a run: optimiser and learning rate start anew at each of `starts`."""

    starts: tuple[int, ...]
    steps: int
    warmup_fraction: float

    def factor(self, step: int) -> float:
        """Return the share of the base learning rate at a step."""
        bounds = (*self.starts, self.steps)
        index = max(i for i, start in enumerate(self.starts) if start <= step)
        first, end = bounds[index], bounds[index + 1]
        return learning_rate_factor(step - first, end - first, self.warmup_fraction)


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Set every group's rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
