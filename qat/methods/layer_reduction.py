"""Layer reduction: a student of fewer layers, and which of the teacher's tensors each of its layers matches.

Wu, Yao, Zhang, Li, He (XTC; NeurIPS 2022), section 4: the student keeps chosen layers of the fine-tuned teacher,
with its embeddings, pooler and classifier, and is distilled at once, without any pre-training distillation.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields
from typing import cast

from torch import nn
from transformers import PreTrainedModel

from qat.depth import DEPTH_KEYS, check_layers
from qat.roles import family_of, match
from qat.step import Recording


def depth(model: PreTrainedModel) -> int:
    """Number of layers."""
    return next(int(getattr(model.config, key)) for key in DEPTH_KEYS if hasattr(model.config, key))


def keep_layers(model: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Return a copy of a plain model that has only these layers, renumbered from 0.

    Raises:
        ConfigError: the map does not fit the model.
        GraphError: the family is unknown.
    """
    check_layers(layers, depth(model))
    reduced = copy.deepcopy(model)
    names = match(family_of(model.config.model_type), [n for n, _ in reduced.named_modules()])
    parent, _, leaf = names["layer"][0].rpartition(".")[0].rpartition(".")
    holder = reduced.get_submodule(parent)
    stack = cast("nn.ModuleList", getattr(holder, leaf))
    setattr(holder, leaf, nn.ModuleList(stack[i] for i in layers))
    for number, layer in enumerate(getattr(holder, leaf)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    for key in DEPTH_KEYS:
        if hasattr(reduced.config, key):
            setattr(reduced.config, key, len(layers))
    return reduced


def hidden_map(layers: Sequence[int]) -> list[int]:
    """Return which of the teacher's hidden states (0 is the embedding output) each of the student's matches.

    As the released code: layer i's output matches that of its original, the embedding output the hidden state
    `layers[0] - 1` (for a map that starts at 2 that is the output of layer 0), and never wraps round for a map
    that starts at 0. [2, 4, 6, 8, 10] -> [1, 3, 5, 7, 9, 11].
    """
    return [max(0, layers[0] - 1), *(layer + 1 for layer in layers)]


def select(teacher: Recording, layers: Sequence[int]) -> Recording:
    """Return the teacher's tensors in the order of the student's layers."""
    chosen = {
        field.name: [getattr(teacher, field.name)[i] for i in layers]
        for field in fields(Recording)
        if field.name != "hidden"
    }
    return Recording(**chosen, hidden=[teacher.hidden[i] for i in hidden_map(layers)])
