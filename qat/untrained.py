"""The integer model of an architecture that nobody trained: for questions that depend on shapes and formats alone.

Weights are random, inputs are noise. What such a model costs on a machine is what the trained one costs, up to how many
thresholds a layer has; what it computes means nothing, and its samples have no labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hwsim.dataset import Rows
from hwsim.errors import ConfigError
from hwsim.graph.serialize import Model
from qat import checkpoint
from qat.build import FAMILIES, shaped_model
from qat.config import NewModel
from qat.exporter import export
from qat.quantizers.lifecycle import initialise
from qat.recipe import Recipe
from qat.roles import position_limit
from qat.student import prepare

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 2
"""Rows of noise that set the ranges and climb the rungs."""


def export_untrained(
    spec: NewModel, recipe: Recipe, out: Path | str, length: int | None = None, seed: int = 0
) -> Model:
    """Turn an architecture into an integer model in a recipe's formats; rungs A1 to A3 are measured as ever.

    Args:
        spec: family and configuration.
        recipe: its formats count, its training does not.
        out: folder of the export; an older export there is replaced.
        length: tokens that the graph is built for; the model's limit by default. Images have none.
        seed: of weights and noise.

    Raises:
        ConfigError: an unknown key, a length beyond the model's, or one for images.
        GraphError: the recipe quantises nothing, or the architecture has no exact integer form.
    """
    problem = next(iter(FAMILIES[spec.family].models))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = shaped_model(spec, problem)  # type: ignore[arg-type]  # a family's own problem
    rows = _noise(model, length, seed)
    student = prepare(model, recipe)
    batch = Rows(rows, checkpoint.input_names(student)).batch(np.arange(ROWS))
    initialise(student, [batch])
    return export(student, rows, out, max_length=length)


def _noise(model: PreTrainedModel, length: int | None, seed: int) -> list[dict[str, Any]]:
    """Return rows of inputs that the model takes: pixels, or as many tokens as it may have."""
    draw = np.random.default_rng(seed)
    config = model.config
    if model.main_input_name == "pixel_values":
        if length is not None:
            raise ConfigError(f"length: an image has none; leave it out, not {length}")
        shape = (config.num_channels, config.image_size, config.image_size)
        return [{"pixel_values": draw.standard_normal(shape, np.float32)} for _ in range(ROWS)]
    limit = position_limit(config)
    tokens = limit if length is None else length
    if not 1 <= tokens <= limit:
        raise ConfigError(f"length: must be 1 to {limit}, the model's positions, not {tokens}")
    special = getattr(config, "pad_token_id", None) or 0
    ids = draw.integers(special + 1, config.vocab_size, (ROWS, tokens))
    return [{"input_ids": row, "attention_mask": np.ones(tokens, np.int64)} for row in ids]
