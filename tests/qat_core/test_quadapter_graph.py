"""Where Quadapter's channel scales go: on which edges of a model, and into no operator of its graph."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from channel_scales import PRE_LN, RECIPE, UNSCALED, random_scales, static_student
from tiny_models import batch_of, tiny
from transformers import PreTrainedModel

from hwsim.capture import Captured, Frozen, capture, refs
from hwsim.errors import GraphError
from qat.methods.quadapter import fold
from qat.modules.norm import ScaledLayerNorm
from qat.overview import summary
from qat.recipe import load_recipe
from qat.roles import FAMILIES as TABLES
from qat.roles import edges, match
from qat.student import prepare


def captured(student: PreTrainedModel, family: str) -> Captured:
    return capture(student, batch_of(family), 0 if family == "vit" else 12)


@cache
def unscaled(family: str) -> Captured:
    """A layer's student without channel scales."""
    return captured(static_student(family, UNSCALED, layers=1), family)


def constants(calls: Captured) -> list[tuple[str, bytes]]:
    return [
        (call.name, arg.array.tobytes())
        for call in calls.calls
        for arg in call.args
        if isinstance(arg, Frozen)
    ]


@pytest.mark.parametrize("family", PRE_LN)
def test_the_exported_graph_has_no_operator_for_the_scales(family: str) -> None:
    student = static_student(family, layers=1)
    folded = captured(fold(student), family)
    assert [c.op for c in folded.calls] == [c.op for c in unscaled(family).calls]
    # a forward pass of the trained student derives the very tensors that folding wrote down
    assert constants(captured(student, family)) == constants(folded)


@pytest.mark.parametrize("family", PRE_LN)
def test_what_an_edge_scales_is_read_by_its_linear_layers_alone(family: str) -> None:
    calls = unscaled(family)
    names = [name for name, _ in tiny(family, layers=1).named_modules()]
    found = edges(family, match(TABLES[family], names))
    assert len(found) == 2
    for norm, linears in found:
        (call,) = (c for c in calls.calls if c.origin == norm)
        readers = calls.consumers(call.name)
        assert {r.origin.removesuffix(".input_quantizer") for r in readers} == set(linears)


def test_bert_has_no_edge_because_its_norms_feed_the_residual_stream_too() -> None:
    with pytest.raises(
        GraphError, match=r"bert: no layer norm can .*\(post-LN\).*: vit, deit, gpt2"
    ):
        prepare(tiny("bert"), RECIPE)
    student = prepare(tiny("bert", layers=1), load_recipe("w8a8"))
    calls = capture(student.eval(), batch_of("bert"), 12)
    norms = [c for c in calls.calls if c.op == "aten.layer_norm"][:-1]
    assert norms
    for norm in norms:
        assert "aten.add" in [c.op for c in calls.consumers(norm.name)]
        assert norm.name not in refs(calls.outputs)


def test_tied_embedding_and_final_norm_are_not_scaled() -> None:
    student = prepare(tiny("gpt2"), RECIPE)
    scaled = {n for n, m in student.named_modules() if isinstance(m, ScaledLayerNorm)}
    assert scaled == {f"transformer.h.{i}.ln_{k}" for i in (0, 1) for k in (1, 2)}
    assert student.lm_head.weight is student.transformer.wte.weight
    random_scales(student)
    folded = fold(student)
    assert folded.lm_head.weight is folded.transformer.wte.weight
    assert torch.equal(folded.lm_head.weight, tiny("gpt2").lm_head.weight)


def test_vits_projections_share_the_scale_of_their_norm() -> None:
    layer = prepare(tiny("vit"), RECIPE).vit.layers[1]
    shared = layer.layernorm_before.channel_scale
    projections = (layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj)
    assert all(p.input_scale.scale is shared for p in projections)
    assert layer.attention.o_proj.input_scale is None
    assert layer.mlp.fc1.input_scale.scale is layer.layernorm_after.channel_scale
    other = copy.deepcopy(layer)
    assert other.attention.k_proj.input_scale.scale is other.layernorm_before.channel_scale


def test_scales_take_no_bytes_of_the_packed_model() -> None:
    with_scales = summary(prepare(tiny("gpt2"), RECIPE))
    without = summary(prepare(tiny("gpt2"), UNSCALED))
    total = [sum(row.weight_bytes for row in rows) for rows in (with_scales, without)]
    assert total[0] == total[1]
