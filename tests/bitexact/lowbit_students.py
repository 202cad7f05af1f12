"""Tiny students of every family and recipe, with random parameters, all the way to an export folder.

Widths are no multiples of 8, so that every packed row has pad bits. Every parameter is random: a bias or
a layer norm that were trivial would hide the operator that loses it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)

from hwsim.calibrate import Range, collect_ranges
from hwsim.capture import Captured, capture
from hwsim.freeze import freeze
from hwsim.graph.ir import QuantGraph
from hwsim.graph.serialize import Model, Samples, load, save
from hwsim.lower import Lowered, lower
from hwsim.rungs import StaticRun, graph_inputs
from qat.quantizers.lifecycle import initialise
from qat.recipe import Recipe, load_recipe
from qat.student import prepare

FAMILIES = ("vit", "bert", "gpt2")
RECIPES = ("w8a8", "kd_w2a8", "bit_w1a1")
MACHINES = ("xnor_edge", "ternary_edge", "bitserial_edge", "int8_edge")
LONGEST = 9
WIDTH, HEADS, INNER, VOCABULARY, CLASSES = 20, 2, 28, 30, 5
SAMPLES = 12
# One layer holds every operator; two show that a layer's output is the next one's input.
LAYERS = {"vit": 1, "bert": 1, "gpt2": 2}


def plain(family: str, layers: int, positions: int = 16) -> PreTrainedModel:
    """A float model whose every parameter is random; `positions` is the length of GPT-2's table."""
    torch.manual_seed(7)
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if family == "vit":
        model = ViTForImageClassification(
            ViTConfig(
                hidden_size=WIDTH,
                num_hidden_layers=layers,
                num_attention_heads=HEADS,
                intermediate_size=INNER,
                image_size=6,
                patch_size=2,
                num_channels=2,
                num_labels=CLASSES,
                **quiet,
            )
        )
    elif family == "bert":
        model = BertForSequenceClassification(
            BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=WIDTH,
                num_hidden_layers=layers,
                num_attention_heads=HEADS,
                intermediate_size=INNER,
                max_position_embeddings=16,
                num_labels=CLASSES,
                **quiet,
            )
        )
    else:
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_embd=WIDTH,
                n_layer=layers,
                n_head=HEADS,
                n_inner=INNER,
                n_positions=positions,
                bos_token_id=0,
                eos_token_id=0,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
            )
        )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            norm = parameter.ndim == 1 and "weight" in name
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (1.0 if norm else 0.0))
    return model.eval()


def batch_of(
    family: str, seed: int, size: int = SAMPLES, longest: int = LONGEST
) -> dict[str, Tensor]:
    """Model inputs; the texts have 2 to `longest` real tokens, padded on the right, and two segments."""
    generator = torch.Generator().manual_seed(seed)
    if family == "vit":
        return {"pixel_values": torch.randn(size, 2, 6, 6, generator=generator)}
    lengths = torch.randint(2, longest + 1, (size,), generator=generator)
    lengths[0] = longest
    mask = (torch.arange(longest) < lengths[:, None]).long()
    ids = torch.randint(1, VOCABULARY, (size, longest), generator=generator) * mask
    batch = {"input_ids": ids, "attention_mask": mask}
    if family == "bert":
        batch["token_type_ids"] = (torch.arange(longest) >= lengths[:, None] // 2).long() * mask
    return batch


@dataclass
class Student:
    """One student and everything that export derives from it."""

    family: str
    recipe: str
    module: PreTrainedModel
    captured: Captured
    ranges: Mapping[str, Range]
    static: Captured
    lowered: Lowered
    folder: Path

    @property
    def graph(self) -> QuantGraph:
        return self.lowered.graph

    @cached_property
    def model(self) -> Model:
        """The export as it comes back from the disk."""
        return load(self.folder)

    @cached_property
    def static_run(self) -> StaticRun:
        """The static student on samples that calibration did not see."""
        return StaticRun(self.static, self.lowered, batch_of(self.family, 99))


def build(
    family: str,
    recipe: str | Recipe,
    folder: Path | None = None,
    layers: int | None = None,
    longest: int = LONGEST,
) -> Student:
    """Prepare, initialise, capture, calibrate, freeze, lower and (where a folder is given) save."""
    recipe_ = load_recipe(recipe) if isinstance(recipe, str) else recipe
    student = prepare(plain(family, layers or LAYERS[family], max(16, longest + 2)), recipe_).eval()
    initialise(student, [batch_of(family, 1, longest=longest)])
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if name.endswith("quantizer.shift"):
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    example = batch_of(family, 2, 3, longest)
    captured = capture(student, example, 0 if family == "vit" else longest + 2)
    ranges = collect_ranges(captured, [batch_of(family, s, longest=longest) for s in (3, 4, 5)])
    static = freeze(captured, ranges)
    meta = {"metrics": ["accuracy"], "recipe": recipe_.name, "task": "random"}
    lowered = lower(static, meta)
    made = Student(
        family, recipe_.name, student, captured, ranges, static, lowered, folder or Path()
    )
    if folder is not None:
        save(folder, lowered.graph, samples_of(made, 6, longest))
    return made


def samples_of(student: Student, seed: int, longest: int = LONGEST) -> Samples:
    """Inputs as the host makes them, labelled with what the float student says."""
    batch = batch_of(student.family, seed, longest=longest)
    with torch.no_grad():
        labels = student.module(**batch).logits.argmax(-1).numpy()
    lengths = None
    if "attention_mask" in batch:
        lengths = batch["attention_mask"].sum(1).numpy()
        if labels.ndim == 2:
            labels = np.where(batch["attention_mask"].numpy() == 1, labels, -100)
    return Samples(graph_inputs(student.graph, batch), labels, lengths)


def with_constant(graph: QuantGraph, node: str, role: str, array: np.ndarray) -> QuantGraph:
    """The graph with one stored array exchanged."""
    name = graph.by_name[node].constants[role]
    changed = dataclasses.replace(graph.constants[name], array=array)
    return dataclasses.replace(graph, constants={**graph.constants, name: changed})


def with_attrs(graph: QuantGraph, node: str, **attrs: object) -> QuantGraph:
    """The graph with attributes of one node exchanged."""
    nodes = tuple(
        dataclasses.replace(n, attrs={**n.attrs, **attrs}) if n.name == node else n
        for n in graph.nodes
    )
    return dataclasses.replace(graph, nodes=nodes)


def first_node(graph: QuantGraph, op: str, contains: str = "") -> str:
    """Name of the first node with this operator."""
    return next(n.name for n in graph.nodes if n.op == op and contains in n.name)
