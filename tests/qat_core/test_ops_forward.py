"""Forward values of the custom operators against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.graph.ops import STUDENT_OPS
from qat import ops

W = torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]])


def test_every_operator_of_the_vocabulary_is_registered_with_its_schema() -> None:
    for name, schema in STUDENT_OPS.items():
        registered = getattr(torch.ops.bitwright, name).default._schema
        wanted = torch._C.parse_schema(f"bitwright::{name}{schema}")
        assert [a.name for a in registered.arguments] == [a.name for a in wanted.arguments]
        assert [str(a.type) for a in registered.arguments] == [
            str(a.type) for a in wanted.arguments
        ]


def test_twn_by_hand() -> None:
    # mean|w| = 1.2, threshold 0.84, |w| above it: 2, 1, 1, 2 -> alpha 1.5
    codes, scale = ops.quantize_weight(W, "TERNARY", "twn", "tensor", 0.7, 0.0)
    assert codes.tolist() == [[-1, -1, 0, 1, 1]]
    assert scale.tolist() == [1.5]


def test_bwn_by_hand_with_the_sign_of_zero() -> None:
    codes, scale = ops.quantize_weight(W, "BIPOLAR", "bwn", "tensor", 0.7, 0.0)
    assert codes.tolist() == [[-1, -1, 1, 1, 1]]
    assert scale.tolist() == pytest.approx([1.2])


def test_centred_bwn_subtracts_the_mean_of_the_whole_tensor_even_per_row() -> None:
    w = torch.tensor([[1.0, 3.0], [-5.0, -3.0]])  # mean -1
    codes, scale = ops.quantize_weight(w, "BIPOLAR", "bwn_centred", "row", 0.7, 0.0)
    assert codes.tolist() == [[1, 1], [-1, -1]]
    assert scale.tolist() == [2.0, 4.0]
    codes, _ = ops.quantize_weight(w + 2.5, "BIPOLAR", "bwn_centred", "row", 0.7, 0.0)
    assert codes.tolist() == [[1, 1], [-1, -1]]


def test_rows_get_their_own_threshold_and_an_empty_row_a_positive_scale() -> None:
    w = torch.tensor([[0.1, -0.1, 0.0, 0.2], [0.0, 0.0, 0.0, 0.0], [4.0, 1.0, -4.0, 1.0]])
    codes, scale = ops.quantize_weight(w, "TERNARY", "twn", "row", 0.7, 0.0)
    assert codes.tolist() == [[1, -1, 0, 1], [0, 0, 0, 0], [1, 0, -1, 0]]
    torch.testing.assert_close(scale, torch.tensor([0.4 / 3, ops.SMALLEST_SCALE, 4.0]))


def test_absmax_by_hand_and_clip() -> None:
    codes, scale = ops.quantize_weight(W * 2, "INT8", "absmax", "tensor", 0.7, 2.5)
    # clipped to +-2.5: 2 -> 2 / (2.5/127) = 101.6 -> 102
    assert codes.tolist() == [[-127, -102, 0, 102, 127]]
    assert scale.item() == pytest.approx(2.5 / 127)


@pytest.mark.parametrize(
    ("rounding", "expected"), [("half_up", [0, 0, 1, 1, 1]), ("half_even", [0, 0, 0, 1, 1])]
)
def test_elastic_unsigned_by_hand(rounding: str, expected: list[int]) -> None:
    x = torch.tensor([-0.2, 0.3, 0.5, 0.7, 1.4])
    codes = ops.quantize_static(x, torch.ones(1), None, None, "UNIPOLAR", rounding, 0.0)
    assert codes.tolist() == expected


def test_elastic_signed_maps_both_zeros_to_plus_one() -> None:
    x = torch.tensor([-1.0, -0.0, 0.0, 2.0])
    codes = ops.quantize_static(x, torch.tensor([0.5]), None, None, "BIPOLAR", "half_up", 0.0)
    assert codes.tolist() == [-1, 1, 1, 1]


def test_half_up_rounds_negative_ties_up() -> None:
    x = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5])
    codes = ops.quantize_static(x, torch.ones(1), None, None, "INT4", "half_up", 0.0)
    assert codes.tolist() == [-1, 0, 1, 2, 3]


def test_dynamic_range_ignores_padded_positions() -> None:
    x = torch.tensor([[[1.0, -2.0], [100.0, 0.0]]])
    valid = torch.tensor([[True, False]])
    codes, scale = ops.quantize_dynamic(x, valid, "INT8", "tensor", 0.0, "half_up")
    assert scale.item() == pytest.approx(2 / 127)
    assert codes.tolist() == [[[64, -127], [127, 0]]]  # 63.5 rounds up; what is padded saturates


def test_dynamic_range_per_token() -> None:
    x = torch.tensor([[[1.0, -2.0], [100.0, 0.0]]])
    codes, scale = ops.quantize_dynamic(x, None, "INT8", "token", 0.0, "half_up")
    assert scale.shape == (1, 2, 1)
    torch.testing.assert_close(scale.flatten(), torch.tensor([2 / 127, 100 / 127]))
    assert codes.tolist() == [[[64, -127], [127, 0]]]


def test_an_all_zero_tensor_has_a_positive_scale() -> None:
    codes, scale = ops.quantize_dynamic(
        torch.zeros(1, 2, 3), None, "UINT8", "tensor", 0.0, "half_up"
    )
    assert scale.item() == ops.SMALLEST_SCALE
    assert not codes.any()


def test_softmax_masks_padding_and_future_and_empties_rows() -> None:
    scores = torch.zeros(1, 1, 3, 3)
    valid = torch.tensor([[False, True, True]])  # left padding: row 0 sees nothing
    p = ops.softmax(scores, valid, True)
    assert p[0, 0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 0.5, 0.5]]


def test_softmax_agrees_with_pytorch_where_nothing_is_masked() -> None:
    scores = torch.randn(2, 2, 3, 5)
    assert torch.equal(ops.softmax(scores, None, False), torch.softmax(scores, -1))


@settings(derandomize=True, deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 600))
def test_contractions_multiply_codes_before_scaling(seed: int, k: int) -> None:
    # With dequantised operands float sums round; integer sums do not, so the result is exact.
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(-128, 128, (1, 3, k), generator=generator)
    w = torch.randint(-1, 2, (4, k), generator=generator)
    scale, w_scale = torch.rand(1, generator=generator), torch.rand(4, generator=generator)
    y = ops.linear(a.float(), scale, w.float(), w_scale, None)
    assert torch.equal(y, (a @ w.t()).float() * (scale * w_scale))
    p = ops.matmul(a.float()[None], scale, w.float()[None, None], w_scale[:1], True, 0.25)
    assert torch.equal(p[0], (a @ w.t()).float() * (scale * w_scale[:1] * 0.25))


def test_embedding_scales_by_row() -> None:
    table = torch.tensor([[1.0, -1.0], [0.0, 1.0]])
    y = ops.embedding(torch.tensor([[1, 0]]), table, torch.tensor([2.0, 3.0]))
    assert y.tolist() == [[[0, 3], [2, -2]]]


def test_wrong_names_are_refused() -> None:
    with pytest.raises(
        ValueError, match="twn, bwn, bwn_centred, bwn_row_centred, absmax, not 'median'"
    ):
        ops.quantize_weight(W, "TERNARY", "median", "tensor", 0.7, 0.0)
    with pytest.raises(ValueError, match="half_up or half_even, not 'down'"):
        ops.quantize_static(W, torch.ones(1), None, None, "INT4", "down", 0.0)
    with pytest.raises(ValueError, match=r"needs \[B, T, C\]"):
        ops.quantize_dynamic(
            W, torch.ones(1, 5, dtype=torch.bool), "INT8", "tensor", 0.0, "half_up"
        )
