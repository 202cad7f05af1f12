"""Gradients of the custom operators against formulas worked out by hand, not against autograd of rounding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from qat import ops


def _static(
    x: Tensor,
    alpha: float,
    g: Tensor,
    fmt: str,
    rounding: str = "half_up",
    shift: Tensor | None = None,
    valid: Tensor | None = None,
    count: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of sum(g * alpha * codes) with respect to x, alpha and shift."""
    x = x.clone().requires_grad_()
    a = torch.tensor([alpha], requires_grad=True)
    s = None if shift is None else shift.clone().requires_grad_()
    # A codes tensor takes the gradient of the value, so g itself goes into backward.
    ops.quantize_static(x, a, s, valid, fmt, rounding, count).backward(g)
    assert x.grad is not None
    assert a.grad is not None
    return x.grad, a.grad, None if s is None else s.grad


@pytest.mark.parametrize(
    ("rounding", "terms"),
    [("half_up", [0, -0.3, 0.5, 0.3, 1]), ("half_even", [0, -0.3, -0.5, 0.3, 1])],
)
def test_elastic_unsigned(rounding: str, terms: list[float]) -> None:
    x = torch.tensor([-0.2, 0.3, 0.5, 0.7, 1.4])
    g_x, g_alpha, _ = _static(x, 1.0, torch.ones(5), "UNIPOLAR", rounding)
    assert g_x.tolist() == [0, 1, 1, 1, 0]
    assert g_alpha.item() == pytest.approx(sum(terms) / math.sqrt(5))
    for i, term in enumerate(terms):
        _, one, _ = _static(x, 1.0, torch.eye(5)[i], "UNIPOLAR", rounding)
        assert one.item() == pytest.approx(term / math.sqrt(5), abs=1e-6)


def test_elastic_unsigned_at_its_limits_passes_the_gradient() -> None:
    g_x, _, _ = _static(torch.tensor([0.0, 1.0]), 1.0, torch.ones(2), "UNIPOLAR")
    assert g_x.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("g", "sum_of_signed"), [([1.0, 1, 1, 1], 2.0), ([1.0, -2, 3, 0.5], -1 - 2 + 3 + 0.5)]
)
def test_elastic_signed(g: list[float], sum_of_signed: float) -> None:
    x = torch.tensor([-1.0, 0.2, 0.4, 2.0])
    g_x, g_alpha, _ = _static(x, 0.5, torch.tensor(g), "BIPOLAR")
    assert g_x.tolist() == [0, g[1], g[2], 0]
    assert g_alpha.item() == pytest.approx(sum_of_signed / math.sqrt(4))


def test_shift_moves_the_threshold_and_sums_over_tokens_per_channel() -> None:
    x = torch.tensor([[[-0.3, 0.2], [0.9, -0.1], [0.1, 0.1]]])
    g = torch.tensor([[[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]]])
    shift = torch.tensor([0.4, -0.2])
    # x + b: [[.1, 0], [1.3, -.3], [.5, -.1]]; inside +-0.5: all but 1.3
    g_x, g_alpha, g_shift = _static(x, 0.5, g, "BIPOLAR", shift=shift)
    assert g_x.tolist() == [[[1, 2], [0, 8], [16, 32]]]
    assert g_shift is not None
    assert g_shift.tolist() == [17, 42]
    assert g_alpha.item() == pytest.approx((1 + 2 + 4 - 8 + 16 - 32) / math.sqrt(6))


def test_lsq_signed_three_bits() -> None:
    x = torch.tensor([-9.0, -1.2, 0.7, 9.0])
    g_x, g_alpha, _ = _static(x, 0.5, torch.ones(4), "INT3")
    # u = -18, -2.4, 1.4, 18; limits -4 and 3; rho = -4, -2 + 2.4, 1 - 1.4, 3
    assert g_x.tolist() == [0, 1, 1, 0]
    assert g_alpha.item() == pytest.approx((-4 + 0.4 - 0.4 + 3) / math.sqrt(4 * 3), rel=1e-5)


def test_padded_positions_count_neither_in_kappa_nor_in_the_gradient_of_alpha() -> None:
    x = torch.tensor([[[-1.0, 0.2], [5.0, 5.0]]])
    g = torch.ones(1, 2, 2)
    valid = torch.tensor([[True, False]])
    short = _static(x[:, :1], 0.5, g[:, :1], "BIPOLAR")
    padded = _static(x, 0.5, g, "BIPOLAR", valid=valid)
    assert padded[1].item() == pytest.approx(short[1].item())


def test_a_given_count_replaces_the_number_of_elements() -> None:
    x = torch.tensor([0.2, 0.4])
    _, g_alpha, _ = _static(x, 0.5, torch.ones(2), "BIPOLAR", count=16.0)
    assert g_alpha.item() == pytest.approx(2 / 4)


def test_weight_gradient_is_straight_through_inside_the_clip() -> None:
    w = torch.tensor([[-3.0, -1.0, 2.5, 2.4]], requires_grad=True)
    codes, _ = ops.quantize_weight(w, "TERNARY", "twn", "tensor", 0.7, 2.5)
    codes.backward(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert w.grad is not None
    assert w.grad.tolist() == [[0, 2, 0, 4]]


def test_dynamic_gradient_is_zero_outside_the_clip_and_below_an_unsigned_range() -> None:
    x = torch.tensor([[[-3.0, -1.0, 2.5, 2.0]]], requires_grad=True)
    ops.quantize_dynamic(x, None, "INT8", "tensor", 2.5, "half_up")[0].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[0, 1, 0, 1]]]
    x.grad = None
    ops.quantize_dynamic(x, None, "UINT8", "tensor", 0.0, "half_up")[0].sum().backward()
    assert x.grad.tolist() == [[[0, 0, 1, 1]]]


def test_linear_hands_back_the_gradient_of_the_values_and_none_to_scales() -> None:
    torch.manual_seed(0)
    a = torch.randint(-3, 4, (2, 3, 5)).float().requires_grad_()
    w = torch.randint(-1, 2, (4, 5)).float().requires_grad_()
    a_scale = torch.tensor([0.5], requires_grad=True)
    w_scale = torch.rand(4).requires_grad_()
    bias = torch.randn(4, requires_grad=True)
    g = torch.randn(2, 3, 4)
    ops.linear(a, a_scale, w, w_scale, bias).backward(g)

    a_value = (a * a_scale).detach().requires_grad_()
    w_value = (w * w_scale[:, None]).detach().requires_grad_()
    b = bias.detach().clone().requires_grad_()
    torch.nn.functional.linear(a_value, w_value, b).backward(g)
    torch.testing.assert_close(a.grad, a_value.grad)
    torch.testing.assert_close(w.grad, w_value.grad)
    torch.testing.assert_close(bias.grad, b.grad)
    assert a_scale.grad is None
    assert w_scale.grad is None


def test_linear_with_a_scale_per_token() -> None:
    a = torch.randint(-3, 4, (2, 3, 5)).float().requires_grad_()
    w = torch.randn(4, 5, requires_grad=True)
    a_scale = torch.rand(2, 3, 1)
    g = torch.randn(2, 3, 4)
    ops.linear(a, a_scale, w, torch.ones(1), None).backward(g)
    a_value = (a * a_scale).detach().requires_grad_()
    w_value = w.detach().clone().requires_grad_()
    (a_value @ w_value.t()).backward(g)
    torch.testing.assert_close(a.grad, a_value.grad)
    torch.testing.assert_close(w.grad, w_value.grad)


@pytest.mark.parametrize("transpose", [True, False])
def test_matmul_gradient(transpose: bool) -> None:
    torch.manual_seed(1)
    a = torch.randn(2, 2, 3, 4, requires_grad=True)
    b = torch.randn(2, 2, *((5, 4) if transpose else (4, 5)), requires_grad=True)
    s, t = torch.tensor([0.5]), torch.tensor([0.25])
    g = torch.randn(2, 2, 3, 5)
    ops.matmul(a, s, b, t, transpose, 2.0).backward(g)
    av = (a * s).detach().requires_grad_()
    bv = (b * t).detach().requires_grad_()
    (av @ (bv.transpose(-1, -2) if transpose else bv) * 2.0).backward(g)
    torch.testing.assert_close(a.grad, av.grad)
    torch.testing.assert_close(b.grad, bv.grad)


def test_embedding_gradient_adds_up_repeated_ids() -> None:
    w = torch.ones(3, 2, requires_grad=True)
    ops.embedding(torch.tensor([[2, 0, 2]]), w, torch.ones(3)).backward(
        torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    )
    assert w.grad is not None
    assert w.grad.tolist() == [[3, 4], [0, 0], [6, 8]]


def test_softmax_gradient_matches_pytorch_on_the_unmasked_part() -> None:
    torch.manual_seed(2)
    scores = torch.randn(2, 1, 3, 4, requires_grad=True)
    valid = torch.tensor([[True, True, True, False], [True, True, False, False]])
    g = torch.randn(2, 1, 3, 4)
    ops.softmax(scores, valid, False).backward(g)
    assert scores.grad is not None
    for b, n in ((0, 3), (1, 2)):
        part = scores.detach()[b, :, :, :n].requires_grad_()
        torch.softmax(part, -1).backward(g[b, :, :, :n])
        torch.testing.assert_close(scores.grad[b, :, :, :n], part.grad)
        assert not scores.grad[b, :, :, n:].any()


@pytest.mark.parametrize("fmt", ["BIPOLAR", "UNIPOLAR", "INT8"])
def test_operators_pass_pytorchs_own_checks(fmt: str) -> None:
    x = torch.randn(1, 2, 3, requires_grad=True)
    arguments = (x, torch.ones(1, requires_grad=True), None, None, fmt, "half_up", 0.0)
    torch.library.opcheck(
        torch.ops.bitwright.quantize_static.default,
        arguments,
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )
