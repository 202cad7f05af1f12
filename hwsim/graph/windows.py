"""Windows that slide over an image [H, W, C]: of a convolution, and of a pooling.

Channels are last, as everywhere in the graph: a window's reduction runs over (kernel row, kernel column, channel),
the channel fastest. Positions outside the image have no code: they are in no sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

PADDING_POSITIONS = ("computed", "skipped")
"""what a machine does with positions outside the image: multiply and take them out again, or leave them out"""


@dataclass(frozen=True, slots=True)
class Region:
    """Output positions whose windows lie alike on the image.

    Attributes:
        rows: rows of output positions.
        cols: columns of output positions.
        kernel_rows: rows of the kernel that are inside the image.
        kernel_cols: columns of the kernel that are inside the image.
    """

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    kernel_rows: range
    kernel_cols: range


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows over an image; every pair is (height, width)."""

    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, attrs: Mapping[str, Any], shape: Sequence[int | str]) -> Windows:
        """Read the attributes of a node that slides over a tensor [H, W, C]."""
        padding = _pair(attrs.get("padding", (0, 0)))
        image = int(shape[0]), int(shape[1])
        return cls(image, _pair(attrs["kernel"]), _pair(attrs["stride"]), padding)

    @property
    def positions(self) -> tuple[int, int]:
        """Output positions, [height, width]; not positive where the kernel does not fit."""
        return self._count(0), self._count(1)

    def seen(self, axis: int) -> list[range]:
        """Return, for every output position along an axis, the kernel positions inside the image."""
        side, window = self.image[axis], self.kernel[axis]
        starts = (i * self.stride[axis] - self.padding[axis] for i in range(self._count(axis)))
        return [range(min(max(-s, 0), window), max(min(side - s, window), 0)) for s in starts]

    def regions(self) -> list[Region]:
        """Return the output positions by what they see of the kernel; those that see nothing are left out."""
        rows, cols = (_by_range(self.seen(axis)) for axis in (0, 1))
        return [
            Region(tuple(r), tuple(c), taps_r, taps_c)
            for (taps_r, r), (taps_c, c) in product(rows.items(), cols.items())
            if taps_r and taps_c
        ]

    def faults(self) -> list[str]:
        """Return what no window can have."""
        found = [
            f"{name} must be at least {least}, not {list(pair)}"
            for name, pair, least in (
                ("kernel", self.kernel, 1),
                ("stride", self.stride, 1),
                ("padding", self.padding, 0),
            )
            if min(pair) < least
        ]
        padded = [side + 2 * p for side, p in zip(self.image, self.padding, strict=True)]
        if any(k > side for k, side in zip(self.kernel, padded, strict=True)):
            found.append(
                f"the kernel must lie inside the padded image {padded}, not be {list(self.kernel)}"
            )
        return found

    def _count(self, axis: int) -> int:
        inside = self.image[axis] + 2 * self.padding[axis] - self.kernel[axis]
        return inside // self.stride[axis] + 1


def window_faults(
    op: str, attrs: Mapping[str, Any], x: Sequence[int | str], weight: Sequence[int] | None,
    out: Sequence[int | str],
) -> list[str]:  # fmt: skip
    """Return what is wrong with a `conv2d` or `max_pool`.

    Args:
        op: the operator.
        attrs: its attributes.
        x: shape of its input.
        weight: shape of its weight, of a convolution.
        out: shape of its output.
    """
    if len(x) != 3 or any(isinstance(d, str) for d in x):
        return [f"{op} reads an image [H, W, C], not {list(x)}"]
    windows = Windows.of(attrs, x)
    found = windows.faults()
    if found:
        return found
    channels = int(x[2])
    if op == "conv2d":
        how = attrs["padding_positions"]
        if how not in PADDING_POSITIONS:
            found.append(
                f"padding_positions must be one of {', '.join(PADDING_POSITIONS)}, not {how!r}"
            )
        depth = windows.kernel[0] * windows.kernel[1] * channels
        if weight is not None and (len(weight) != 2 or weight[1] != depth):
            found.append(
                f"the weight must be [N, kernel height * width * channels] = [N, {depth}] (one group), not {list(weight)}"
            )
        channels = channels if weight is None else weight[0]
    if tuple(out) != (*windows.positions, channels):
        found.append(f"its output must be {[*windows.positions, channels]}, not {list(out)}")
    return found


def _pair(value: Any) -> tuple[int, int]:
    height, width = value
    return int(height), int(width)


def _by_range(seen: list[range]) -> dict[range, list[int]]:
    found: dict[range, list[int]] = {}
    for position, taps in enumerate(seen):
        found.setdefault(taps, []).append(position)
    return found
