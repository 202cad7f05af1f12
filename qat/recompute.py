"""Gradient checkpointing of a prepared model: a layer's second forward pass must see what its first one saw.

The backward pass runs each layer again. By then the model's `StepState` is empty (validity, injected tensors) and
the quantisers that follow running ranges have moved on. So each checkpoint remembers both, puts them back for its
second pass, and undoes what that pass changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn

from hwsim.errors import ConfigError
from qat.quantizers.activation import DynamicQuantizer
from qat.quantizers.grid import StreamGrid
from qat.step import StepState

_REMEMBERED = ("valid", "injected", "teacher", "detached", "update")


def make_repeatable(model: nn.Module, step: StepState) -> None:
    """Let the checkpointed layers of a prepared model remember what they see; called before each forward pass.

    Raises:
        ConfigError: checkpointing is reentrant, which has no place to remember anything.
    """
    grids = [m for m in model.modules() if isinstance(m, StreamGrid)]
    for layer in model.modules():
        if not getattr(layer, "gradient_checkpointing", False):
            continue
        function = getattr(layer, "_gradient_checkpointing_func", None)
        if not isinstance(function, partial) or "context_fn" in function.keywords:
            continue
        if function.keywords.get("use_reentrant", True):
            raise ConfigError(
                "gradient checkpointing of a student must have use_reentrant=False:"
                ' gradient_checkpointing_kwargs={"use_reentrant": False}'
            )
        trackers = [*grids, *(m for m in layer.modules() if isinstance(m, DynamicQuantizer))]
        layer._gradient_checkpointing_func = partial(  # type: ignore[assignment]
            function, context_fn=partial(_contexts, step, trackers)
        )


def forget(model: nn.Module) -> None:
    """Leave the layers' checkpointing as it was before `make_repeatable`."""
    for layer in model.modules():
        function = layer.__dict__.get("_gradient_checkpointing_func")
        if isinstance(function, partial) and "context_fn" in function.keywords:
            keywords = {k: v for k, v in function.keywords.items() if k != "context_fn"}
            layer._gradient_checkpointing_func = partial(function.func, **keywords)  # type: ignore[assignment]


def _contexts(
    step: StepState, trackers: list[nn.Module]
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of a layer's first and second pass (`context_fn` of torch.utils.checkpoint)."""
    seen = {name: getattr(step, name) for name in _REMEMBERED}
    buffers = [{n: x.clone() for n, x in m.named_buffers(recurse=False)} for m in trackers]
    return nullcontext(), _second_pass(step, seen, trackers, buffers)


@contextmanager
def _second_pass(
    step: StepState,
    seen: dict[str, Any],
    trackers: list[nn.Module],
    buffers: list[dict[str, Tensor]],
) -> Iterator[None]:
    now = {name: getattr(step, name) for name in (*_REMEMBERED, "recording")}
    # exchanged, not overwritten: other layers' backward passes still need the tensors themselves
    current = [dict(m.named_buffers(recurse=False)) for m in trackers]
    _set(step, {**seen, "recording": None})
    _exchange(trackers, buffers)
    try:
        yield
    finally:
        _set(step, now)
        _exchange(trackers, current)


def _set(step: StepState, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(step, name, value)


def _exchange(modules: list[nn.Module], buffers: list[dict[str, Tensor]]) -> None:
    for module, tensors in zip(modules, buffers, strict=True):
        module._buffers.update(tensors)
