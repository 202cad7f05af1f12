"""The fused passes on a CPU against the operators' PyTorch code: equal elements, whatever the shape and the layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qat import ops
from qat.ops import cpu
from qat.ops.quantize import WEIGHT_METHODS

SHAPES = [(1, 1, 1), (1, 2, 15), (2, 3, 16), (3, 1, 17), (2, 40, 512)]
"""[B, T, C]: one element, around a vector's lanes, and more than one part"""


@contextmanager
def pytorch_code() -> Iterator[None]:
    with patch.object(cpu, "takes", return_value=False):
        yield


def values(shape: tuple[int, ...], seed: int, layout: str = "plain") -> Tensor:
    """Numbers of which many lie on a threshold, a limit or a tie."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=rng)
    grid = torch.randint(-12, 13, shape, generator=rng) / 4
    x = torch.where(torch.rand(shape, generator=rng) < 0.5, grid, x)
    if (
        layout == "heads"
    ):  # [B, H, T, D] as a projection leaves it: heads behind positions in memory
        return x.reshape(shape[0], shape[1], 1, shape[2]).transpose(1, 2)
    return x if layout == "plain" else x.transpose(0, 2).contiguous().transpose(0, 2)


def positions(shape: tuple[int, ...]) -> Tensor:
    valid = torch.ones(shape[:2], dtype=torch.bool)
    valid[0, shape[1] // 2 :] = False
    return valid


def same(ours: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(ours, wanted, rtol=0, atol=0, equal_nan=True)


layouts = pytest.mark.parametrize("layout", ["plain", "heads", "turned"])


@layouts
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fmt", ["BIPOLAR", "UNIPOLAR", "INT4", "UINT8"])
def test_a_learned_step(fmt: str, shape: tuple[int, ...], layout: str) -> None:
    def run(rounding: str, shifted: bool, valid: Tensor | None) -> list[Tensor]:
        x = values(shape, 1, layout).requires_grad_()
        alpha = torch.tensor([0.5], requires_grad=True)
        shift = values((shape[-1],), 2).requires_grad_() if shifted else None
        codes = ops.quantize_static(x, alpha, shift, valid, fmt, rounding, 0.0)
        codes.backward(values(tuple(codes.shape), 3))
        assert x.grad is not None
        assert alpha.grad is not None
        found = [codes.detach(), x.grad, alpha.grad]
        return found if shift is None or shift.grad is None else [*found, shift.grad]

    for rounding in ("half_up", "half_even"):
        for shifted in (False, True):
            for valid in (None, positions(shape)):
                ours = run(rounding, shifted, valid)
                with pytorch_code():
                    wanted = run(rounding, shifted, valid)
                assert len(ours) == 3 + shifted
                for a, b in zip(ours[:2], wanted[:2], strict=True):
                    same(a, b)
                for a, b in zip(
                    ours[2:], wanted[2:], strict=True
                ):  # sums: float64, in another order
                    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@layouts
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fmt", ["INT8", "UINT8", "INT2"])
@pytest.mark.parametrize("clip", [0.0, 1.25, 100.0])
def test_a_dynamic_range(fmt: str, shape: tuple[int, ...], layout: str, clip: float) -> None:
    def run(valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        x = values(shape, 4, layout).requires_grad_()
        codes, scale = ops.quantize_dynamic(x, valid, fmt, "tensor", clip, "half_up")
        codes.backward(values(tuple(codes.shape), 5))
        assert x.grad is not None
        return codes.detach(), scale.detach(), x.grad

    for valid in (None, positions(shape)):
        ours = run(valid)
        with pytorch_code():
            wanted = run(valid)
        for a, b in zip(ours, wanted, strict=True):
            same(a, b)


def test_a_range_over_pairs_of_positions() -> None:
    x = values((2, 3, 8), 6).reshape(2, 1, 3, 8).expand(2, 2, 3, 8).contiguous()
    mask = positions((2, 3))[:, None, :, None] & positions((2, 8))[:, None, None, :]
    ours = ops.largest_magnitude(x, mask, "INT8", 0.0)
    with pytorch_code():
        wanted = ops.largest_magnitude(x, mask, "INT8", 0.0)
    same(ours, wanted)
    assert ours < ops.largest_magnitude(torch.where(mask, x, 50.0), None, "INT8", 0.0)


@pytest.mark.parametrize("shape", [s[1:] for s in SHAPES])
@pytest.mark.parametrize("granularity", ["tensor", "row"])
@pytest.mark.parametrize("method", WEIGHT_METHODS)
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_weights(method: str, granularity: str, shape: tuple[int, ...], clip: float) -> None:
    def run() -> list[Tensor]:
        w = values(shape, 7).requires_grad_()
        fmt = {"twn": "TERNARY", "absmax": "INT4"}.get(method, "BIPOLAR")
        codes, scale = ops.quantize_weight(w, fmt, method, granularity, 0.7, clip)
        codes.backward(values(shape, 8))
        assert w.grad is not None
        return [codes.detach(), scale.detach(), w.grad]

    ours = run()
    with pytorch_code():
        wanted = run()
    for a, b in zip(ours, wanted, strict=True):
        same(a, b)


@layouts
@pytest.mark.parametrize("scale", [2.0**-3, 2.0**-9])  # the second one cuts values off
def test_a_grid(scale: float, layout: str) -> None:
    def run() -> list[Tensor]:
        x = values((2, 5, 33), 9, layout).requires_grad_()
        y = ops.snap(x, torch.tensor([scale]), "INT8")
        y.backward(values(tuple(y.shape), 10))
        assert x.grad is not None
        return [y.detach(), x.grad]

    ours = run()
    with pytorch_code():
        wanted = run()
    for a, b in zip(ours, wanted, strict=True):
        same(a, b)
    assert bool((ours[1] == 0).all()) is False


def test_a_squared_distance_and_its_gradient() -> None:
    teacher = values((2, 5, 33), 11)
    for mask in (None, positions((2, 5))[:, :, None], values((2, 5, 33), 12) > 0):

        def run(mask: Tensor | None = mask) -> list[Tensor]:
            x = values((2, 5, 33), 13).requires_grad_()
            loss = ops.mean_square(x, teacher, mask)
            (3 * loss).backward()
            assert x.grad is not None
            return [loss.detach(), x.grad]

        ours = run()
        with pytorch_code():
            wanted = run()
        for a, b in zip(ours, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_what_is_not_a_number_stays_so() -> None:
    x = values((2, 3, 17), 14)
    x[1, 1, 3] = torch.nan
    codes, scale = ops.quantize_dynamic(x, None, "INT8", "tensor", 2.5, "half_up")
    assert scale.isnan()
    assert codes.isnan().all()
    static = ops.quantize_static(x, torch.ones(1), None, None, "INT8", "half_up", 0.0)
    assert static.isnan().sum() == 1


def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    def gradients() -> list[Tensor]:
        x, alpha = values((3, 40, 512), 15), torch.tensor([0.3], requires_grad=True)
        shift = values((512,), 16).requires_grad_()
        ops.quantize_static(x, alpha, shift, None, "INT4", "half_up", 0.0).sum().backward()
        assert alpha.grad is not None
        assert shift.grad is not None
        return [alpha.grad, shift.grad]

    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(gradients())
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(*found, strict=True):
        same(a, b)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    turn=st.randoms(use_true_random=False),
    seed=st.integers(0, 2**31),
)
def test_any_order_of_axes(shape: list[int], turn: object, seed: int) -> None:
    axes = list(range(len(shape)))
    turn.shuffle(axes)  # type: ignore[attr-defined]
    x = values(tuple(shape), seed).permute(axes)
    ours = ops.quantize_static(x, torch.tensor([0.5]), None, None, "INT3", "half_up", 0.0)
    with pytorch_code():
        wanted = ops.quantize_static(x, torch.tensor([0.5]), None, None, "INT3", "half_up", 0.0)
    same(ours, wanted)
    assert ours.stride() == wanted.stride() or x.numel() == 1 or 1 in x.shape
