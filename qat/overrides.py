"""Mixed precision by name: which quantisers each module of one model gets, after a recipe's overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

from hwsim.errors import ConfigError, nearest
from qat.formats import ATTENTION_KEYS, OperatorSpec, QuantizationSpec, Role

WEIGHT_ROLES = (
    *("q", "k", "v", "qkv", "o", "ffn1", "ffn2"),
    *("pooler", "classifier", "patch"),
)

Slots = dict[str, dict[str, Any]]
"""Module name -> key -> `WeightSpec`, `ActivationSpec` or None. Keys are `weight` and `input` for what has a
weight (a word embedding has no `input`), those of `AttentionSpec` for attention modules."""


def resolve(quantization: QuantizationSpec, roles: Mapping[str, Sequence[str]]) -> Slots:
    """Say what every module of a model gets: what its role has, then the overrides, the last that matches.

    Args:
        quantization: of the recipe.
        roles: role -> names of its modules (`qat.roles.match`).

    Raises:
        ConfigError: a pattern that matches no module, or none with the key that it sets; a patch projection that
            is left with one side only. All faults at once.
    """
    slots: Slots = {}
    for role in WEIGHT_ROLES:
        # a fused projection has one input and one weight: what holds for q holds for it
        both = quantization.operator(cast("Role", "q" if role == "qkv" else role))
        for name in roles.get(role, ()):
            slots[name] = {"weight": both.weight, "input": both.input}
    for name in roles.get("word_embedding", ()):
        slots[name] = {"weight": quantization.word_embedding}
    for name in roles.get("attention", ()):
        slots[name] = {key: getattr(quantization.attention, key) for key in ATTENTION_KEYS}

    faults: list[str] = []
    for i, override in enumerate(quantization.overrides):
        place, pattern = f"quantization.overrides[{i}]", override.modules
        matched = [name for name in slots if fnmatchcase(name, pattern)]
        if not matched:
            hint = nearest(pattern, list(slots)) or f"; there is {next(iter(slots))!r}, for one"
            faults.append(
                f"{place}.modules: {pattern!r} matches no module that can be quantised{hint}"
            )
            continue
        for key, spec in override.given.items():
            having = [name for name in matched if key in slots[name]]
            if not having:
                faults.append(
                    f"{place}.{key}: nothing that {pattern!r} matches has it: {matched[0]!r} has"
                    f" {', '.join(slots[matched[0]])}"
                )
            for name in having:
                slots[name][key] = spec
    for name in roles.get("patch", ()):
        if (slots[name]["weight"] is None) != (slots[name]["input"] is None):
            faults.append(
                f"quantization.overrides: {name} must have both weight and input, or neither"
            )
    if faults:
        raise ConfigError(faults)
    return slots


def operator(slots: Slots, name: str) -> OperatorSpec:
    """What a linear layer or patch projection gets."""
    return OperatorSpec(**slots[name])
