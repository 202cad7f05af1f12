"""Quadapter's arithmetic: scales cancel without quantisers, and folding them changes no code."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from channel_scales import PRE_LN, RECIPE, UNSCALED, logits, random_scales, static_student
from tiny_models import batch_of, tiny
from torch import Tensor, nn
from transformers import PreTrainedModel

from qat.methods.quadapter import fold
from qat.modules.linear import QuantLinear
from qat.modules.norm import ChannelScale, ScaledLayerNorm
from qat.quantizers.activation import DynamicQuantizer, LearnedQuantizer
from qat.quantizers.lifecycle import initialise
from qat.quantizers.weight import WeightQuantizer
from qat.recipe import QuantizationSpec, load_recipe
from qat.roles import FAMILIES as TABLES
from qat.roles import edges, match
from qat.student import prepare, restore

FLOAT = RECIPE.model_copy(update={"quantization": QuantizationSpec()})


@pytest.mark.parametrize("family", PRE_LN)
def test_with_quantisers_off_scales_change_nothing(family: str) -> None:
    scaled = prepare(tiny(family), FLOAT)
    random_scales(scaled)
    got, wanted = logits(scaled, family), logits(tiny(family), family)
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert torch.equal(logits(fold(scaled), family), got)
    # the control: scales that one layer's weights do not undo
    reader = next(m for m in scaled.modules() if isinstance(m, QuantLinear) and m.input_scale)
    reader.input_scale = None
    assert (logits(scaled, family) - wanted).abs().max() > 1e-2 * wanted.abs().max()


def all_codes(model: PreTrainedModel, family: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Codes and scale of every quantiser, of weights and of activations."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Callable[..., None]:
        return lambda module, args, output: found.update({name: output})

    kinds = (LearnedQuantizer, DynamicQuantizer, WeightQuantizer)
    handles = [
        module.register_forward_hook(watch(name))
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    ]
    logits(model, family)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("recipe", ["quadapter_w8a8", "quadapter_w4a8"])
@pytest.mark.parametrize("family", PRE_LN)
def test_folded_and_unfolded_codes_are_the_same_integers(family: str, recipe: str) -> None:
    student = static_student(family, load_recipe(recipe))
    folded = fold(student)
    trained, deployed = all_codes(student, family), all_codes(folded, family)
    linears = {"gpt2": 4, "vit": 6}[family]
    assert len(trained) == 2 * (2 * linears + 4) + (family == "gpt2")
    assert trained.keys() == deployed.keys()
    for name, (codes, scale) in trained.items():
        assert torch.equal(codes, deployed[name][0]), name
        assert torch.equal(scale, deployed[name][1]), name
    assert torch.equal(logits(student, family), logits(folded, family))
    # the control: the comparison sees a scale that is off by one part in a thousand
    next(m for m in student.modules() if isinstance(m, ChannelScale)).log_scale.data.add_(1e-3)
    moved = all_codes(student, family)
    assert any(not torch.equal(codes, deployed[name][0]) for name, (codes, _) in moved.items())


@pytest.mark.parametrize("family", PRE_LN)
def test_folding_copies_and_leaves_no_scale(family: str) -> None:
    student = static_student(family)
    before = copy.deepcopy(student.state_dict())
    folded = fold(student)
    assert not [m for m in folded.modules() if isinstance(m, ChannelScale)]
    assert all(torch.equal(before[name], t) for name, t in student.state_dict().items())
    # written back into a plain model: GPT-2's Conv1D holds [in, out], so its rows are divided
    plain, original = restore(folded), tiny(family)
    norm, linear = {
        "gpt2": ("transformer.h.0.ln_2", "transformer.h.0.mlp.c_fc"),
        "vit": ("vit.layers.0.layernorm_after", "vit.layers.0.mlp.fc1"),
    }[family]
    scale = student.get_submodule(norm).channel_scale().detach()
    weight = original.get_submodule(linear).weight
    divided = weight / (scale[:, None] if family == "gpt2" else scale)
    torch.testing.assert_close(plain.get_submodule(linear).weight, divided, rtol=0, atol=0)
    gamma = original.get_submodule(norm).weight
    torch.testing.assert_close(plain.get_submodule(norm).weight, gamma * scale, rtol=0, atol=0)
    reference = logits(original, family)
    assert (logits(plain, family) - reference).abs().max() <= 1e-5 * reference.abs().max()


@pytest.mark.parametrize("family", PRE_LN)
def test_formula_with_the_scale_in_front_of_the_quantiser(family: str) -> None:
    # y = Q_w(W A^-1) Q_x(A LN(x)) + c, written with activations that are multiplied
    student = static_student(family)
    norm_name, names = edges(
        family, match(TABLES[family], [n for n, _ in student.named_modules()])
    )[0]
    norm = student.get_submodule(norm_name)
    assert isinstance(norm, ScaledLayerNorm)
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))
    a = norm.channel_scale().detach()
    latent = nn.functional.layer_norm(x, (16,), norm.weight, norm.bias, norm.eps)
    for name in names:
        linear = student.get_submodule(name)
        step = linear.input_quantizer.alpha
        x_codes = torch.floor(a * latent / step + 0.5).clamp(-128, 127)
        w = linear.weight / a
        w_scale = w.abs().amax(1) / 127
        w_codes = torch.floor(w / w_scale[:, None] + 0.5)
        wanted = (x_codes @ w_codes.t()) * (step * w_scale) + linear.bias
        torch.testing.assert_close(linear(norm(x)), wanted, rtol=1e-5, atol=1e-5)
        # the control: a quantiser that sees W and is divided afterwards computes something else
        codes, scale = linear.weight_quantizer(linear.weight)
        other = (x_codes @ (codes * scale[:, None] / a).t()) * step + linear.bias
        assert (other - wanted).abs().max() > 1e-3


def test_gradient_of_a_scale_against_its_derivation() -> None:
    # sum over t, n of g (w^ x' where x' is in range, minus x^ w'): docs/quadapter.md, section 3
    generator = torch.Generator().manual_seed(4)
    student = static_student("gpt2")
    block = student.transformer.h[0]
    norm, linear = block.ln_2, block.mlp.c_fc
    linear.input_quantizer.alpha.data.mul_(0.2)  # some of the inputs saturate
    norm.requires_grad_(False).channel_scale.requires_grad_(True)
    x, g = torch.randn(7, 16, generator=generator), torch.randn(7, 64, generator=generator)
    linear(norm(x)).backward(g)
    with torch.no_grad():
        scaled, weight = norm(x), linear.weight / norm.channel_scale()
        codes, step = linear.input_quantizer(scaled, None)
        w_codes, w_step = linear.weight_quantizer(weight)
        inside = (scaled / step >= -128) & (scaled / step <= 127)
        terms = (g @ (w_codes * w_step[:, None])) * scaled * inside
        terms = terms.sum(0) - ((g.t() @ (codes * step)) * weight).sum(0)
    assert 0 < inside.sum() < inside.numel()
    got = norm.channel_scale.log_scale.grad
    torch.testing.assert_close(got, terms, rtol=1e-4, atol=1e-4)


def test_scales_of_one_start_as_the_plainly_quantised_model() -> None:
    for family in PRE_LN:
        scaled = prepare(tiny(family), RECIPE)
        plain = prepare(tiny(family), UNSCALED)
        for student in (scaled, plain):
            initialise(student, [batch_of(family)])
        assert torch.equal(logits(scaled, family), logits(plain, family))
