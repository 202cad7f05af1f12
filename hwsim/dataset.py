"""Rows of a user's data set: model inputs by name, as Hugging Face's tokenizers and image processors make them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.errors import DataError
from hwsim.graph.ir import QuantGraph
from hwsim.graph.serialize import Samples

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

IGNORED_LABEL = -100
LABEL_NAMES = ("labels", "label", "label_ids")
MASK = "attention_mask"
MAIN_INPUTS = {"input_ids": 1, "pixel_values": 3}
"""inputs that every model has one of, and their axes in one row"""
BATCH = 32

Row = dict[str, "NDArray[Any]"]


class Rows:
    """Rows in memory, padding cut off; batches are padded on the right.

    Args:
        dataset: mappings of a row (`input_ids` [T], `pixel_values` [C, H, W], `labels`) or of a batch of rows (one
            axis more): a Hugging Face data set, a list, a data loader.
        names: inputs to keep, others are columns that nobody asked for.
        pad_id: token id at padded positions; nothing reads it.

    Attributes:
        name, ids: of a part of a data set; here `dataset` and the row numbers.
        lengths: int64 [N], positions of each row (1 for images).
        labels: [N] classes or scores, [N, T] next tokens with -100 where none counts, or None.

    Raises:
        DataError: no rows, rows without inputs, padding on the left, labels in some rows only.
    """

    def __init__(self, dataset: Iterable[Any], names: Iterable[str], pad_id: int = 0) -> None:
        self.name, self._pad_id = "dataset", pad_id
        keep = {*names, MASK}
        rows: list[Row] = []
        labels: list[Any] = []
        for number, element in enumerate(dataset):
            if not isinstance(element, Mapping):
                raise DataError(
                    f"dataset: element {number} must be a mapping of inputs by name, is a {type(element).__name__}"
                )
            for row, label in _rows_of(element, keep, number):
                rows.append(row)
                labels.append(label)
        if not rows:
            raise DataError("dataset: must have at least one row, has none")
        known = [label is not None for label in labels]
        if any(known) and not all(known):
            raise DataError(f"dataset: row {known.index(False)} has no label, others have one")
        self._rows = rows
        self.ids = np.arange(len(rows), dtype=np.int64)
        self.lengths = np.array([_length(row) for row in rows], np.int64)
        self.labels: NDArray[Any] | None = _stack(labels, IGNORED_LABEL) if all(known) else None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def names(self) -> list[str]:
        """Inputs that the rows have."""
        return [name for name in self._rows[0] if name != MASK]

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """Return the model's keyword arguments for these rows, without labels; texts with their mask."""
        import torch

        chosen = [self._rows[int(row)] for row in rows]
        batch = {
            name: torch.from_numpy(
                _stack([row[name] for row in chosen], self._pad_id if name == "input_ids" else 0)
            )
            for name in chosen[0]
        }
        if "input_ids" in batch:
            lengths = torch.from_numpy(self.lengths[np.asarray(rows, np.int64)])
            positions = torch.arange(batch["input_ids"].shape[1])
            batch[MASK] = (positions < lengths[:, None]).long()  # [B, T]
        return batch


def make_samples(graph: QuantGraph, rows: Any, labels: NDArray[Any] | None) -> Samples:
    """Make a graph's inputs of rows, as the host does, and put their labels beside them.

    Args:
        graph: the integer graph.
        rows: `Rows`, or a split of `qat.data`: `lengths`, `batch(rows)` and a length.
        labels: [N] or [N, T], None where there are none.

    Raises:
        DataError: an input of the graph is missing, or a mask has padding on the left.
    """
    from hwsim.rungs import graph_inputs, real_lengths

    longest = int(rows.lengths.max())
    inputs: dict[str, list[NDArray[np.int64]]] = {name: [] for name in graph.inputs}
    lengths: list[NDArray[np.int64]] = []
    for start in range(0, len(rows), BATCH):
        batch = rows.batch(np.arange(start, min(start + BATCH, len(rows))))
        missing = [name for name in graph.inputs if name not in batch]
        if missing:
            raise DataError(
                f"dataset: rows must have {', '.join(missing)}, have {', '.join(batch)} only"
            )
        for name, codes in graph_inputs(graph, batch).items():
            short = longest - codes.shape[1] if graph.tensors[name].shape[:1] == ("T",) else 0
            inputs[name].append(np.pad(codes, [(0, 0), (0, short)]) if short else codes)
        if MASK in batch:
            lengths.append(real_lengths(batch[MASK]))
    joined = {name: np.concatenate(parts) for name, parts in inputs.items()}
    return Samples(joined, labels, np.concatenate(lengths) if lengths else None)


def stored_labels(labels: NDArray[Any] | None) -> NDArray[Any] | None:
    """Labels as samples store them: of a language model [N, T], whose are its inputs, the next token everywhere."""
    if labels is None or labels.ndim == 1:
        return labels
    following = np.full_like(labels, IGNORED_LABEL)
    following[:, :-1] = labels[:, 1:]
    return following


def _rows_of(
    element: Mapping[str, Any], keep: set[str], number: int
) -> Iterable[tuple[Row, NDArray[Any] | None]]:
    """Yield (inputs, label) of each row in an element, which is one row or a batch of them."""
    arrays = {name: _array(x) for name, x in element.items() if name in keep}
    main = next((name for name in MAIN_INPUTS if name in arrays), None)
    if main is None:
        raise DataError(
            f"dataset: element {number} must have {' or '.join(MAIN_INPUTS)}, has {', '.join(map(str, element))};"
            " run the tokenizer or image processor first, as in dataset.map(tokenizer)"
        )
    given = next((element[name] for name in LABEL_NAMES if element.get(name) is not None), None)
    label = None if given is None else _array(given)
    if label is not None and label.dtype.kind not in "iufb":
        raise DataError(f"dataset: labels must be numbers, element {number} has {given!r}")
    axes = arrays[main].ndim - MAIN_INPUTS[main]
    if axes not in (0, 1):
        raise DataError(
            f"dataset: {main} of element {number} must have {MAIN_INPUTS[main]} axes, or one more for a batch,"
            f" has {arrays[main].ndim}"
        )
    if axes == 0:
        yield _cut(arrays, label, number)
        return
    for index in range(len(arrays[main])):
        row = {name: x[index] for name, x in arrays.items()}
        yield _cut(row, None if label is None else label[index], number)


def _cut(row: Row, label: NDArray[Any] | None, number: int) -> tuple[Row, NDArray[Any] | None]:
    """Cut the padding off a row, and its mask with it."""
    mask = row.pop(MASK, None)
    if mask is None:
        return row, label
    length = int(mask.sum())
    if not mask[:length].all():
        raise DataError(
            f"dataset: element {number}: attention_mask must have all its padding on the right"
        )
    cut = {name: x[:length] for name, x in row.items()}
    return cut, label[:length] if label is not None and label.ndim == 1 else label


def _array(value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _length(row: Row) -> int:
    return len(row["input_ids"]) if "input_ids" in row else 1


def _stack(parts: list[Any], fill: int) -> NDArray[Any]:
    """Stack arrays; those of one axis are filled up to the longest."""
    if parts[0].ndim != 1:
        return np.stack(parts)
    longest = max(len(part) for part in parts)
    return np.stack([np.pad(p, (0, longest - len(p)), constant_values=fill) for p in parts])
