"""Quadapter (Park, You, Nagel, Chang; Findings of EMNLP 2022): channel scales in front of frozen weights.

For a layer norm with gamma, beta that feeds a linear layer with W, c, and positive a with A = diag(a):

    y = Q_w(W A^-1) Q_x(A LN(x)) + c,    gamma' = a gamma,    beta' = a beta,    W' = W A^-1

The weight quantiser sees W A^-1, so that the folded model is the trained one. Phase one calibrates the blocks, each
by itself, phase two trains end to end. docs/quadapter.md has the derivation and what is ours.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from qat.build import DROPOUT_KEYS
from qat.modules.linear import QuantLinear
from qat.modules.norm import ChannelScale, InverseScale, ScaledLayerNorm
from qat.quantizers.activation import LearnedQuantizer
from qat.recipe import Quadapter
from qat.roles import edges
from qat.step import Injected


def install(model: PreTrainedModel, roles: dict[str, list[str]], smoothing: float | None) -> None:
    """Put a channel scale on every edge of a model whose linear layers are swapped already.

    All linear layers behind one layer norm share its scale. The residual stream, the final layer norm and tied
    embeddings have none. Call it before hooks are registered on the layer norms.

    Raises:
        GraphError: the family has no layer norm that only linear layers read.
    """
    for norm, readers in edges(model.config.model_type, roles):
        old = model.get_submodule(norm)
        assert isinstance(old, nn.LayerNorm)
        scale = ChannelScale(old.weight.numel(), smoothing)
        parent, _, leaf = norm.rpartition(".")
        setattr(model.get_submodule(parent), leaf, ScaledLayerNorm.from_float(old, scale))
        for name in readers:
            reader = model.get_submodule(name)
            assert isinstance(reader, QuantLinear)
            reader.input_scale = InverseScale(scale)


@torch.no_grad()
def fold(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a prepared model with its channel scales written into layer norms and weights.

    The copy computes the same bits, quantisers on or off: a forward pass of the original derives exactly these
    tensors. Without channel scales it is a plain copy.
    """
    folded = copy.deepcopy(model)
    for module in folded.modules():
        if isinstance(module, QuantLinear) and module.input_scale is not None:
            module.weight = nn.Parameter(module.effective_weight)
            module.input_scale = None
    for module in folded.modules():
        if isinstance(module, ScaledLayerNorm):
            weight, bias = module.effective
            module.weight, module.bias = nn.Parameter(weight), nn.Parameter(bias)
            module.channel_scale = None
    return folded


def freeze_weights(student: nn.Module, train_scales: bool) -> None:
    """Let gradients reach the learned quantisers and, where `train_scales`, the channel scales only.

    Raises:
        ValueError: nothing is left to train.
    """
    student.requires_grad_(False)
    kinds = (LearnedQuantizer, ChannelScale) if train_scales else LearnedQuantizer
    for module in student.modules():
        if isinstance(module, kinds):
            module.requires_grad_(True)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise ValueError(
            "weights and channel scales are frozen, so some activation must have range 'learned': nothing is"
            " left to train"
        )


def check_float_blocks(
    student: PreTrainedModel, teacher: PreTrainedModel, schedule: BlockSchedule
) -> None:
    """Refuse a teacher that is not the float model whose weights the prepared student holds, and dropout in
    a student whose blocks are compared with float ones.

    Raises:
        ValueError: with the first weight or rate that does not fit.
    """
    for key in DROPOUT_KEYS:
        rate = getattr(student.config, key, None)
        if schedule.length > 0 and rate:
            raise ValueError(
                f"the blocks are calibrated against float ones, so {key} must be 0, not {rate}: set"
                " train.dropout to 0.0, or load the model with that key at 0"
            )
    if any(
        isinstance(m, QuantLinear) and m.weight_quantizer is not None for m in teacher.modules()
    ):
        raise ValueError("the teacher must be the float model, not a quantised student of it")
    theirs = dict(teacher.named_parameters())
    for name, parameter in student.named_parameters():
        if name in theirs and not torch.equal(parameter, theirs[name]):
            raise ValueError(
                "the weights are frozen, so the teacher must be the model that the student was made from;"
                f" {name} differs"
            )


@dataclass(frozen=True)
class BlockSchedule:
    """Phase one, `length` steps in which every block gets the float model's input, then phase two.

    Args:
        length: steps of phase one.
        total_steps: steps of both.
    """

    length: int
    total_steps: int

    @classmethod
    def from_spec(cls, spec: Quadapter, total_steps: int) -> BlockSchedule:
        """Resolve a length that is given as a share of all steps.

        Raises:
            ValueError: phase one is longer than the run.
        """
        length = spec.blockwise_steps
        if length is None:
            assert spec.blockwise_fraction is not None
            length = round(spec.blockwise_fraction * total_steps)
        if length > total_steps:
            raise ValueError(
                f"method.blockwise_steps must be at most the run's {total_steps} steps, got {length}"
            )
        return cls(length, total_steps)

    def injected(self, step: int) -> Injected | None:
        """Which tensor of the float model replaces the student's at a step (0-based)."""
        return "input" if step < self.length else None

    @property
    def restart_steps(self) -> tuple[int, ...]:
        """Steps before which optimiser and learning-rate schedule start anew."""
        return (self.length,) if 0 < self.length < self.total_steps else ()
