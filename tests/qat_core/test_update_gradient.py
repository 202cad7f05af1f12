"""1 x 32 rows, 4 x 8 rows and two processes x 16 rows have one loss and one gradient, parameter by parameter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from apart import together
from split_updates import LENGTHS, gradients, largest_difference, objective_of, recipe_of, rows_of
from tiny_runs import digits_run
from torch import Tensor

from qat.gradient import UpdateGradient
from qat.step import Extent, Portion

Update = tuple[float, dict[str, Tensor]]
ROWS = len(LENGTHS)
CASES = {
    "ti_intervention": ("per_token", 0),
    "ti_distillation": ("per_token", 50),
    "bit": ("learned", 50),
    "ranges_per_tensor": ("dynamic", 50),
}
"""Recipe and step."""


class Sentences:
    """The rows as a training set."""

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        return rows_of("bert", rows)


def update(case: str, batch_size: int) -> Update:
    """Loss and gradient of one update on all rows, in micro-batches, in all processes of this one's group."""
    kind, step = CASES[case]
    objective = objective_of("bert", recipe_of(kind))
    config = digits_run(train={"batch_size": batch_size})  # its task is not read
    gradient = UpdateGradient(objective, Sentences(), config, Accelerator(cpu=True))
    return gradient(step, np.arange(ROWS))["loss"], gradients(objective.student)


def mean_of_means(own: Extent, whole: Extent) -> Portion:
    """The wrong weights: every process believes to hold half of the update."""
    return Portion(own, Extent(*(2 * n for n in own)))


def share(folder: Path) -> None:
    """What one of two processes has in the end, case by case."""
    found = {case: update(case, ROWS) for case in CASES}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("qat.gradient.Portion", mean_of_means)
        found["mean_of_means"] = update("ti_distillation", ROWS)
    torch.save(found, folder / f"{torch.distributed.get_rank()}.pt")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Update], ...]:
    """Updates by case, of either of two processes with 16 rows."""
    folder = tmp_path_factory.mktemp("shared")
    together(share, 2, folder)
    return tuple(torch.load(folder / f"{rank}.pt") for rank in (0, 1))


@pytest.mark.parametrize("case", [case for case in CASES if case != "ranges_per_tensor"])
def test_every_split_has_the_gradient_of_one_batch(
    case: str, shared: tuple[dict[str, Update], ...]
) -> None:
    loss, whole = update(case, ROWS)
    assert all(bool(g.any()) for name, g in whole.items() if name.endswith("alpha"))
    for split_loss, split in (update(case, ROWS // 4), *(found[case] for found in shared)):
        assert split_loss == pytest.approx(loss, rel=1e-5)
        assert largest_difference(whole, split) < 1e-5
    assert all(torch.equal(g, shared[1][case][1][name]) for name, g in shared[0][case][1].items())


def test_the_mean_of_two_processes_means_is_another_gradient(
    shared: tuple[dict[str, Update], ...],
) -> None:
    loss, whole = update("ti_distillation", ROWS)
    wrong_loss, wrong = shared[0]["mean_of_means"]
    assert wrong_loss != pytest.approx(loss, rel=1e-3)
    assert largest_difference(whole, wrong) > 1e-2


def test_processes_share_a_range_per_tensor_and_micro_batches_cannot(
    shared: tuple[dict[str, Update], ...],
) -> None:
    case = "ranges_per_tensor"
    assert recipe_of(CASES[case][0]).batch_dependent
    loss, whole = update(case, ROWS)
    assert shared[0][case][0] == pytest.approx(loss, rel=1e-5)
    assert largest_difference(whole, shared[0][case][1]) < 1e-5
    assert largest_difference(whole, update(case, ROWS // 4)[1]) > 1e-4
