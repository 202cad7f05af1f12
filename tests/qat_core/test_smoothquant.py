"""SmoothQuant's closed form: against numbers by hand, and on models with padding and shared scales."""

from __future__ import annotations

import pytest
import torch
from tiny_models import batch_of, tiny
from torch import Tensor

from qat.methods.smoothquant import smoothing_scale
from qat.modules.norm import ChannelScale
from qat.quantizers.lifecycle import initialise, uninitialised
from qat.recipe import load_recipe
from qat.student import prepare

RECIPE = load_recipe("smoothquant_w8a8")


@pytest.mark.parametrize(
    ("migration", "s"),
    [
        (0.5, [4.0, 0.5, 0.1]),  # sqrt(16 / 1), sqrt(1 / 4), sqrt(0.02 / 2)
        (1.0, [16.0, 1.0, 0.02]),
        (0.0, [1.0, 0.25, 0.5]),  # 1 / max|W|
    ],
)
def test_the_formula(migration: float, s: list[float]) -> None:
    activations, weights = torch.tensor([16.0, 1.0, 0.02]), torch.tensor([1.0, 4.0, 2.0])
    scale = smoothing_scale(activations, weights, migration)
    torch.testing.assert_close(1 / scale, torch.tensor(s))


def test_floors_keep_a_dead_channel_finite() -> None:
    none, one = torch.zeros(1), torch.ones(1)
    # the range 1e-5 stands for 0: s = sqrt(1e-5 / 1), sqrt(1 / 1e-5)
    assert smoothing_scale(none, one, 0.5).item() == pytest.approx(1e5**0.5, rel=1e-5)
    assert smoothing_scale(one, none, 0.5).item() == pytest.approx(1e-5**0.5, rel=1e-5)
    assert smoothing_scale(none, 1e9 * one, 1.0).item() == pytest.approx(1e5, rel=1e-5)


def scales_of(family: str, batches: list[dict[str, Tensor]]) -> list[Tensor]:
    student = prepare(tiny(family), RECIPE)
    initialise(student, batches)
    assert uninitialised(student) == []
    return [m().detach() for m in student.modules() if isinstance(m, ChannelScale)]


def test_a_vit_layers_scale_balances_its_input_and_all_three_projections() -> None:
    batch, model = batch_of("vit"), tiny("vit").eval()
    layer, seen = model.vit.layers[0], []
    layer.layernorm_before.register_forward_hook(lambda m, args, output: seen.append(output))
    with torch.no_grad():
        model(**batch)
    attention = layer.attention
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    weights = torch.cat([p.weight for p in projections]).detach()  # [3 N, C]
    x = seen[0].flatten(0, 1).abs().amax(0)
    w = weights.abs().amax(0)
    by_hand = (w / x).sqrt()
    # both sides have the range sqrt(max|X_j| max|W_j|) afterwards
    torch.testing.assert_close(x * by_hand, w / by_hand)
    torch.testing.assert_close(scales_of("vit", [batch])[0], by_hand)
    assert not torch.allclose(projections[0].weight.abs().amax(0), w)


def test_padding_does_not_count_and_batches_add_up() -> None:
    batch = batch_of("gpt2")  # 6, 4 and 2 real tokens of 6
    lengths = batch["attention_mask"].sum(1).tolist()
    rows = [
        {name: tensor[i : i + 1, :n] for name, tensor in batch.items()}
        for i, n in enumerate(lengths)
    ]
    together, apart = scales_of("gpt2", [batch]), scales_of("gpt2", rows)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other)
    # the control: were the padded positions real ones, some channel would reach further
    everything = [{"input_ids": batch["input_ids"]}]
    assert not all(
        torch.allclose(a, b) for a, b in zip(together, scales_of("gpt2", everything), strict=True)
    )


def test_quadapter_may_start_from_it() -> None:
    recipe = load_recipe("quadapter_w8a8", ["method.init=smoothquant", "method.migration=0.75"])
    student = prepare(tiny("vit"), recipe)
    initialise(student, [batch_of("vit")])
    started = [m() for m in student.modules() if isinstance(m, ChannelScale)]
    halves = scales_of("vit", [batch_of("vit")])
    assert len(started) == 4
    assert not torch.allclose(started[0], halves[0])
    ones = prepare(tiny("vit"), load_recipe("quadapter_w8a8"))
    assert all(bool((m() == 1).all()) for m in ones.modules() if isinstance(m, ChannelScale))
