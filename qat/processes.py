"""Several processes that train one model: what they exchange.

Each holds the whole model and takes its share of the rows of every update. Sums, never means, are exchanged:
the terms of the loss are normalised by what all of them see together (`qat.step.Extent`), so the gradient is
that of one process with all the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, nn

from hwsim.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from qat.config import Device


def accelerator_on(device: Device) -> Accelerator:
    """Return what moves a training to a device and its processes together.

    Raises:
        ConfigError: a GPU is asked for and torch sees none.
    """
    from accelerate import Accelerator

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device: must be cpu or auto here, not cuda: torch {torch.__version__} sees no GPU"
        )
    return Accelerator(cpu=device == "cpu")


def several() -> bool:
    """Whether more than one process takes part."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def largest(x: Tensor) -> Tensor:
    """Return the elementwise maximum over all processes; x itself where there is one."""
    if several():
        x = x.clone()
        distributed.all_reduce(x, distributed.ReduceOp.MAX)
    return x


def total(x: Tensor) -> Tensor:
    """Return the sum over all processes; x itself where there is one."""
    if several():
        x = x.clone()
        distributed.all_reduce(x, distributed.ReduceOp.SUM)
    return x


@torch.no_grad()
def add_gradients(model: nn.Module) -> None:
    """Add up the gradients of all processes, as one tensor.

    A parameter that has none (an intervention cuts it off) has none in any of them: they are at the same step.
    """
    if not several():
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    together = total(torch.cat([g.reshape(-1) for g in gradients]))
    for gradient, summed in zip(
        gradients, together.split([g.numel() for g in gradients]), strict=True
    ):
        gradient.copy_(summed.view_as(gradient))


def first() -> bool:
    """Whether this is the process that writes and talks."""
    return not several() or distributed.get_rank() == 0


def leave() -> None:
    """Say goodbye to the other processes; nothing is exchanged after it."""
    if several():
        distributed.destroy_process_group()
