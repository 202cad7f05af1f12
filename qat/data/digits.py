"""scikit-learn's handwritten digits (1,797 images of 8x8) with a fixed, committed, stratified split.

The ids of the split stand in `digits_split.json`. They were made once by `make_split`, which a test runs again:
a number measured today is comparable with one measured in a year, whatever numpy does to its generators.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Final

import numpy as np

from hwsim.errors import DataError
from qat.data.split import ImageSplit

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPLIT_SEED: Final = 20261122
PARTS: Final = {"validation": 180, "test": 540}  # the rest, 1,077 images, trains
PIXEL_MAX: Final = 16.0
IMAGE_SIZE: Final = 8


def make_split(labels: NDArray[np.int64], seed: int = SPLIT_SEED) -> dict[str, list[int]]:
    """Draw the stratified split: sorted ids of `train`, `validation` and `test`.

    Each class gives a part its proportional share, rounded by largest remainder, so that the parts have
    exactly the sizes of `PARTS`.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    free = {int(c): rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)}
    split: dict[str, list[int]] = {}
    for part, size in PARTS.items():
        exact = {c: size * np.count_nonzero(labels == c) / labels.size for c in free}
        share = {c: int(exact[c]) for c in free}
        by_remainder = sorted(free, key=lambda c: (share[c] - exact[c], c))
        for c in by_remainder[: size - sum(share.values())]:
            share[c] += 1
        split[part] = sorted(int(i) for c in free for i in free[c][: share[c]])
        free = {c: ids[share[c] :] for c, ids in free.items()}
    split["train"] = sorted(int(i) for ids in free.values() for i in ids)
    return split


def committed_split() -> dict[str, list[int]]:
    """Return the ids in the package: 1,077 `train`, 180 `validation`, 540 `test`."""
    text = resources.files("qat.data").joinpath("digits_split.json").read_text("utf-8")
    return {part: list(ids) for part, ids in json.loads(text).items()}


def load_digits() -> dict[str, ImageSplit]:
    """Return the three parts; pixels are float32 [N, 1, 8, 8] in 0..1 (the files hold 0..16)."""
    from sklearn.datasets import load_digits as read

    data = read()
    pixels = (data.images / PIXEL_MAX).astype(np.float32)[:, None]  # [1797, 1, 8, 8]
    labels = data.target.astype(np.int64)
    split = committed_split()
    if pixels.shape[0] != sum(len(ids) for ids in split.values()):
        raise DataError(
            f"scikit-learn's digits: must be {sum(len(i) for i in split.values())} images,"
            f" are {pixels.shape[0]}; the committed split does not fit them"
        )
    return {
        part: ImageSplit(part, np.array(ids, np.int64), labels[ids], pixels[ids])
        for part, ids in split.items()
    }
