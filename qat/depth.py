"""How many layers a model has, and which of them a student may keep: told from configurations alone, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwsim.errors import ConfigError
from qat.build import FAMILIES
from qat.config import NewModel, PretrainedModel

DEPTH_KEYS = ("num_hidden_layers", "n_layer", "n_layers")
"""what the families' configurations call it"""


def known_depth(model: NewModel | PretrainedModel) -> int | None:
    """Return how many layers a model will have; None where only loading it tells (a hub id, a configuration's own default)."""
    if isinstance(model, NewModel):
        values: dict[str, Any] = {**FAMILIES[model.family].defaults, **model.config}
    else:
        path = Path(model.checkpoint) / "config.json"
        if not path.is_file():
            return None
        values = json.loads(path.read_bytes())
    found = (values[key] for key in DEPTH_KEYS if isinstance(values.get(key), int))
    return next(found, None)


def check_layers(layers: Sequence[int], teacher_depth: int) -> None:
    """Refuse a map that is not strictly increasing or names no layer of the teacher.

    Raises:
        ConfigError: with the map and what it must be.
    """
    given = list(layers)
    if given != sorted(set(given)) or given[0] < 0 or given[-1] >= teacher_depth:
        raise ConfigError(
            f"layers: must be strictly increasing numbers from 0 to {teacher_depth - 1}"
            f" (the teacher has {teacher_depth} layers), not {given}"
        )
