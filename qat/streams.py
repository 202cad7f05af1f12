"""Where the grids of the residual stream go: every branch, every layer norm's input and output.

Post-LN models (BERT) begin a new stream at each layer norm; its output, the branch that is added next and
the next layer norm's input share one grid. Pre-LN models (ViT, GPT-2) have one stream from the embeddings
to the last layer norm, whose grid all branches share, and a grid of its own for each layer norm's output.
So both operands of every residual sum have the same scale and the machine adds codes without a multiplier.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from qat.quantizers.grid import StreamGrid
from qat.roles import Family
from qat.step import StepState

ATTRIBUTE = "stream_grids"


def install(
    model: nn.Module, family: Family, roles: dict[str, list[str]], fmt: str, step: StepState
) -> None:
    """Hook grids into a model; the modules themselves lie in its new attribute `stream_grids`.

    Args:
        model: a prepared model.
        family: its table.
        roles: role -> module names, from `qat.roles.match`.
        fmt: INTn of the stream's codes.
        step: the model's state, for the positions that are padded.

    Call it before hooks that record are registered: what they see then lies on the grid.
    """
    order = {name: i for i, (name, _) in enumerate(model.named_modules())}
    norms = sorted(
        (name for role in roles if role.endswith("_norm") for name in roles[role]),
        key=order.__getitem__,
    )
    branches = sorted((*roles["o"], *roles["ffn2"]), key=order.__getitem__)
    first = [name for role in ("embedding_parts", "embeddings") for name in roles[role]]
    if family.norm == "post":
        first.remove(roles["embeddings"][0])  # its last operation is the first layer norm
        streams = [StreamGrid(fmt) for _ in range(len(norms) + 1)]
        inputs, outputs = streams[:-1], streams[1:]
        into = [first, *([branch] for branch in branches)]
    else:
        stream = StreamGrid(fmt)
        outputs = [StreamGrid(fmt) for _ in norms]
        streams = [stream, *outputs]
        inputs = [stream] * len(norms)
        into = [[*first, *branches]]
    model.add_module(ATTRIBUTE, nn.ModuleList(streams))
    for names, grid in zip(into, streams, strict=False):
        for name in names:
            model.get_submodule(name).register_forward_hook(SnapOutput(grid, step))
    for name, before, after in zip(norms, inputs, outputs, strict=True):
        model.get_submodule(name).register_forward_pre_hook(SnapInput(before, step))
        model.get_submodule(name).register_forward_hook(SnapOutput(after, step))


def remove(model: nn.Module) -> None:
    """Drop the grids; the hooks are dropped with the other hooks of a prepared model."""
    if ATTRIBUTE in model._modules:
        del model._modules[ATTRIBUTE]


# Classes, so that a deep copy of the model copies their grid along with its modules.


class SnapOutput:
    """Put a module's output on a grid."""

    def __init__(self, grid: StreamGrid, step: StepState) -> None:
        self.grid, self.step = grid, step

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        value: Tensor = self.grid(output, self.step.valid)
        return value


class SnapInput:
    """Put a module's first input on a grid."""

    def __init__(self, grid: StreamGrid, step: StepState) -> None:
        self.grid, self.step = grid, step

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.grid(args[0], self.step.valid), *args[1:])
