"""From a Hugging Face model to a student (or a teacher that can be compared with one) and back.

`prepare` copies the model and swaps modules in the copy: the original is untouched and shares no
storage. `restore` goes back to a plain Hugging Face model with the latent float weights.
"""

from __future__ import annotations

import copy
import inspect
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from hwsim.errors import GraphError
from qat import attention, hooks, overrides, recompute, streams
from qat.attention import AttentionOperands
from qat.formats import ActivationSpec, OperatorSpec, QuantizationSpec, WeightSpec
from qat.hf.quantizer import BitwrightConfig, BitwrightQuantizer
from qat.methods import quadapter
from qat.modules.embedding import QuantEmbedding
from qat.modules.linear import QuantLinear
from qat.modules.norm import ScaledLayerNorm
from qat.modules.patch import QuantPatches
from qat.quantizers.activation import (
    ActivationQuantizer,
    DynamicQuantizer,
    LearnedQuantizer,
    SignQuantizer,
)
from qat.quantizers.weight import AnyWeightQuantizer, LearnedWeightQuantizer, WeightQuantizer
from qat.recipe import Recipe, load_recipe
from qat.roles import Family, family_of, first_position, match, position_limit
from qat.step import StepState

_FUSED = ("q", "k", "v")
_LINEAR_GROUPS: dict[str, tuple[str, ...]] = {
    **{role: (role,) for role in ("q", "k", "v", "o", "ffn1", "ffn2", "pooler", "classifier")},
    "qkv": _FUSED,
}
_CONFIG_ACTIVATIONS = ("hidden_act", "activation_function", "activation")


def prepare(model: PreTrainedModel, recipe: Recipe | str | Path | None = None) -> PreTrainedModel:
    """Return a quantised copy of a model. The model is untouched and shares no storage with it.

    Args:
        model: any Hugging Face model of a family in `qat.roles`.
        recipe: what to quantise and whether channels are scaled: a recipe, the name of a shipped one, or a
            YAML file. None prepares a teacher: nothing quantised, same attention function.

    Returns:
        A new model of the same class with the same parameter names, plus those of the quantisers. Its
        attribute `step` is the `StepState` that all its modules share, its `config.quantization_config` holds
        the recipe. Learned quantisers still need `qat.quantizers.initialise`.

    Raises:
        ConfigError: no such recipe, or an override of it that fits no module.
        GraphError: unknown family, a role that matches no module, channel scales in a post-LN family, or a tie
            that the swapped modules break.
    """
    if isinstance(recipe, str | Path):
        recipe = load_recipe(recipe)
    student = restore(model) if is_prepared(model) else copy.deepcopy(model)
    install(student, recipe)
    return student


def is_prepared(model: nn.Module) -> bool:
    """Say whether a model came from `prepare`."""
    return isinstance(getattr(model, "step", None), StepState)


def install(student: PreTrainedModel, recipe: Recipe | None) -> None:
    """Quantise a plain model in place; see `prepare`."""
    attention.register()
    ties = _ties(student)
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
    _attach_hooks(student, family, roles, step)
    student.config._attn_implementation = attention.IMPLEMENTATION
    student.config.use_cache = False
    # save_pretrained writes the names as they are, not those of older checkpoints: quantisers have none there
    student._weight_conversions = []  # type: ignore[assignment]
    if recipe is not None and recipe.quantizes:
        config = BitwrightConfig(recipe)
        student.config.quantization_config = config
        student.hf_quantizer = BitwrightQuantizer(config)  # type: ignore[assignment]
    nn.Module.to(student, student.device)  # the quantisers were made on the CPU
    student.train(student.training)  # and in training mode
    _check_ties(student, ties)


def _attach_hooks(
    student: PreTrainedModel, family: Family, roles: dict[str, list[str]], step: StepState
) -> None:
    if family.positions == "after_pad":
        for name in roles["embeddings"]:
            module = student.get_submodule(name)
            first = first_position(student.config)
            numbers = torch.arange(first, first + position_limit(student.config))
            module.register_buffer(hooks.POSITIONS, numbers[None], persistent=False)
            module.register_forward_pre_hook(hooks.CountPositions(), with_kwargs=True)
    for layer, name in enumerate(roles["o"]):
        student.get_submodule(name).register_forward_hook(hooks.OutputTap(layer, step))
    for layer, name in enumerate(roles["layer"]):
        student.get_submodule(name).register_forward_pre_hook(hooks.TakeInput(layer, step))
    for role, kind in (("embeddings", "hidden"), ("layer", "hidden")):
        for name in roles[role]:
            student.get_submodule(name).register_forward_hook(hooks.Tap(kind, step))
    for name in roles["post_attention_norm"]:
        student.get_submodule(name).register_forward_hook(hooks.Tap("post_norm", step))
    # The attribute is read by the objective; modules hold their own reference to the same object.
    student.step = step  # type: ignore[assignment]
    student.register_forward_pre_hook(
        hooks.TakeMask(step, inspect.signature(type(student).forward)), with_kwargs=True
    )
    student.register_forward_hook(hooks.DropMask(step), always_call=True)


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
    recompute.forget(plain)
    for module in plain.modules():
        module._modules.pop("operands", None)
        if hooks.POSITIONS in module._buffers:
            delattr(module, hooks.POSITIONS)
        for registered in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(registered.items()):
                if isinstance(hook, hooks.HOOKS):
                    del registered[key]
                    module._forward_hooks_always_called.pop(key, None)
                    module._forward_pre_hooks_with_kwargs.pop(key, None)
    for attribute in ("step", "_weight_conversions"):
        plain.__dict__.pop(attribute, None)
    quantizer = getattr(plain, "hf_quantizer", None)
    if isinstance(quantizer, BitwrightQuantizer):
        quantizer.remove_quantization_config(plain)
    plain.config._attn_implementation = "sdpa"
    return plain.requires_grad_(True)  # channel scales froze the weights


# -- swaps ------------------------------------------------------------------------------------


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)


def _ties(model: nn.Module) -> list[set[str]]:
    """Names of parameters that are one and the same, group by group."""
    groups: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), set()).add(name)
    return [names for names in groups.values() if len(names) > 1]


def _check_ties(student: nn.Module, before: list[set[str]]) -> None:
    """Make sure that what was one parameter is still one: two copies would train apart.

    Raises:
        GraphError: a swapped module had to copy a tied weight.
    """
    after = _ties(student)
    broken = [names for names in before if not any(names <= group for group in after)]
    if broken:
        lines = (f"{' and '.join(sorted(names))} are one parameter" for names in broken)
        raise GraphError(
            "tied weights of layers that are swapped cannot be kept tied; untie them first: "
            + "; ".join(lines)
        )


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
        width = channels if spec.shift else 0
        return LearnedQuantizer(spec.format, width, spec.rounding, step, spec.start)
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
