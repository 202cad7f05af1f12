"""Life of the quantisers: initialisation in forward order, projection, freezing, reload."""

from __future__ import annotations

import pytest
import torch
from tiny_models import batch_of, tiny
from torch import nn

from qat.quantizers.activation import ALPHA_FLOOR, DynamicQuantizer, LearnedQuantizer
from qat.quantizers.lifecycle import (
    after_update,
    dynamic,
    freeze_ranges,
    initialise,
    learned,
    ranges_frozen,
)
from qat.quantizers.weight import LearnedWeightQuantizer
from qat.recipe import load_recipe
from qat.student import prepare


class Chain(nn.Module):
    """Two quantisers, the second behind the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = LearnedQuantizer("BIPOLAR", 2), LearnedQuantizer("UNIPOLAR")

    def forward(self, x: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        codes, scale = self.first(x, valid)
        codes, scale = self.second((codes * scale).abs(), valid)
        return codes * scale


def test_initial_values_by_hand_with_the_earlier_one_active() -> None:
    chain = Chain()
    initialise(chain, [{"x": torch.tensor([[[1.0, -3.0]]])}])
    # signed: 2 * mean|x| = 4; what the second sees is then +-4 in magnitude: unsigned 4 * 4
    assert chain.first.alpha.item() == 4
    assert chain.second.alpha.item() == 16
    assert chain.first.floor.item() == pytest.approx(ALPHA_FLOOR * 4)


def test_initial_values_weigh_all_batches_and_leave_padding_out() -> None:
    chain = Chain()
    valid = torch.tensor([[True, False]])
    padded = {"x": torch.tensor([[[1.0, -3.0], [90.0, 90.0]]]), "valid": valid}
    initialise(chain, [padded, {"x": torch.tensor([[[8.0, 8.0]]])}])
    assert chain.first.alpha.item() == 2 * (1 + 3 + 8 + 8) / 4


def test_the_mean_fits_one_bit_best() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 20_000, generator=rng)
    for fmt, values in (("BIPOLAR", x), ("UNIPOLAR", -torch.rand(x.shape, generator=rng).log())):
        errors = {}
        for start in ("mean", "lsq"):
            quantizer = LearnedQuantizer(fmt, start=start)
            initialise(_Alone(quantizer), [{"x": values}])
            first = quantizer.alpha.item()
            for factor in (0.8, 1.0, 1.25):
                quantizer.alpha.data.fill_(first * factor)
                codes, scale = quantizer(values, None)
                errors[start, factor] = (codes * scale - values).square().mean().item()
        assert min(errors, key=errors.__getitem__) == ("mean", 1.0)


def test_more_bits_divide_by_the_root_of_the_largest_code() -> None:
    quantizer = LearnedQuantizer("INT4")
    initialise(_Alone(quantizer), [{"x": torch.full((1, 2, 2), 3.0)}])
    assert quantizer.alpha.item() == pytest.approx(2 * 3 / 7**0.5)


class _Alone(nn.Module):
    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes, scale = self.quantizer(x, None)
        return codes * scale


def test_initialise_names_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        initialise(Chain(), [])
    chain = Chain()
    chain.unused = LearnedQuantizer("BIPOLAR")
    with pytest.raises(ValueError, match="reached the quantisers unused"):
        initialise(chain, [{"x": torch.ones(1, 1, 2)}])


def test_after_an_update_alpha_is_at_or_above_its_floor() -> None:
    chain = Chain()
    initialise(chain, [{"x": torch.ones(1, 1, 2)}])
    with torch.no_grad():
        chain.first.alpha.fill_(-3.0)
        chain.second.alpha.fill_(9.0)
    after_update(chain)
    assert chain.first.alpha.item() == pytest.approx(ALPHA_FLOOR * 2)
    assert chain.second.alpha.item() == 9
    assert bool(chain.first.at_floor())
    assert not bool(chain.second.at_floor())


def test_initialisation_survives_a_reload() -> None:
    chain, other = Chain(), Chain()
    initialise(chain, [{"x": torch.ones(1, 1, 2)}])
    other.load_state_dict(chain.state_dict())
    assert all(bool(q.initialised) for _, q in learned(other))
    assert torch.equal(other.first.floor, chain.first.floor)


def test_a_frozen_range_is_a_constant_and_survives_a_reload() -> None:
    quantizer = DynamicQuantizer("INT8")
    quantizer.train()
    quantizer(torch.tensor([[[2.0]]]), None)
    quantizer(torch.tensor([[[4.0]]]), None)
    wanted = (0.9 * 2 + 0.1 * 4) / 127
    quantizer.freeze()
    for x in (1.0, 100.0):
        _, scale = quantizer(torch.tensor([[[x]]]), None)
        assert scale.item() == pytest.approx(wanted)
    codes, _ = quantizer(torch.tensor([[[100.0, -100.0]]]), None)
    assert codes.tolist() == [[[127, -128]]]

    other = DynamicQuantizer("INT8")
    other.load_state_dict(quantizer.state_dict())
    assert other.is_frozen
    assert torch.equal(other(torch.ones(1, 1, 3), None)[0], quantizer(torch.ones(1, 1, 3), None)[0])


def test_evaluation_does_not_move_a_range() -> None:
    quantizer = DynamicQuantizer("INT8").eval()
    quantizer(torch.ones(1, 1, 1), None)
    assert quantizer.range_scale.item() == 0


def test_a_range_cannot_be_frozen_without_data_or_per_token() -> None:
    with pytest.raises(RuntimeError, match="at least one training batch"):
        DynamicQuantizer("INT8").freeze()
    with pytest.raises(RuntimeError, match="no single scale"):
        DynamicQuantizer("INT8", "token").freeze()


def test_with_frozen_ranges_a_sample_no_longer_depends_on_its_batch() -> None:
    student = prepare(tiny("vit"), load_recipe("kd_w2a8"))
    batch = batch_of("vit")
    student.train()
    student(**batch)
    alone = {"pixel_values": batch["pixel_values"][:1]}
    student.eval()
    with torch.no_grad():
        assert not torch.equal(student(**alone).logits, student(**batch).logits[:1])
        assert not ranges_frozen(student)
        freeze_ranges(student)
        assert ranges_frozen(student)
        torch.testing.assert_close(student(**alone).logits, student(**batch).logits[:1])
    assert len(list(dynamic(student))) == 2 * (6 + 4)


def test_a_learned_weight_step_starts_where_lsq_says_and_learns_at_its_rate() -> None:
    weight = torch.tensor([[-2.0, -1.0, 0.0], [1.0, 2.0, 6.0]], requires_grad=True)
    quantizer = LearnedWeightQuantizer.from_weight("INT4", weight)
    # 2 mean|w| / sqrt(qmax) = 2 * 2 / sqrt(7)
    assert quantizer.alpha.item() == pytest.approx(4 / 7**0.5)
    assert bool(quantizer.initialised)
    with torch.no_grad():
        quantizer.alpha.fill_(0.75)
    codes, scale = quantizer(weight)
    assert codes.tolist() == [[-3.0, -1.0, 0.0], [1.0, 3.0, 7.0]]
    assert scale is quantizer.alpha
    codes.backward(torch.ones_like(codes))
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]  # 6 / 0.75 = 8 is outside
    # code - w / alpha inside, qmax outside, over sqrt(6 weights * 7)
    terms = (-3 + 2 / 0.75) + (-1 + 1 / 0.75) + 0 + (1 - 1 / 0.75) + (3 - 2 / 0.75) + 7
    assert quantizer.alpha.grad is not None
    assert quantizer.alpha.grad.item() == pytest.approx(terms / 42**0.5)


def test_data_leave_a_weight_step_where_it_was() -> None:
    student = prepare(tiny("bert"), load_recipe("lsq_w4a4"))
    steps = {
        n: m.alpha.clone() for n, m in learned(student) if isinstance(m, LearnedWeightQuantizer)
    }
    assert len(steps) > 6
    initialise(student, [batch_of("bert")])
    modules = dict(learned(student))
    assert all(torch.equal(modules[n].alpha, alpha) for n, alpha in steps.items())
    assert all(bool(m.floor > 0) for m in modules.values())
