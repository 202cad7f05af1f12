"""One part of a data set (training, carve-out, test): rows that become padded batches on demand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

TOKENIZE_ROWS = 10_000  # rows a call of the tokenizer: bounds its memory on a large training set


class Split(Protocol):
    """What the loop, the evaluation and the calibration need of a part."""

    name: str
    ids: NDArray[np.int64]  # [N] row numbers in the source, for the record

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[N] positions a row takes before padding."""

    @property
    def labels(self) -> NDArray[Any]:
        """[N] int64 class ids or float32 scores; [N, T] token ids for language modelling."""

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """Return the model's keyword arguments for these rows, `labels` included."""

    def subset(self, name: str, rows: NDArray[np.int64]) -> Split:
        """Return these rows as a part of their own."""


class ImageSplit:
    """Images of one size. `pixels` float32 [N, C, H, W]."""

    def __init__(
        self,
        name: str,
        ids: NDArray[np.int64],
        labels: NDArray[np.int64],
        pixels: NDArray[np.float32],
    ) -> None:
        self.name, self.ids, self.labels, self.pixels = name, ids, labels, pixels

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.ones(len(self), np.int64)

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        import torch

        index = np.asarray(rows, np.int64)
        return {
            "pixel_values": torch.from_numpy(self.pixels[index]),  # [B, C, H, W]
            "labels": torch.from_numpy(self.labels[index]),  # [B]
        }

    def subset(self, name: str, rows: NDArray[np.int64]) -> ImageSplit:
        return ImageSplit(name, self.ids[rows], self.labels[rows], self.pixels[rows])


class TextSplit:
    """One or two texts a row, tokenised on first use, padded on the right to the longest row of the batch."""

    def __init__(
        self,
        name: str,
        ids: NDArray[np.int64],
        labels: NDArray[Any],
        texts: list[tuple[str, ...]],
        tokenizer: Any,
        max_tokens: int,
    ) -> None:
        self.name, self.ids, self.labels, self.texts = name, ids, labels, texts
        self._tokenizer, self._max_tokens = tokenizer, max_tokens

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _encoded(self) -> list[dict[str, list[int]]]:
        rows: list[dict[str, list[int]]] = []
        for start in range(0, len(self.texts), TOKENIZE_ROWS):
            columns = [
                list(column)
                for column in zip(*self.texts[start : start + TOKENIZE_ROWS], strict=True)
            ]
            encoded = self._tokenizer(*columns, truncation=True, max_length=self._max_tokens)
            names = [name for name in self._tokenizer.model_input_names if name in encoded]
            rows += [
                dict(zip(names, values, strict=True))
                for values in zip(*(encoded[name] for name in names), strict=True)
            ]
        return rows

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return np.array([len(row["input_ids"]) for row in self._encoded], np.int64)

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        import torch

        chosen = [self._encoded[int(row)] for row in rows]
        padded = self._tokenizer.pad(
            {name: [row[name] for row in chosen] for name in chosen[0]},
            padding="longest",
            padding_side="right",
            return_tensors="pt",
        )
        batch = {name: tensor.to(torch.int64) for name, tensor in padded.items()}  # [B, T]
        batch["labels"] = torch.from_numpy(self.labels[np.asarray(rows, np.int64)])  # [B]
        return batch

    def subset(self, name: str, rows: NDArray[np.int64]) -> TextSplit:
        texts = [self.texts[int(row)] for row in rows]
        return TextSplit(
            name, self.ids[rows], self.labels[rows], texts, self._tokenizer, self._max_tokens
        )


class BlockSplit:
    """Blocks of tokens for language modelling; the model shifts the labels itself.

    `tokens` int64 [N, T]; `token_bytes` int64 [N, T], how many bytes of the text each of them stands for.
    """

    def __init__(
        self,
        name: str,
        ids: NDArray[np.int64],
        tokens: NDArray[np.int64],
        token_bytes: NDArray[np.int64],
    ) -> None:
        self.name, self.ids, self.tokens, self.token_bytes = name, ids, tokens, token_bytes

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.tokens

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.full(len(self), self.tokens.shape[1], np.int64)

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        import torch

        tokens = torch.from_numpy(self.tokens[np.asarray(rows, np.int64)])  # [B, T]
        return {
            "input_ids": tokens,
            "attention_mask": torch.ones_like(tokens),
            "labels": tokens.clone(),
        }

    def subset(self, name: str, rows: NDArray[np.int64]) -> BlockSplit:
        return BlockSplit(name, self.ids[rows], self.tokens[rows], self.token_bytes[rows])


def token_bytes(text: str, offsets: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return how many UTF-8 bytes of a text each token ends [N]: their sum is that of all bytes up to the last.

    Args:
        text: what was tokenised.
        offsets: first and last character of each token, exclusive. White space between two tokens counts for the
            second; a character that several tokens share for the first; special tokens stand for nothing.
    """
    ends = np.array([end for _, end in offsets], np.int64)
    bytes_before = np.cumsum([0, *(len(character.encode()) for character in text)])
    # a special token's end is 0
    reached = bytes_before[np.maximum.accumulate(ends)]
    sizes: NDArray[np.int64] = np.diff(reached, prepend=0)
    return sizes
