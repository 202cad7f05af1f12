"""The seam for augmentation: a user's function changes the rows of an update before student and teacher see them.

    def function(batch: dict[str, Tensor], seed: int) -> dict[str, Tensor]: ...

`batch` is one micro-batch on the CPU, as the task makes it, `labels` included. The function must be deterministic in
its arguments and must not touch the global generators: `seed` is a function of the run's seed, the update, the
micro-batch and the process, which is what makes a resumed run equal to one that never stopped.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hwsim.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from torch import Tensor

Augmentation = Callable[["dict[str, Tensor]", int], "dict[str, Tensor]"]


def load(entry: str) -> Augmentation:
    """Return the function that `module:function` names.

    Raises:
        ConfigError: not of that form, no such module, no such function.
    """
    place = "train.augment"
    module_name, _, name = entry.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as fault:
        raise ConfigError(
            f"{place}: module {module_name!r} cannot be imported ({fault}); is its folder on PYTHONPATH?"
        ) from None
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value)]
        raise ConfigError(
            f"{place}: module {module_name!r} has no function {name!r}{nearest(name, known)}"
        )
    function: Augmentation = found
    return function


def apply(
    function: Augmentation, batch: dict[str, Tensor], place: tuple[int, int, int, int]
) -> dict[str, Tensor]:
    """Return what the function makes of a micro-batch.

    Args:
        function: from `load`.
        batch: of the task.
        place: the run's seed, and the numbers of update, micro-batch and process.

    Raises:
        DataError: it returns no mapping of the same keys to tensors with as many rows each.
    """
    seed = int(np.random.SeedSequence(place).generate_state(1)[0])
    made = function(dict(batch), seed)
    if not isinstance(made, dict) or made.keys() != batch.keys():
        got = sorted(made) if isinstance(made, dict) else type(made).__name__
        raise DataError(
            f"train.augment must return a batch of the keys {', '.join(sorted(batch))}, not {got}"
        )
    rows = {name: getattr(value, "shape", (None,))[0] for name, value in made.items()}
    if len(set(rows.values())) != 1 or None in rows.values():
        raise DataError(f"train.augment must return tensors of as many rows each, not {rows}")
    return made
