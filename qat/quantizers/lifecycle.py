"""What happens to the quantisers of a whole model: initialise, project, freeze, list what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from qat.modules.norm import ChannelScale
from qat.quantizers.activation import DynamicQuantizer, LearnedQuantizer
from qat.quantizers.grid import StreamGrid
from qat.quantizers.weight import WeightQuantizer


def learned(model: nn.Module) -> Iterator[tuple[str, LearnedQuantizer]]:
    """Names and modules of all learned quantisers."""
    for name, module in model.named_modules():
        if isinstance(module, LearnedQuantizer):
            yield name, module


def dynamic(model: nn.Module) -> Iterator[tuple[str, DynamicQuantizer]]:
    """Names and modules of all quantisers with a dynamic (or frozen) range."""
    for name, module in model.named_modules():
        if isinstance(module, DynamicQuantizer):
            yield name, module


def observers(model: nn.Module) -> Iterator[tuple[str, LearnedQuantizer | StreamGrid]]:
    """Names and modules of all that take their first scale from real batches."""
    for name, module in model.named_modules():
        if isinstance(module, LearnedQuantizer | StreamGrid):
            yield name, module


def weights(model: nn.Module) -> Iterator[WeightQuantizer]:
    """All quantisers of weights."""
    return (module for module in model.modules() if isinstance(module, WeightQuantizer))


def uninitialised(model: nn.Module) -> list[str]:
    """Names of learned quantisers, grids and channel scales that still need data."""
    scales = ((n, m) for n, m in model.named_modules() if isinstance(m, ChannelScale))
    return [name for name, module in (*observers(model), *scales) if not bool(module.initialised)]


@torch.no_grad()
def initialise(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> None:
    """Set alpha of every learned quantiser from the mean magnitudes of real batches, and the step of every grid.

    Channel scales that SmoothQuant's formula sets come first, from the float model. Within a batch the quantisers
    follow in the order of the forward pass, the earlier ones already at work; each further batch refines all of
    them. Padded positions do not count. Dropout is off.

    Raises:
        ValueError: no batches, or quantisers that no forward pass reached.
    """
    # needs the float model, hence the whole of `qat.student`, which itself is made of quantisers
    from qat.methods.smoothquant import smooth

    batches = list(batches)
    smooth(model, batches)
    modules = list(observers(model))
    if not modules:
        return
    was_training = model.training
    model.eval()
    for _, module in modules:
        module.observe(True)
    seen = 0
    try:
        for batch in batches:
            model(**{name: tensor for name, tensor in batch.items() if name != "labels"})
            seen += 1
    finally:
        for _, module in modules:
            module.observe(False)
        model.train(was_training)
    if seen == 0:
        raise ValueError("quantisers must be initialised from at least one batch, got none")
    missing = uninitialised(model)
    if missing:
        raise ValueError(f"no forward pass reached the quantisers {', '.join(missing)}")


def after_update(model: nn.Module) -> None:
    """Keep every alpha at or above its floor, and let the grids follow. Call after every step of the optimiser."""
    for _, module in observers(model):
        if isinstance(module, StreamGrid):
            module.follow()
        else:
            module.project()


def freeze_ranges(model: nn.Module) -> None:
    """Make every dynamic range per tensor a constant; ranges per token stay as they are."""
    for _, module in dynamic(model):
        if module.granularity == "tensor" and not module.is_frozen:
            module.freeze()


def ranges_frozen(model: nn.Module) -> bool:
    """Whether no dynamic range per tensor is left (true where there never was one)."""
    return all(m.is_frozen for _, m in dynamic(model) if m.granularity == "tensor")
