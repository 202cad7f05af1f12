"""Students behind channel scales on tiny models."""

from __future__ import annotations

import torch
from tiny_models import batch_of, tiny
from torch import Tensor, nn
from transformers import PreTrainedModel

from qat.modules.norm import ChannelScale
from qat.quantizers.lifecycle import freeze_ranges, initialise
from qat.recipe import Recipe, load_recipe
from qat.student import prepare

PRE_LN = ("gpt2", "vit")
RECIPE = load_recipe("quadapter_w8a8")
UNSCALED = RECIPE.model_copy(update={"method": None})


def random_scales(model: nn.Module) -> None:
    """Put every channel scale somewhere between a fifth and five times."""
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, ChannelScale):
            values = torch.rand(module.log_scale.shape, generator=generator)
            module.log_scale.data.copy_(3.2 * values - 1.6)


def static_student(family: str, recipe: Recipe = RECIPE, layers: int = 2) -> PreTrainedModel:
    """A student with random channel scales whose every range is a constant."""
    student = prepare(tiny(family, layers=layers), recipe)
    random_scales(student)
    initialise(student, [batch_of(family)])
    student.train()(**batch_of(family))
    freeze_ranges(student)
    return student.eval()


def logits(model: PreTrainedModel, family: str) -> Tensor:
    """Logits [.., C] at the real positions."""
    batch = batch_of(family)
    with torch.no_grad():
        values = model.eval()(**batch).logits
    return values[batch["attention_mask"].bool()] if family == "gpt2" else values
