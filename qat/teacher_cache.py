"""What the teacher said about a training row, kept on disk: from the second epoch on nobody asks it again.

A file a row, in the run's folder while the run lasts, without the padding of the batch that the row was in. The teacher
is asked about a batch as soon as one of its rows is new, but what was said about a row first stays: so a step's answers
are a function of the steps before it, and a run that is killed and resumed, some of its files being from later steps,
ends with the same bits.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hwsim.errors import CheckpointError, ConfigError
from qat.recipe import ObjectiveSpec, Recipe
from qat.step import Recording

Answer = tuple[Tensor, Recording]
LOGITS = "logits"
POSITION_AXES = {
    "scores": (1, 2),
    "maps": (1, 2),
    "hidden": (0,),
    "outputs": (0,),
    "post_norm": (0,),
}
"""Axes of one row's tensor that positions lie on; (1,) for what has heads in front of them."""


class TeacherCache:
    """Answers of a teacher to the rows of one split.

    Args:
        folder: of this process; made if it does not exist, its files are kept.
        capacity_bytes: no row is added that would not fit any more.
        kinds: the fields of `Recording` that the objective compares.
    """

    def __init__(self, folder: Path, capacity_bytes: int, kinds: Sequence[str]) -> None:
        self.folder, self.capacity_bytes, self.kinds = folder, capacity_bytes, tuple(kinds)
        folder.mkdir(parents=True, exist_ok=True)
        for torn in folder.glob("*.tmp"):
            torn.unlink()
        self.used_bytes = sum(path.stat().st_size for path in folder.iterdir())

    def ask(
        self, rows: NDArray[np.int64], inputs: Mapping[str, Tensor], teacher: Callable[[], Answer]
    ) -> Answer:
        """Return the logits and recorded tensors of a batch, zeros where it is padded.

        Args:
            rows: [B], numbers of the rows.
            inputs: the batch; `attention_mask` [B, T] says how long each row is (real positions come first).
            teacher: gives the answer to the batch.
        """
        paths = [self.folder / f"{row}.safetensors" for row in rows.tolist()]
        found = [_read(path) if path.exists() else None for path in paths]
        mask = inputs.get("attention_mask")
        if None in found:
            lengths: list[int | None] = [None] * len(paths)
            if mask is not None:
                lengths = mask.sum(-1).tolist()
            logits, record = teacher()
            for i, path in enumerate(paths):
                if found[i] is None:
                    found[i] = own = self._cut(logits, record, i, lengths[i])
                    self._keep(path, own)
        answers = [own for own in found if own is not None]
        device = next(iter(inputs.values())).device
        return self._joined(answers, None if mask is None else mask.shape[1], device)

    def _cut(
        self, logits: Tensor, record: Recording, i: int, length: int | None
    ) -> dict[str, Tensor]:
        tensors = {LOGITS: logits, **_named(record, self.kinds)}
        cut = {}
        for name, tensor in tensors.items():
            own = tensor[i]
            for axis in _position_axes(name, own):
                own = own if length is None else own.narrow(axis, 0, length)
            cut[name] = own.contiguous().cpu()
        return cut

    def _keep(self, path: Path, tensors: dict[str, Tensor]) -> None:
        data = save(tensors)
        if self.used_bytes + len(data) > self.capacity_bytes:
            return
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(data)
        os.replace(temporary, path)
        self.used_bytes += len(data)

    def _joined(
        self, kept: list[dict[str, Tensor]], length: int | None, device: torch.device
    ) -> Answer:
        """Stack rows of different lengths, zeros where they are padded: no term looks there."""
        joined: dict[str, Tensor] = {}
        for name, first in kept[0].items():
            shape = list(first.shape)
            for axis in _position_axes(name, first):
                shape[axis] = shape[axis] if length is None else length
            whole = first.new_zeros((len(kept), *shape))
            for i, row in enumerate(kept):
                own = row[name]
                target = whole[i]
                for axis, size in enumerate(own.shape):
                    target = target.narrow(axis, 0, size)
                target.copy_(own)
            joined[name] = whole.to(device)
        record = Recording()
        for kind in self.kinds:
            count = sum(name.split(".")[0] == kind for name in joined)
            setattr(record, kind, [joined[f"{kind}.{layer}"] for layer in range(count)])
        return joined[LOGITS], record


def compared(spec: ObjectiveSpec) -> list[str]:
    """The fields of `Recording` that an objective compares with the student's."""
    kinds = []
    if spec.hidden is not None:
        kinds.append("hidden")
    if spec.scores is not None:
        kinds.append("scores")
    if spec.output is not None:
        kinds.append("outputs" if spec.output.on == "ao" else "post_norm")
    if spec.similarity is not None:
        kinds += ["queries", "keys", "values"]
    return kinds


def check_cacheable(recipe: Recipe, augmented: bool) -> None:
    """Refuse a cache where an answer is not a function of the row.

    Raises:
        ConfigError: with the reason.
    """
    reason = None
    if not recipe.needs_teacher:
        reason = "asks no teacher"
    elif recipe.teacher_mode == "train":
        reason = "has a teacher with dropout, which never answers twice alike"
    elif recipe.objective is not None and recipe.objective.padding == "counted":
        reason = "compares padded positions, which belong to a batch and not to a row"
    elif augmented:
        reason = "is trained with an augmentation, which changes the rows"
    if reason is not None:
        raise ConfigError(
            f"train.teacher_cache: recipe '{recipe.name}' {reason}: leave the key out"
        )


def remove_caches(run: Path) -> None:
    """Remove what the processes of a finished run kept."""
    shutil.rmtree(cache_folder(run).parent, ignore_errors=True)


def cache_folder(run: Path, process: int = 0) -> Path:
    """Where a process keeps its rows: its own, since other processes see other batches."""
    return run / "teacher_cache" / str(process)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load(path.read_bytes())
    except SafetensorError:
        raise CheckpointError(
            f"{path}: damaged: remove the folder, its answers are asked for again"
        ) from None


def _named(record: Recording, kinds: Sequence[str]) -> dict[str, Tensor]:
    return {
        f"{kind}.{layer}": tensor
        for kind in kinds
        for layer, tensor in enumerate(getattr(record, kind))
    }


def _position_axes(name: str, own: Tensor) -> tuple[int, ...]:
    kind = name.split(".", maxsplit=1)[0]
    if kind == LOGITS:
        return (0,) if own.dim() == 2 else ()
    return POSITION_AXES.get(kind, (1,))
