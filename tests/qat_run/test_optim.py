import numpy as np
import pytest
import torch
from torch import nn

from qat.optim import (
    BertAdam,
    learning_rate_factor,
    make_optimizer,
    parameter_groups,
    set_learning_rate,
)
from qat.recipe import OptimizerSpec


def bert_adam_by_hand(
    p: np.ndarray, gradients: list[np.ndarray], rates: list[float], decay: float
) -> np.ndarray:
    """Follow the formula of the docstring in float64."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for g, lr in zip(gradients, rates, strict=True):
        g = g * min(1.0, 1.0 / (np.linalg.norm(g) + 1e-6))  # noqa: PLW2901
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        p = p - lr * (m / (np.sqrt(v) + 1e-6) + decay * p)
    return p


def test_bert_adam_follows_its_formula() -> None:
    rng = np.random.default_rng(0)
    start = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=5)}
    scales = {
        "a": 10.0,
        "b": 0.01,
    }  # one is clipped, the other is not: the clip is a parameter's own
    gradients = {
        k: [scales[k] * rng.normal(size=v.shape) for _ in range(6)] for k, v in start.items()
    }
    rates = [0.1 * (i + 1) for i in range(6)]
    parameters = {k: nn.Parameter(torch.tensor(v)) for k, v in start.items()}
    groups = [{"params": [p], "base_lr": 1.0} for p in parameters.values()]
    optimizer = BertAdam(groups, lr=1.0, weight_decay=0.01)
    for i, rate in enumerate(rates):
        for k, p in parameters.items():
            p.grad = torch.tensor(gradients[k][i])
        set_learning_rate(optimizer, rate)
        optimizer.step()
    for k, p in parameters.items():
        expected = bert_adam_by_hand(start[k], gradients[k], rates, 0.01)
        np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-9)


def test_the_first_step_of_bert_adam_is_longer_than_adams() -> None:
    moved = {}
    for name in ("bert_adam", "adamw"):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        optimizer = make_optimizer(model, OptimizerSpec(name=name, learning_rate=1e-3))  # type: ignore[arg-type]
        model.weight.grad = torch.full((1, 1), 0.5)
        optimizer.step()
        moved[name] = abs(model.weight.item())
    assert moved["bert_adam"] / moved["adamw"] == pytest.approx(0.1 / 0.001**0.5, rel=1e-3)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.alpha = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1, 1, 3))
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)


def test_scales_have_their_own_rate_and_only_weights_decay() -> None:
    model = Toy()
    spec = OptimizerSpec(
        name="adamw", learning_rate=1e-2, weight_decay=0.1, alpha_learning_rate=1e-4
    )
    groups = {g["role"]: g for g in parameter_groups(model, spec)}
    names = {id(p): n for n, p in model.named_parameters()}
    held = {role: {names[id(p)] for p in g["params"]} for role, g in groups.items()}
    assert held == {
        "weight": {"linear.weight"},
        "no_decay": {"linear.bias", "norm.weight", "norm.bias", "shift"},
        "alpha": {"alpha"},
    }
    assert {role: g["weight_decay"] for role, g in groups.items()} == {
        "weight": 0.1,
        "no_decay": 0.0,
        "alpha": 0.0,
    }
    assert groups["alpha"]["base_lr"] == 1e-4
    optimizer = make_optimizer(model, spec)
    set_learning_rate(optimizer, 0.5)
    assert {g["role"]: g["lr"] for g in optimizer.param_groups} == {
        "weight": 5e-3,
        "no_decay": 5e-3,
        "alpha": 5e-5,
    }


def test_the_rate_rises_and_falls_linearly_and_is_never_zero() -> None:
    factors = [learning_rate_factor(step, 20, 0.2) for step in range(20)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[5:] == pytest.approx([1 - i / 16 for i in range(1, 16)])
    assert learning_rate_factor(0, 10, 0.0) == 1.0
