"""Random bit errors: every stored bit of some memories flips by itself, with one probability.

`FIELD[:NODES[:FORMAT]]` names a place: a constant's role (`hwsim.engine.inject.CONSTANTS`), `activation` (what a vector
operator writes) or `cache` (keys and values, as decoding keeps them), of the nodes and number types that match two
patterns. A bit is what `--inject` says it is: `hwsim.engine.inject.flip_bits` is the one definition.

The hardware reads what is stored, also where no undamaged model has it: shifts are 6 bits and shift by 0 to 63, a
narrow type has its lowest code, too, thresholds stand in any order (each comparator counts by itself), an exponent
table's address saturates, and sums and products of 64 bits wrap.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from hwsim.engine.inject import CONSTANTS, InjectionError, flip_bits
from hwsim.errors import nearest
from hwsim.graph.decode_view import caches, decode_faults
from hwsim.graph.dtype import DataType
from hwsim.graph.ir import Constant, QuantGraph, Tensor
from hwsim.graph.ops import OPERATORS
from hwsim.graph.output_stage import staged

if TYPE_CHECKING:
    from hwsim.arch.machine import Machine

ACTIVATION, CACHE = "activation", "cache"
PLACE_FIELDS = (*CONSTANTS, ACTIVATION, CACHE)
Codes = npt.NDArray[Any]


@dataclass(frozen=True)
class Place:
    """Some of what a machine's memories hold."""

    field: str
    nodes: str = "*"
    """pattern of node names: `*` any text, `?` any letter"""
    format: str = "*"
    """pattern of number types, for example `TERNARY` or `INT*`"""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `FIELD[:NODES[:FORMAT]]`.

        Raises:
            InjectionError: the text has another form.
        """
        parts = text.split(":")
        if len(parts) > 3 or not all(parts):
            raise InjectionError(
                f"a place of bit errors must be FIELD[:NODES[:FORMAT]], for example weight:*.layers.0.*, not {text!r}"
            )
        if parts[0] not in PLACE_FIELDS:
            raise InjectionError(
                f"a place of bit errors: FIELD must be one of {', '.join(PLACE_FIELDS)}, not {parts[0]!r}"
                f"{nearest(parts[0], PLACE_FIELDS)}"
            )
        return cls(*parts)

    def __str__(self) -> str:
        parts = (self.field, self.nodes, self.format)
        return ":".join(parts).removesuffix(":*").removesuffix(":*")

    def holds(self, name: str, dtype: DataType) -> bool:
        """Whether a node's constant or tensor of this type belongs to it."""
        return fnmatchcase(name, self.nodes) and fnmatchcase(dtype.name, self.format)


@dataclass(frozen=True)
class BitErrors:
    """How often stored bits flip, where, and which draw of it."""

    rate: float
    """probability of each bit, 0 to 1"""
    where: tuple[str, ...] = ("weight",)
    """places, `FIELD[:NODES[:FORMAT]]` each; what several of them name is exposed once"""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise InjectionError(f"a bit error rate must be 0 to 1, not {self.rate}")
        if self.seed < 0:
            raise InjectionError(f"the seed of bit errors must be at least 0, not {self.seed}")
        if not self.where:
            raise InjectionError("bit errors need at least one place, for example weight")
        for text in self.where:
            Place.parse(text)

    @property
    def places(self) -> tuple[Place, ...]:
        """`where`, read."""
        return tuple(Place.parse(text) for text in self.where)


class Damage:
    """A model as it lies in memories with bit errors. Constants are damaged once, tensors whenever they are written.

    Args:
        graph: the undamaged model.
        machine: what runs it: its output stage decides which tensors see no memory.
        errors: how often, where, which draw.

    Attributes:
        graph: the model with damaged constants; the very graph that was given if none of their bits flipped.
        bits: number type -> bits that could flip so far; those of tensors count each time they are written.
        flipped: how many did.

    Raises:
        InjectionError: a place names nothing of the model.
    """

    def __init__(self, graph: QuantGraph, machine: Machine, errors: BitErrors) -> None:
        self.errors = errors
        self.bits: Counter[str] = Counter()
        self.flipped = 0
        self._tensors = exposed_tensors(graph, machine, errors.places)
        self._streams = {name: self._stream(name) for name in self._tensors}
        held = exposed_constants(graph, errors.places)
        damaged = {}
        for name in sorted(held):
            constant = graph.constants[name]
            codes = self._read(constant.array, constant.dtype, self._stream(name))
            if codes is not constant.array:
                damaged[name] = Constant(name, constant.dtype, codes)
        if damaged:
            graph = replace(graph, constants={**graph.constants, **damaged})
        self.graph = graph

    @property
    def of_tensors(self) -> bool:
        """Whether tensors can be damaged while the model runs."""
        return bool(self._tensors)

    def memory(self, tensor: Tensor, codes: Codes) -> Codes:
        """Return what is read of a tensor after it was written: `hwsim.engine.execute.Memory`."""
        if tensor.name not in self._tensors:
            return codes
        return self._read(codes, tensor.dtype, self._streams[tensor.name])

    def to_json(self) -> dict[str, Any]:
        """Return the rate, places and seed, the bits that could flip by number type, and how many did."""
        return {
            "rate": self.errors.rate,
            "where": list(self.errors.where),
            "seed": self.errors.seed,
            "bits": dict(sorted(self.bits.items())),
            "flipped": self.flipped,
        }

    def note(self) -> str:
        """Say the same in one line."""
        return (
            f"bit errors: {self.flipped:,} of {self.bits.total():,} stored bits flipped (rate {self.errors.rate:g},"
            f" {', '.join(self.errors.where)}, seed {self.errors.seed}); the accuracy is that of the damaged model"
        )

    def _stream(self, name: str) -> np.random.Generator:
        # a stream for each name: what flips in one constant does not depend on what else is exposed
        digest = hashlib.sha256(name.encode()).digest()
        return np.random.default_rng([self.errors.seed, int.from_bytes(digest[:8], "little")])

    def _read(self, codes: Codes, dtype: DataType, stream: np.random.Generator) -> Codes:
        self.bits[dtype.name] += codes.size * dtype.bits
        masks = draw_masks(codes.size, dtype.bits, self.errors.rate, stream)
        hit = np.flatnonzero(masks)
        if len(hit) == 0:
            return codes
        self.flipped += int(np.bitwise_count(masks[hit]).sum())
        read = np.ascontiguousarray(codes).copy()
        flat = read.reshape(-1)
        flat[hit] = flip_bits(flat[hit], masks[hit], dtype)
        return read


def draw_masks(
    elements: int, bits: int, rate: float, stream: np.random.Generator
) -> npt.NDArray[np.uint64]:
    """Draw which bits of some elements flip, each by itself with probability `rate`.

    Bit plane by bit plane: their number is binomial, their places without replacement. That is exactly the
    distribution of independent bits, at a cost of the flips and not of the bits.

    Returns:
        uint64 [elements], bit b set where bit b of the stored number flips.
    """
    masks = np.zeros(elements, np.uint64)
    for bit, count in enumerate(stream.binomial(elements, rate, bits).tolist()):
        if count:
            places = stream.choice(elements, count, replace=False, shuffle=False)
            masks[places] |= np.uint64(1 << bit)
    return masks


def exposed_constants(graph: QuantGraph, places: Iterable[Place]) -> set[str]:
    """Return the names of the constants in some places.

    Raises:
        InjectionError: the model has no such constant, or no node of one matches.
    """
    have = [
        (role, node.name, graph.constants[name])
        for node in graph.nodes
        for role, name in node.constants.items()
    ]
    found: set[str] = set()
    for place in places:
        if place.field in CONSTANTS:
            of_role = [(node, c) for role, node, c in have if role == place.field]
            if not of_role:
                fields = [f for f in CONSTANTS if any(role == f for role, _, _ in have)]
                raise InjectionError(f"the model has no {place.field}; it has {', '.join(fields)}")
            matching = {c.name for node, c in of_role if place.holds(node, c.dtype)}
            if not matching:
                raise _nothing(place, [(node, c.dtype) for node, c in of_role])
            found |= matching
    return found


def exposed_tensors(graph: QuantGraph, machine: Machine, places: Iterable[Place]) -> set[str]:
    """Return the tensors in some places: `activation` are those that vector operators write to a memory.

    Accumulators lie in the arrays, and what an output stage hands on to its next operator lies nowhere. A view
    reads the memory of the tensor that it shows.

    Raises:
        InjectionError: no tensor matches, or `cache` of a model that cannot be decoded.
    """
    chains = staged(graph, machine.spec.output_stage).values()
    inside = {node.name for chain in chains for node in chain[:-1]}
    written = [
        n.name for n in graph.nodes if OPERATORS[n.op].unit == "vector" and n.name not in inside
    ]
    found: set[str] = set()
    for place in places:
        if place.field in CONSTANTS:
            continue
        names = written
        if place.field == CACHE:
            why_not = decode_faults(graph)
            if why_not:
                raise InjectionError(f"the model has no cache: {why_not[0]}")
            names = [c.tensor for c in caches(graph)]
        types = [(name, graph.tensors[name].dtype) for name in names]
        matching = {name for name, dtype in types if place.holds(name, dtype)}
        if not matching:
            raise _nothing(place, types)
        found |= matching
    return found


def _nothing(place: Place, have: list[tuple[str, DataType]]) -> InjectionError:
    formats = sorted({dtype.name for _, dtype in have})
    names = [name for name, _ in have]
    near = nearest(place.nodes.strip("*"), names)
    if not near:
        near = f"; nodes are, for example, {', '.join(names[:2])}"
    return InjectionError(
        f"no {place.field} matches {str(place)!r}: its formats are {', '.join(formats)}{near}"
    )
