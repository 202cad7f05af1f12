"""The state of an unfinished run: all that makes a resumed run equal to an uninterrupted one, bit for bit."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model

from hwsim.errors import CheckpointError
from qat.checkpoint import (
    MODEL_FILE,
    STATE_FOLDER,
    check_folder,
    read_json,
    write_folder,
    write_json,
)

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from qat.objective import Objective

OPTIMIZER_FILE = "optimizer.safetensors"
RNG_FILE = "rng.safetensors"
STATE_FILE = "state.json"


@dataclass
class Progress:
    """Where a run stands. `step` counts the updates of the weights made so far.

    The position in the data and in the learning-rate schedule are functions of `step`. `best_*` belong to
    the best evaluation so far, `stale` counts the evaluations since.
    """

    step: int = 0
    best_step: int | None = None
    best_value: float | None = None
    stale: int = 0
    wall_s: float = 0.0


def save_state(
    run: Path, model: nn.Module, optimizer: Optimizer, objective: Objective, progress: Progress
) -> None:
    """Write the state of a run and remove the older ones once it is complete."""

    def fill(folder: Path) -> None:
        save_model(model, str(folder / MODEL_FILE))
        tensors, groups = _optimizer_tensors(optimizer)
        save_file(tensors, folder / OPTIMIZER_FILE)
        rng, rng_values = _rng_state()
        save_file(rng, folder / RNG_FILE)
        values = {
            "progress": asdict(progress),
            "optimizer_groups": groups,
            "rng": rng_values,
            "objective": objective.state_dict(),
        }
        write_json(folder / STATE_FILE, values)

    target = _folder(run, "state", progress.step)
    write_folder(target, fill)
    keep = (
        {target}
        if progress.best_step is None
        else {target, _folder(run, "best", progress.best_step)}
    )
    for old in [*_found(run, "state"), *_found(run, "best")]:
        if old not in keep:
            shutil.rmtree(old)


def save_best(run: Path, model: nn.Module, step: int) -> None:
    """Write the weights of the best step so far; older ones go when the next state is saved."""
    write_folder(_folder(run, "best", step), lambda path: save_model(model, str(path / MODEL_FILE)))


def load_best(run: Path, model: nn.Module, step: int) -> None:
    """Put the weights of the best step into the model. Raises CheckpointError."""
    folder = _folder(run, "best", step)
    check_folder(folder)
    _load_model(model, folder / MODEL_FILE)


def newest_state(run: Path) -> Path | None:
    """Return the folder of the latest complete state, None where there is none."""
    found = _found(run, "state")
    return found[-1] if found else None


def load_progress(state: Path) -> Progress:
    """Return where a state stands, after checking all of its files. Raises CheckpointError."""
    check_folder(state)
    values = read_json(state / STATE_FILE)
    try:
        return Progress(**values["progress"])
    except (KeyError, TypeError) as fault:
        raise CheckpointError(f"{state / STATE_FILE}: damaged: {fault}") from None


def load_state(state: Path, model: nn.Module, optimizer: Optimizer, objective: Objective) -> None:
    """Put a checked state into a run's objects and the process's random generators. Raises CheckpointError."""
    values = read_json(state / STATE_FILE)
    objective.load_state_dict(values["objective"])
    _load_model(model, state / MODEL_FILE)
    _load_optimizer(optimizer, load_file(state / OPTIMIZER_FILE), values["optimizer_groups"])
    _set_rng_state(load_file(state / RNG_FILE), values["rng"])


def remove_states(run: Path) -> None:
    """Remove the states of a run that is finished, and what a killed process left of them."""
    for folder in [*_found(run, "state"), *_found(run, "best"), *_unfinished(run)]:
        shutil.rmtree(folder, ignore_errors=True)


def _folder(run: Path, kind: str, step: int) -> Path:
    return run / STATE_FOLDER / f"{kind}-{step:08d}"


def _found(run: Path, kind: str) -> list[Path]:
    return sorted((run / STATE_FOLDER).glob(f"{kind}-*"))


def _unfinished(run: Path) -> list[Path]:
    return sorted((run / STATE_FOLDER).glob(".*.tmp"))


def _load_model(model: nn.Module, path: Path) -> None:
    try:
        load_model(model, str(path))
    except (RuntimeError, SafetensorError) as fault:
        raise CheckpointError(f"{path}: {fault}") from None


def _optimizer_tensors(optimizer: Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Split an optimiser's state in tensors named `INDEX.KEY` and groups that JSON can hold."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{key}": value.contiguous()
        for index, entries in state["state"].items()
        for key, value in entries.items()
    }
    return tensors, state["param_groups"]


def _load_optimizer(
    optimizer: Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    # JSON made lists of the tuples (betas), which optimisers unpack all the same
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _rng_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    python = random.getstate()
    numpy = np.random.get_state(legacy=True)  # noqa: NPY002 - the global generator, which others may use
    assert isinstance(numpy, tuple)
    tensors = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(python[1], dtype=torch.int64),
        "numpy": torch.from_numpy(numpy[1].astype(np.int64)),
    }
    for device in range(torch.cuda.device_count()):
        tensors[f"cuda{device}"] = torch.cuda.get_rng_state(device)
    values = {
        "python": [python[0], python[2]],
        "numpy": [numpy[0], int(numpy[2]), int(numpy[3]), float(numpy[4])],
    }
    return tensors, values


def _set_rng_state(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    torch.set_rng_state(tensors["torch"])
    version, gauss = values["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    name, position, has_gauss, cached = values["numpy"]
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((name, keys, position, has_gauss, cached))  # noqa: NPY002
    for device in range(torch.cuda.device_count()):
        if f"cuda{device}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda{device}"], device)
