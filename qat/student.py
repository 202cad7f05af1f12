"""From a Hugging Face model to a student (or a teacher that can be compared with one) and back.

`prepare` copies the model and swaps modules in the copy: the original is untouched and shares no
storage. `restore` goes back to a plain Hugging Face model with the latent float weights.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from qat import attention, overrides, streams
from qat.attention import AttentionOperands
from qat.methods import quadapter
from qat.modules.embedding import QuantEmbedding
from qat.modules.linear import QuantLinear
from qat.modules.norm import ChannelScale, ScaledLayerNorm
from qat.modules.patch import QuantPatches
from qat.quantizers.activation import (
    ActivationQuantizer,
    DynamicQuantizer,
    LearnedQuantizer,
    SignQuantizer,
)
from qat.quantizers.weight import AnyWeightQuantizer, LearnedWeightQuantizer, WeightQuantizer
from qat.recipe import ActivationSpec, OperatorSpec, QuantizationSpec, Recipe, WeightSpec
from qat.roles import family_of, match
from qat.step import StepState

_FUSED = ("q", "k", "v")
_LINEAR_GROUPS: dict[str, tuple[str, ...]] = {
    **{role: (role,) for role in ("q", "k", "v", "o", "ffn1", "ffn2", "pooler", "classifier")},
    "qkv": _FUSED,
}
_CONFIG_ACTIVATIONS = ("hidden_act", "activation_function")


def prepare(model: PreTrainedModel, recipe: Recipe | None = None) -> PreTrainedModel:
    """Return a quantised copy of a model.

    Args:
        model: any Hugging Face model of a family in `qat.roles`.
        recipe: what to quantise and whether channels are scaled; None prepares a teacher: nothing quantised,
            same attention function.

    Returns:
        A new model of the same class with the same parameter names, plus those of the quantisers. Its
        attribute `step` is the `StepState` that all its modules share. Learned quantisers still need
        `qat.quantizers.initialise`.

    Raises:
        GraphError: unknown family, a role that matches no module, channel scales in a post-LN family.
        ConfigError: an override of the recipe that fits no module.
    """
    attention.register()
    source = restore(model) if isinstance(getattr(model, "step", None), StepState) else model
    student = copy.deepcopy(source)
    family = family_of(student.config.model_type)
    roles = match(family, [name for name, _ in student.named_modules()])
    step = StepState()
    quantization = QuantizationSpec() if recipe is None else recipe.quantization
    slots = overrides.resolve(quantization, roles)

    _swap_activations(student, roles["act"], recipe)
    for role, parts in _LINEAR_GROUPS.items():
        for name in roles.get(role, []):
            _swap_linear(student, name, role, parts, overrides.operator(slots, name), step)
    for name in roles.get("patch", []):
        patch = overrides.operator(slots, name)
        if patch.weight is not None and patch.input is not None:
            old = student.get_submodule(name)
            assert isinstance(old, nn.Conv2d)
            quantizers = (
                _weight_quantizer(patch.weight, old.weight.flatten(1)),
                _activation_quantizer(patch.input, 0, step),
            )
            _replace(student, name, QuantPatches.from_float(old, *quantizers))
    # Conv1D flattens batch and positions into one axis, which no exported graph can undo.
    for name, module in list(student.named_modules()):
        if isinstance(module, Conv1D):
            _replace(student, name, QuantLinear.from_float(module, ("other",), step))
    if recipe is not None and recipe.channel_scaling is not None:
        quadapter.install(student, roles, recipe.channel_scaling.smoothing)
    for name in roles.get("word_embedding", []):
        spec = slots[name]["weight"]
        if spec is not None:
            table = student.get_submodule(name)
            assert isinstance(table, nn.Embedding)
            quantizer = _weight_quantizer(spec, table.weight)
            _replace(student, name, QuantEmbedding.from_float(table, quantizer))
    if quantization.residual is not None:
        streams.install(student, family, roles, quantization.residual, step)
    bool_map = quantization.attention.map == "bool"
    for layer, name in enumerate(roles["attention"]):
        student.get_submodule(name).operands = _operands(layer, step, slots[name], bool_map)
    for layer, name in enumerate(roles["o"]):
        student.get_submodule(name).register_forward_hook(_OutputTap(layer, step))
    for layer, name in enumerate(roles["layer"]):
        student.get_submodule(name).register_forward_pre_hook(_TakeInput(layer, step))
    for role, kind in (("embeddings", "hidden"), ("layer", "hidden")):
        for name in roles[role]:
            student.get_submodule(name).register_forward_hook(_Tap(kind, step))
    for name in roles["post_attention_norm"]:
        student.get_submodule(name).register_forward_hook(_Tap("post_norm", step))
    # The attribute is read by the objective; modules hold their own reference to the same object.
    student.step = step  # type: ignore[assignment]
    student.register_forward_pre_hook(
        _TakeMask(step, inspect.signature(type(student).forward)), with_kwargs=True
    )
    student.register_forward_hook(_DropMask(step), always_call=True)
    student.config._attn_implementation = attention.IMPLEMENTATION
    student.config.use_cache = False
    nn.Module.to(student, model.device)  # the quantisers were made on the CPU
    return student


def restore(model: PreTrainedModel) -> PreTrainedModel:
    """Return a plain Hugging Face copy of a prepared model with the latent float weights.

    A replaced activation function stays replaced (the weights were trained for it), also in its config. Channel
    scales are dropped: without quantisers they change nothing (`qat.methods.quadapter.fold` keeps them).
    """
    plain = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if isinstance(module, QuantLinear | QuantEmbedding | QuantPatches | ScaledLayerNorm):
            _replace(plain, name, module.to_float())
    streams.remove(plain)
    for module in plain.modules():
        if "operands" in module._modules:
            del module._modules["operands"]
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(hook, _HOOKS):
                    del hooks[key]
                    module._forward_hooks_always_called.pop(key, None)
                    module._forward_pre_hooks_with_kwargs.pop(key, None)
    if "step" in plain.__dict__:
        del plain.__dict__["step"]
    plain.config._attn_implementation = "sdpa"
    return plain


@dataclass(frozen=True)
class SummaryRow:
    """What became of one weight: a row of `summary`."""

    name: str
    kind: str
    shape: tuple[int, ...]
    weight: str
    input: str
    weight_bytes: int
    """Packed codes plus float32 scales; float32 for what is not quantised."""


def summary(model: PreTrainedModel) -> list[SummaryRow]:
    """One row per parameter-holding module of a prepared model, and its attention operands."""
    rows = []
    for name, module in model.named_modules():
        if isinstance(module, AttentionOperands):
            operands = {"q": module.query, "k": module.key, "v": module.value}
            operands["p"] = module.probabilities
            text = " ".join(f"{k}:{q.fmt if q else 'FLOAT32'}" for k, q in operands.items())
            rows.append(SummaryRow(name, "attention", (), "", text, 0))
            continue
        if isinstance(module, LearnedQuantizer | DynamicQuantizer | WeightQuantizer | ChannelScale):
            continue  # channel scales fold away
        parameters = dict(module.named_parameters(recurse=False))
        if not parameters:
            continue
        main = parameters.get("weight", next(iter(parameters.values())))
        quantizer = getattr(module, "weight_quantizer", None)
        taken = getattr(module, "input_quantizer", None)
        size = sum(4 * p.numel() for p in parameters.values())
        if quantizer is not None:
            scales = main.shape[0] if quantizer.granularity == "row" else 1
            row_bytes = (main[0].numel() * quantizer.bits + 7) // 8
            size += main.shape[0] * row_bytes + 4 * scales - 4 * main.numel()
        rows.append(
            SummaryRow(
                name,
                type(module).__name__,
                tuple(main.shape),
                quantizer.fmt if quantizer else "FLOAT32",
                taken.fmt if taken else "FLOAT32",
                size,
            )
        )
    return rows


# -- swaps ------------------------------------------------------------------------------------


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)


def _swap_activations(model: PreTrainedModel, names: list[str], recipe: Recipe | None) -> None:
    if recipe is not None and recipe.activation_function == "relu":
        for name in names:
            _replace(model, name, nn.ReLU())
        for key in _CONFIG_ACTIVATIONS:
            if hasattr(model.config, key):
                setattr(model.config, key, "relu")
    for name, module in list(model.named_modules()):
        if isinstance(module, NewGELUActivation):
            # The same function; written out by hand it would dissolve into pow, mul and tanh on export.
            _replace(model, name, nn.GELU(approximate="tanh"))


def _swap_linear(
    model: PreTrainedModel,
    name: str,
    role: str,
    parts: tuple[str, ...],
    spec: OperatorSpec,
    step: StepState,
) -> None:
    old = model.get_submodule(name)
    assert isinstance(old, nn.Linear | Conv1D)
    if role in ("pooler", "classifier") and spec.weight is None and spec.input is None:
        return
    new = QuantLinear.from_float(old, parts, step)
    if spec.weight is not None:
        new.weight_quantizer = _weight_quantizer(spec.weight, new.weight)
    if spec.input is not None:
        new.input_quantizer = _activation_quantizer(spec.input, new.in_features, step)
    _replace(model, name, new)


def _weight_quantizer(spec: WeightSpec, weight: Tensor) -> AnyWeightQuantizer:
    if spec.method == "lsq":
        return LearnedWeightQuantizer.from_weight(spec.format, weight)
    return WeightQuantizer(
        spec.format, spec.method, spec.granularity, spec.threshold, spec.clip, spec.schedule
    )


def _activation_quantizer(
    spec: ActivationSpec, channels: int, step: StepState
) -> ActivationQuantizer:
    if spec.range == "unit":
        return SignQuantizer()
    if spec.range == "learned":
        return LearnedQuantizer(spec.format, channels if spec.shift else 0, spec.rounding, step)
    return DynamicQuantizer(spec.format, spec.granularity, spec.clip, spec.rounding, step)


def _operands(
    layer: int, step: StepState, specs: dict[str, ActivationSpec | None], bool_map: bool
) -> AttentionOperands:
    operands = AttentionOperands(layer, step, bool_map)
    for name, spec in specs.items():
        if spec is not None:
            # No shift here: along the head axis of Q and K it would be a scale along the reduction.
            setattr(operands, name, _activation_quantizer(spec, 0, step))
    return operands


# -- hooks: classes, so that a deep copy of the model copies their StepState along with its modules ---


class _TakeMask:
    """Put the validity of positions into the step state before the model runs."""

    def __init__(self, step: StepState, signature: inspect.Signature) -> None:
        self.step, self.signature = step, signature

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = self.signature.bind_partial(module, *args, **kwargs).arguments
        mask = given.get("attention_mask")
        if mask is None:
            mask = given.get("kwargs", {}).get("attention_mask")
        attention.check_mask(mask)
        self.step.valid = None if mask is None else mask.bool()


class _DropMask:
    """Forget the validity after the model ran."""

    def __init__(self, step: StepState) -> None:
        self.step = step

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.step.valid = None


class _Tap:
    """Record a module's output while a recording is on."""

    def __init__(self, kind: str, step: StepState) -> None:
        self.kind, self.step = kind, step

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.step.recording is not None:
            value = output[0] if isinstance(output, tuple) else output
            getattr(self.step.recording, self.kind).append(value)


class _TakeInput:
    """Under block-wise calibration, put the float model's hidden state in place of a layer's own input."""

    def __init__(self, layer: int, step: StepState) -> None:
        self.layer, self.step = layer, step

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.step.injected != "input":
            return None
        assert self.step.teacher is not None
        return (self.step.teacher.hidden[self.layer], *args[1:])


class _OutputTap:
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


_HOOKS = (
    _OutputTap,
    _Tap,
    _TakeInput,
    _TakeMask,
    _DropMask,
    streams.SnapInput,
    streams.SnapOutput,
)
