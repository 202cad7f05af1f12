"""Flip one bit in the machine's memory: the proof that verification can fail.

`FIELD:NODE:INDEX:BIT`: FIELD is a constant's role (`CONSTANTS`) of NODE, or `length`
(the length register of sample INDEX; NODE is any node that masks), or `cache` (what decoding has kept of its
first token; NODE makes the second operand of an attention product). INDEX counts elements in row-major
order. BIT counts from the lowest bit of the stored number: BIPOLAR has bit 0, TERNARY bit 0 (plane of +1)
and bit 1 (plane of -1, both set act as 0), the rest are two's complement of their width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import BitwrightError, nearest
from hwsim.graph.decode_view import caches, decode_faults
from hwsim.graph.dtype import DataType
from hwsim.graph.ir import Constant, QuantGraph

CONSTANTS = ("weight", "M", "S", "B", "G", "threshold", "direction", "table", "addend", "rows")
FIELDS = (*CONSTANTS, "length", "cache")
LENGTH_BITS = 32
Words = npt.NDArray[np.uint64]


class InjectionError(BitwrightError):
    """An injection that names no bit of the model."""


@dataclass(frozen=True)
class Injection:
    """A bit to flip."""

    field: str
    node: str
    index: int
    bit: int

    @classmethod
    def parse(cls, text: str) -> Injection:
        """Read `FIELD:NODE:INDEX:BIT`.

        Raises:
            InjectionError: the text has another form.
        """
        parts = text.split(":")
        if len(parts) != 4 or not all(p.isascii() and p.isdigit() for p in parts[2:]):
            raise InjectionError(
                f"--inject must be FIELD:NODE:INDEX:BIT, for example weight:NODE:0:0, not {text!r}"
            )
        if parts[0] not in FIELDS:
            raise InjectionError(
                f"--inject: FIELD must be one of {', '.join(FIELDS)}, not {parts[0]!r}{nearest(parts[0], FIELDS)}"
            )
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]))

    def __str__(self) -> str:
        return f"{self.field}:{self.node}:{self.index}:{self.bit}"

    def into_graph(self, graph: QuantGraph) -> QuantGraph:
        """Return the graph as it lies in the damaged memory; the graph itself for `length` and `cache`.

        Raises:
            InjectionError: no such node, constant, element or bit.
        """
        nodes = graph.by_name
        if self.node not in nodes:
            raise InjectionError(
                f"--inject: the model has no node {self.node!r}{nearest(self.node, list(nodes))}"
            )
        node = nodes[self.node]
        if self.field == "length":
            if not node.attrs.get("masked"):
                masking = [n.name for n in graph.nodes if n.attrs.get("masked")]
                some = f"; nodes that do: {', '.join(masking[:3])}" if masking else ""
                raise InjectionError(f"--inject: node {self.node} does not mask by length{some}")
            return graph
        if self.field == "cache":
            self._check_cache(graph)
            return graph
        if self.field not in node.constants:
            have = [r for r in node.constants if r in FIELDS]
            raise InjectionError(
                f"--inject: node {self.node} ({node.op}) has no {self.field}; it has {', '.join(have) or 'no constants'}"
            )
        constant = graph.constants[node.constants[self.field]]
        flipped = Constant(constant.name, constant.dtype, self._flip(constant))
        return replace(graph, constants={**graph.constants, constant.name: flipped})

    def _check_cache(self, graph: QuantGraph) -> None:
        faults = decode_faults(graph)
        if faults:
            raise InjectionError(f"--inject: there is no cache: {faults[0]}")
        kept = {c.tensor: c for c in caches(graph)}
        if self.node not in kept:
            raise InjectionError(
                f"--inject: node {self.node} is not cached{nearest(self.node, list(kept))}"
            )
        cache = kept[self.node]
        self._check_bit(f"a token's entry of {self.node}", math.prod(cache.bind(1)), cache.dtype)

    def into_cache(self, codes: npt.NDArray[Any], dtype: DataType) -> npt.NDArray[Any]:
        """Return a cache of one token, [1, *shape], with the bit flipped."""
        return _flipped(codes, self.index, self.bit, dtype)

    def check_register(self, registers: int) -> None:
        """Make sure that a `length` injection names a bit of one of the length registers, one a sample.

        Raises:
            InjectionError: no such sample or bit.
        """
        if self.index >= registers:
            have = f"samples 0 to {registers - 1}" if registers else "no samples with a length"
            raise InjectionError(f"--inject: this run has {have}, not {self.index}")
        if self.bit >= LENGTH_BITS - 1:
            raise InjectionError(
                f"--inject: a length register has bits 0 to {LENGTH_BITS - 2}, not {self.bit}"
            )

    def into_lengths(
        self, lengths: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return a batch's length registers with the bit flipped; `rows` are the batch's sample numbers."""
        damaged = lengths.copy()
        damaged[rows == self.index] ^= 1 << self.bit
        return damaged

    def _flip(self, constant: Constant) -> npt.NDArray[Any]:
        self._check_bit(constant.name, constant.array.size, constant.dtype)
        return _flipped(constant.array, self.index, self.bit, constant.dtype)

    def _check_bit(self, what: str, elements: int, dtype: DataType) -> None:
        if self.index >= elements:
            raise InjectionError(
                f"--inject: {what} has elements 0 to {elements - 1}, not {self.index}"
            )
        if self.bit >= dtype.bits:
            raise InjectionError(
                f"--inject: {what} is {dtype}, its bits are 0 to {dtype.bits - 1}, not {self.bit}"
            )


def _flipped(array: npt.NDArray[Any], index: int, bit: int, dtype: DataType) -> npt.NDArray[Any]:
    """Return a copy with one bit of one element, counted in row-major order, flipped."""
    copy = np.ascontiguousarray(array).copy()
    flat = copy.reshape(-1)
    flat[index] = flip_bit(int(flat[index]), bit, dtype)
    return copy


def flip_bit(code: int, bit: int, dtype: DataType) -> int:
    """Return the code that a stored code becomes when one of its bits flips.

    >>> from hwsim.graph.dtype import BIPOLAR, TERNARY, int_
    >>> flip_bit(1, 0, BIPOLAR), flip_bit(0, 1, TERNARY), flip_bit(1, 1, TERNARY), flip_bit(5, 7, int_(8))
    (-1, -1, 0, -123)
    """
    mask = np.array([1 << bit], np.uint64)
    return int(flip_bits(np.array([code], np.int64), mask, dtype)[0])


def flip_bits(codes: npt.NDArray[Any], masks: Words, dtype: DataType) -> npt.NDArray[np.int64]:
    """Return what stored codes become when the bits that are set in their masks flip.

    Args:
        codes: int [n].
        masks: uint64 [n], bit b for bit b of the stored number.
        dtype: the type whose format the memory holds them in.
    """
    if dtype.kind == "bipolar":
        ones = (codes > 0).astype(np.uint64) ^ masks
        return 2 * ones.astype(np.int64) - 1
    if dtype.kind == "ternary":
        planes = (codes > 0).astype(np.uint64) | (codes < 0).astype(np.uint64) << np.uint64(1)
        planes ^= masks
        plus, minus = planes & np.uint64(1), planes >> np.uint64(1)
        return plus.astype(np.int64) - minus.astype(np.int64)
    words = codes.astype(np.int64).view(np.uint64) ^ masks
    if dtype.is_signed:
        return _signed(words, dtype.bits)
    return (words & np.uint64((1 << dtype.bits) - 1)).view(np.int64)


def _signed(words: Words, bits: int) -> npt.NDArray[np.int64]:
    """Read the lowest bits of words as two's complement."""
    above = 64 - bits
    return (words << np.uint64(above)).view(np.int64) >> np.int64(above)
