"""Searches of many machines that remember what does not depend on where these machines differ.

A search reads a machine's structure (sizes, widths, cycles) and its unit energies. What is kept here depends on
structure alone: the fastest candidates of a product, and what a candidate does. Prices are always the
machine's own, so a result is that of a search without memory. The keys hold all that such a search reads.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hwsim.arch.spec import Quantity, Spec
from hwsim.engine.energy import Prices
from hwsim.mapping.gemm import GemmProblem, Tiling
from hwsim.mapping.mapper import Laid, Mapper
from hwsim.mapping.objective import Objective
from hwsim.mapping.rowwise import RowProblem
from hwsim.mapping.site import Site
from hwsim.mapping.tables import BUFFERS, Tables
from hwsim.mapping.trial import Tied

Key = Hashable
Room = tuple[int, ...]
"""bytes of the memories of A, W and output"""


class Memo:
    """What was found on earlier machines. It grows with the number of different machines and problems."""

    def __init__(self) -> None:
        self.tied: dict[tuple[Key, GemmProblem, Room], Tied | None] = {}
        self.most: dict[tuple[Key, GemmProblem], Room] = {}
        self.laid: dict[tuple[Key, GemmProblem, Tiling], Laid] = {}
        self.laid_rows: dict[tuple[Key, RowProblem, int], Laid] = {}
        self._numbers: dict[Key, int] = {}

    def number(self, structure: Key) -> int:
        """Return a number that stands for a structure: the same for equal ones."""
        return self._numbers.setdefault(structure, len(self._numbers))


class RememberingMapper(Mapper):
    """A mapper that shares a memory with those of other machines."""

    def __init__(self, site: Site, prices: Prices, objective: Objective, memo: Memo) -> None:
        super().__init__(site, prices, objective)
        self._memo = memo
        machine = site.machine
        memories = {
            name: structure(m.spec, leave_out=("capacity_bytes", "scaling", "fixed"))
            for name, m in machine.memories.items()
        }
        chip = (site.activation, site.weight, site.output, site.levels, site.has_control)
        wires = (
            site.channels,
            machine.spec.dma.width_bits_per_cycle,
            site.link.overhead_cycles,
            site.link.latency_cycles,
            site.link.bits_per_cycle,
            site.link.burst_bits,
        )
        common = (*chip, tuple(memories.items()))
        # An operator that moves nothing off chip does not see the way to DRAM.
        self._chip, self._moving = memo.number(common), memo.number((*common, *wires))
        self._arrays = {
            name: memo.number((type(array), name, structure(array.spec, leave_out=("fixed",))))
            for name, array in machine.arrays.items()
        }

        self._vectors: dict[tuple[str, ...], int] = {}

    def fastest(self, p: GemmProblem, free: Mapping[str, int]) -> Tied | None:
        """As `Mapper.fastest`; room that no candidate can fill is no difference."""
        key = self._key(p)
        memories = self._site.activation, self._site.weight, self._site.output
        room = tuple(free.get(m, 0) for m in memories)
        most = self._memo.most.get((key, p))
        if most is not None:
            room = _no_more(room, most)
            if (key, p, room) in self._memo.tied:
                return self._memo.tied[key, p, room]
        found = super().fastest(p, free)
        if most is None:
            most = self._memo.most[key, p] = most_bytes(self._scan(p).tables)
        self._memo.tied[key, p, _no_more(room, most)] = found
        return found

    def lay(self, p: GemmProblem, t: Tiling) -> Laid:
        """As `Mapper.lay`."""
        key = self._key(p), p, t
        if key not in self._memo.laid:
            self._memo.laid[key] = super().lay(p, t)
        return self._memo.laid[key]

    def lay_rows(self, p: RowProblem, size: int) -> Laid:
        """As `Mapper.lay_rows`."""
        moves = p.out_streams or any(p.constant_bits) or any(s.streams for s in p.sources)
        key = (self._moving if moves else self._chip, self._vector((p.op,))), p, size
        if key not in self._memo.laid_rows:
            self._memo.laid_rows[key] = super().lay_rows(p, size)
        return self._memo.laid_rows[key]

    def _key(self, p: GemmProblem) -> Key:
        stays = p.a_place == p.w_place == "chip" and not p.out_streams and not any(p.constant_bits)
        way = self._chip if stays else self._moving
        return way, self._arrays[p.array], self._vector(p.epilogue)

    def _vector(self, ops: tuple[str, ...]) -> Key:
        """Return what stands for the vector unit where these operators run on it."""
        if ops not in self._vectors:
            spec = self._site.vector.spec if ops else None
            parts = None
            if spec is not None:
                operators = tuple(structure(spec.operators[op]) for op in ops)
                parts = spec.lanes, spec.overhead_cycles, operators
            self._vectors[ops] = self._memo.number(parts)
        return self._vectors[ops]


def structure(value: Any, leave_out: tuple[str, ...] = ()) -> Key:
    """Return all of a description but its physical quantities, of which only remains whether they are there.

    Args:
        value: a description, or a part of one.
        leave_out: keys of the description itself that play no part.
    """
    if isinstance(value, Quantity):
        return Quantity
    if isinstance(value, Spec):
        fields = (f for f in type(value).model_fields if f not in leave_out)
        return tuple((f, structure(getattr(value, f))) for f in fields)
    if isinstance(value, dict):
        return tuple((k, structure(v)) for k, v in value.items())
    if isinstance(value, list | tuple):
        return tuple(structure(v) for v in value)
    key: Key = value
    return key


def most_bytes(tables: Tables) -> Room:
    """Return more bytes than the buffers of any tiling of a product take, for A, W and output.

    Every accumulator and every result is taken to wait at once; roles of one memory share all of it.
    """
    a, w, *out, m_tiles, n_tiles, _ = tables.columns[BUFFERS]
    tiles = tables.p.batch * m_tiles[:, None] * n_tiles[None, :]
    memories = tables.memories()
    halves = [tables.site.halves(m) for m in memories]
    sizes = halves[0] * int(a.max()), halves[1] * int(w.max()), int((tiles * sum(out)).max())
    taken: dict[str, int] = {}
    for memory, size in zip(memories, sizes, strict=True):
        taken[memory] = taken.get(memory, 0) + size
    return tuple(taken[m] for m in memories)


def _no_more(room: Room, most: Room) -> Room:
    return tuple(min(r, m) for r, m in zip(room, most, strict=True))
