"""Rows that an update can be split in, recipes with every term of the loss, and how far gradients are apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tiny_models import tiny
from torch import Tensor, nn

from qat.objective import Objective
from qat.quantizers.lifecycle import initialise
from qat.recipe import Recipe, load_recipe
from qat.student import prepare

LENGTHS = (12, 3, 9, 2, 12, 5, 2, 4, *(7, 2, 11, 3, 12, 4, 8, 2) * 3)
"""Real tokens of the 32 rows: every other row is long, so that shares of equally many rows hold unequal amounts."""
LEARNED = [f"quantization.roles.{role}.input.range=learned" for role in ("classifier", "patch")]
TERMS = ["objective.scores.weight=0.5", "objective.output.on=ao", "objective.labels.weight=0.1"]
PER_TOKEN = [
    "quantization.linear.input.granularity=token",
    "quantization.roles.pooler.input.granularity=token",
    *(f"quantization.attention.{name}=null" for name in ("query", "key", "value", "probabilities")),
]


def recipe_of(kind: str) -> Recipe:
    if kind == "learned":
        return load_recipe("bit_w1a1", [*LEARNED, *TERMS, "objective.logits.reduction=sum"])
    if kind == "per_token":
        return load_recipe("ti_g_w2a8", [*PER_TOKEN, *TERMS])
    return load_recipe("ti_g_w2a8", TERMS)


def rows_of(family: str, rows: Sequence[int]) -> dict[str, Tensor]:
    """Some of the 32 rows as a batch, padded to their longest."""
    ids = torch.randint(1, 40, (len(LENGTHS), 12), generator=torch.Generator().manual_seed(3))
    lengths = torch.tensor(LENGTHS)[list(rows)]
    longest = int(lengths.max())
    mask = (torch.arange(longest) < lengths[:, None]).long()
    batch = {"input_ids": ids[list(rows), :longest] * mask, "attention_mask": mask}
    if family == "gpt2":
        labels = torch.where(mask.bool(), batch["input_ids"], -100)
    else:
        labels = torch.tensor(list(rows)) % 3
    return batch | {"labels": labels}


def objective_of(family: str, recipe: Recipe) -> Objective:
    student = prepare(tiny(family, 2), recipe)
    initialise(student, [rows_of(family, range(8))])
    return Objective(student.train(), prepare(tiny(family, 1)), recipe, 100)


def gradients(student: nn.Module) -> dict[str, Tensor]:
    """Gradients of the parameters that have one."""
    named = student.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The largest norm of a parameter's difference, relative to its gradient's norm or the largest one's 1e-3."""
    assert a.keys() == b.keys()
    floor = 1e-3 * max(float(g.norm()) for g in a.values())
    return max(float((a[n] - b[n]).norm()) / max(float(a[n].norm()), floor) for n in a)
