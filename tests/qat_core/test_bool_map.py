"""Attention without a softmax: its bits, its gradient, its masks, and the loss that trains it."""

import pytest
import torch
from pydantic import ValidationError
from tiny_models import FAMILIES, batch_of, tiny

from hwsim.errors import ConfigError
from qat import ops
from qat.attention import AttentionOperands
from qat.methods.distillation import similarity_loss
from qat.quantizers.activation import SignQuantizer
from qat.quantizers.lifecycle import initialise
from qat.recipe import Recipe, load_recipe
from qat.student import prepare


def test_a_bit_is_one_above_zero_only_and_the_gradient_passes_within_one() -> None:
    scores = torch.tensor([[[[-0.0, 0.0, 1e-9, -1.0], [1.0, 1.5, -1.5, 0.5]]]], requires_grad=True)
    bits = ops.bool_map(scores, None, False)
    assert bits.tolist() == [[[[0, 0, 1, 0], [1, 1, 0, 1]]]]
    bits.backward(torch.arange(1.0, 9.0).view(1, 1, 2, 4))
    assert scores.grad is not None
    assert scores.grad.tolist() == [[[[1, 2, 3, 4], [5, 0, 0, 8]]]]


def test_masked_entries_are_zero_and_get_no_gradient() -> None:
    scores = torch.full((2, 1, 3, 3), 0.5, requires_grad=True)
    valid = torch.tensor([[True, True, True], [True, True, False]])
    bits = ops.bool_map(scores, valid, True)
    below = [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert bits[0, 0].tolist() == below
    assert bits[1, 0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0]]
    bits.sum().backward()
    assert scores.grad is not None
    assert torch.equal(scores.grad, bits)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_students_maps_are_bits_and_a_teachers_are_not(family: str) -> None:
    model, batch = tiny(family), batch_of(family)
    teacher, student = prepare(model), prepare(model, load_recipe("bibert_w1a1"))
    initialise(student, [batch])
    seen = []
    for prepared in (teacher, student):
        with prepared.step.record() as record, torch.no_grad():
            prepared.eval()(**batch)
        seen.append(torch.cat([m.flatten() for m in record.maps]).unique().tolist())
    assert seen[1] == [0.0, 1.0]
    assert len(seen[0]) > 2
    operands = [m for m in student.modules() if isinstance(m, AttentionOperands)]
    assert all(m.bool_map and m.probabilities is None for m in operands)


def test_signs_have_scale_one_and_pass_gradients_within_one() -> None:
    x = torch.tensor([[-3.0, -0.5, 0.0, 0.5, 1.0, 1.1]], requires_grad=True)
    codes, scale = SignQuantizer()(x, None)
    assert codes.tolist() == [[-1, -1, 1, 1, 1, 1]]
    assert scale.tolist() == [1.0]
    codes.backward(torch.ones_like(codes))
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 1, 1, 1, 1, 0]]


def test_row_centred_weights_by_hand() -> None:
    weight = torch.tensor([[0.0, 2.0, 4.0], [5.0, 5.0, 8.0]])
    codes, scale = ops.quantize_weight(weight, "BIPOLAR", "bwn_row_centred", "row", 0.7, 0.0)
    assert codes.tolist() == [[-1, 1, 1], [-1, -1, 1]]  # rows centred: -2 0 2 and -1 -1 2
    assert scale.tolist() == pytest.approx([4 / 3, 4 / 3])
    (_, whole) = ops.quantize_weight(weight, "BIPOLAR", "bwn_row_centred", "tensor", 0.7, 0.0)
    assert whole.tolist() == pytest.approx([4 / 3])


def test_similarity_by_hand_ignores_size_and_padding() -> None:
    student = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])  # X X^T is the identity: norm sqrt(2)
    teacher = torch.tensor([[[[3.0, 0.0], [3.0, 0.0]]]])  # 9 everywhere: 1/2 after division by 18
    a, b = 2**-0.5, 0.5
    want = 2 * (a - b) ** 2 + 2 * b**2
    assert similarity_loss([student], [teacher], None).item() == pytest.approx(want)
    twice = similarity_loss([student, 5 * student], [teacher, teacher], None)
    assert twice.item() == pytest.approx(2 * want)
    padded = torch.cat([student, torch.full((1, 1, 1, 2), 7.0)], dim=2)
    other = torch.cat([teacher, torch.full((1, 1, 1, 2), -9.0)], dim=2)
    valid = torch.tensor([[True, True, False]])
    assert similarity_loss([padded], [other], valid).item() == pytest.approx(want)


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("quantization.attention.probabilities={format: UNIPOLAR, range: learned}", "probabilities must be null where map is 'bool'"),
        ("quantization.attention.query={format: INT8, range: unit}", "range 'unit' must have format BIPOLAR"),
        ("method={name: teacher_intervention, fraction: 0.2}", "must have attention.map 'softmax', not 'bool'"),
    ],
)  # fmt: skip
def test_what_cannot_go_with_a_bool_map_is_refused(override: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        load_recipe("bibert_w1a1", [override])


def test_an_override_cannot_quantise_the_bits_again() -> None:
    values = load_recipe("bibert_w1a1").model_dump(mode="json", by_alias=True)
    values["quantization"]["overrides"] = [
        {"modules": "*", "probabilities": {"format": "UINT8", "range": "dynamic"}}
    ]
    with pytest.raises(
        ValidationError, match=r"must give no probabilities where attention\.map is"
    ):
        Recipe.model_validate(values)
