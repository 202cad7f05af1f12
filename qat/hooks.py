"""Hooks of a prepared model: classes, so that a deep copy of the model copies their StepState with its modules."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from qat import attention, recompute, streams
from qat.step import StepState

POSITIONS = "positions_by_place"


class TakeMask:
    """Before the model runs, put the validity of positions into the step state."""

    def __init__(self, step: StepState, signature: inspect.Signature) -> None:
        self.step, self.signature = step, signature

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = self.signature.bind_partial(module, *args, **kwargs).arguments
        mask = given.get("attention_mask")
        if mask is None:
            mask = given.get("kwargs", {}).get("attention_mask")
        attention.check_mask(mask)
        self.step.valid = None if mask is None else mask.bool()
        if module.training and torch.is_grad_enabled():
            recompute.make_repeatable(module, self.step)


class CountPositions:
    """Give an embedding its positions by place.

    RoBERTa counts the tokens that are not the padding token. Padding is on the right here, so real positions get
    the same numbers, and no machine has to count.
    """

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        if given.get("position_ids") is not None or given.get("input_ids") is None:
            return None
        numbers: Tensor = getattr(module, POSITIONS)
        return args, {**kwargs, "position_ids": numbers[:, : given["input_ids"].shape[1]]}


class DropMask:
    """After the model ran, forget the validity.

    Among several processes, what was recorded leaves as the output's hidden states: DistributedDataParallel takes
    a parameter that it cannot reach from the output for unused, though a loss on a recorded tensor may use it.
    """

    def __init__(self, step: StepState) -> None:
        self.step = step

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.step.valid = None
        recording = self.step.recording
        if recording is not None and torch.distributed.is_initialized():
            output.hidden_states = recording.tensors()


class Tap:
    """Record a module's output while a recording is on."""

    def __init__(self, kind: str, step: StepState) -> None:
        self.kind, self.step = kind, step

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.step.recording is not None:
            value = output[0] if isinstance(output, tuple) else output
            getattr(self.step.recording, self.kind).append(value)


class TakeInput:
    """Under block-wise calibration, put the float model's hidden state in place of a layer's own input."""

    def __init__(self, layer: int, step: StepState) -> None:
        self.layer, self.step = layer, step

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.step.injected != "input":
            return None
        assert self.step.teacher is not None
        return (self.step.teacher.hidden[self.layer], *args[1:])


class OutputTap:
    """Record the output projection's result and, under intervention, put the teacher's in its place."""

    def __init__(self, layer: int, step: StepState) -> None:
        self.layer, self.step = layer, step

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        if self.step.recording is not None:
            self.step.recording.outputs.append(output)
        if self.step.injected == "output":
            assert self.step.teacher is not None
            return self.step.teacher.outputs[self.layer]
        return None


HOOKS = (
    OutputTap,
    Tap,
    TakeInput,
    TakeMask,
    DropMask,
    CountPositions,
    streams.SnapInput,
    streams.SnapOutput,
)
