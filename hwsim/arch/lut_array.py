"""Lookup-table array: sums of a few activations are tabulated, and the weights index the tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from hwsim.arch.bit_serial_array import stored_bits, top_plane_negative
from hwsim.arch.component import ArrayComponent, ArrayEnergySpec, ArraySpec, Codes
from hwsim.arch.spec import Count, Quantity
from hwsim.arch.work import Beat, Work, ceil_div, filled_cycles, parts, waiting_cycles
from hwsim.graph import dtype as dt
from hwsim.graph.dtype import BIPOLAR, DataType
from hwsim.registry import register


class LutEnergySpec(ArrayEnergySpec):
    """Unit energies of a lookup-table array. Its lane operation is one lookup, `group` positions of K."""

    table_entry_fj: Quantity
    """fJ of building one entry of a table: its addition and its register write"""


class LutArraySpec(ArraySpec):
    """Description of a lookup-table array."""

    kind: Literal["lut"]
    """`lut`"""
    index: Literal["bits", "trits"]
    """what a weight plane holds: `bits` (2^group entries, a pass a bit) or `trits` (3^group, one pass)"""
    group: Annotated[int, Field(ge=1, le=8)]
    """activations a table sums, and neighbouring weights that index it; a divisor of `lanes`"""
    build_rate: Count
    """entries that one builder makes in a cycle"""
    builders: Count = 1
    """tables built side by side"""
    table_shadow: bool = False
    """a second set of tables is built while the first is read"""
    energy: LutEnergySpec
    """unit energies"""

    @model_validator(mode="after")
    def _group_fits(self) -> LutArraySpec:
        if self.lanes % self.group:
            raise ValueError(
                "must have lanes that are a multiple of group,"
                f" not lanes {self.lanes} and group {self.group}"
            )
        wide = [p.weight for p in self.formats if dt.parse(p.weight).max_abs > 1]
        if self.index == "trits" and wide:
            raise ValueError(
                f"must have TERNARY or BIPOLAR weights where index is trits, not {wide[0]}"
            )
        return self


@register("array", "lut")
class LutArray(ArrayComponent):
    """Multiplies activations of at most 8 bits by weights of at most 8 bits, `group` products a lookup.

    A block of r x l activations needs r * ceil(l / group) tables, each built in ceil(entries / build_rate)
    cycles, `builders` at a time, and not faster than the activations enter; then the columns look up, a
    pass a weight plane. The block's tables are built again whenever it differs from that of the beat
    before. With `table_shadow` the next block's are built meanwhile; the first of a compute step is waited
    for all the same. Planes are shifted and added before the accumulator, which a block updates once.
    """

    spec_class = LutArraySpec
    spec: LutArraySpec

    @classmethod
    def check_formats(cls, activation: DataType, weight: DataType) -> str | None:
        """Return what is wrong with a pair of formats, or None."""
        if activation.bits <= 8 and weight.bits <= 8:
            return None
        return "must be at most 8 bits x at most 8 bits on a lut array"

    @property
    def entries(self) -> int:
        """Entries of a table."""
        base = 2 if self.spec.index == "bits" else 3
        return int(base**self.spec.group)

    def passes(self, a: DataType, w: DataType) -> int:
        """Count the passes: one for every weight plane."""
        return w.bits if self.spec.index == "bits" else 1

    def operand_bits(self, a: DataType, w: DataType) -> tuple[int, int]:
        """Return the bits that enter in one pass: whole activations and one weight plane."""
        return a.bits, w.bits // self.passes(a, w)

    def initiation_interval(self, a: DataType, w: DataType, r: int, c: int, l: int) -> int:  # noqa: E741
        """Return the cycles between two beats; activations enter while tables are built."""
        return super().initiation_interval(a, w, 0, c, l)

    def build_cycles(self, r: int, l: int, a: DataType) -> int:  # noqa: E741
        """Return the cycles until the tables of r x l activations are built."""
        s = self.spec
        rounds = ceil_div(r * ceil_div(l, s.group), s.builders)
        entering = ceil_div(r * l * a.bits, s.activation_port_bits_per_cycle)
        return max(rounds * ceil_div(self.entries, s.build_rate), entering)

    def cycles(self, m: int, n: int, k: int, a: DataType, w: DataType) -> int:
        """Count the cycles that an m x n x k compute step occupies the array (pipeline depth apart)."""
        rows, cols, lanes = self.block(a, w)
        n_blocks = ceil_div(n, cols)
        again, uses = (1, n_blocks) if k <= lanes else (n_blocks, 1)
        builds = [
            (self.build_cycles(r, depth, a), r_times * d_times * again)
            for r, r_times in parts(m, rows)
            for depth, d_times in parts(k, lanes)
        ]
        use = uses * self.passes(a, w) * self.interval_of(m, n, k, a, w)
        return filled_cycles(builds, use, self.spec.table_shadow) if n else 0

    def work(self, m: int, n: int, k: int, a: DataType, w: DataType) -> Work:
        """Count what an m x n x k compute step does: lookups for lane operations, and entries built."""
        lanes = self.block(a, w)[2]
        groups, n_blocks = ceil_div(k, self.spec.group), ceil_div(n, self.block(a, w)[1])
        built = m * groups * (min(1, n_blocks) if k <= lanes else n_blocks)
        common = super().work(m, n, k, a, w)
        return replace(
            common,
            lane_ops=m * n * groups * self.passes(a, w),
            accumulator_updates=m * n * ceil_div(k, lanes),
            own=(("table_entry", built * self.entries),),
        )

    def schedule(self, m: int, n: int, k: int, a: DataType, w: DataType) -> Iterator[Beat]:
        """Yield the beats in order; one that fetches new activations waits for their tables."""
        _, cols, lanes = self.block(a, w)
        uses = ceil_div(n, cols) if k <= lanes else 1
        use = uses * self.passes(a, w) * self.interval_of(m, n, k, a, w)
        is_first = True
        for index, beat in enumerate(super().schedule(m, n, k, a, w)):
            r, c, depth = len(beat.m), len(beat.n), len(beat.k)
            groups = ceil_div(depth, self.spec.group)
            wait = entries = 0
            if beat.work.activation.reads:
                fill = self.build_cycles(r, depth, a)
                wait = waiting_cycles(fill, use, self.spec.table_shadow, is_first)
                entries = r * groups * self.entries
                is_first = False
            work = replace(
                beat.work,
                lane_ops=r * c * groups,
                accumulator_updates=0 if index % self.passes(a, w) else r * c,
                own=(("table_entry", entries),),
            )
            yield replace(beat, cycles=beat.cycles + wait, work=work)

    def action_fj(self, action: str) -> Quantity:
        """Return the energy of one action that does not depend on the operand types, fJ."""
        if action == "table_entry":
            return self.spec.energy.table_entry_fj
        return super().action_fj(action)

    def _exact(self, a: Codes, w: Codes, a_dtype: DataType, w_dtype: DataType) -> Codes:
        from hwsim.kernels.lut_gemm import lut_gemm_i32, table_indices

        group = self.spec.group
        if self.spec.index == "trits":
            planes = [w.astype(np.int64) + 1]
            digits, weights = [-1, 0, 1], [1]
        else:
            bits = stored_bits(w, w_dtype)
            planes = [(bits >> p) & 1 for p in range(w_dtype.bits)]
            digits = [-1, 1] if w_dtype == BIPOLAR else [0, 1]
            weights = [1 << p for p in range(w_dtype.bits)]
            if top_plane_negative(w_dtype):
                weights[-1] = -weights[-1]
        out = np.empty((a.shape[0], w.shape[0]), np.int32)
        lut_gemm_i32(
            np.ascontiguousarray(a, np.int32),
            np.stack([table_indices(plane, len(digits), group) for plane in planes]),
            np.array(digits, np.int64),
            group,
            np.array(weights, np.int64),
            out,
        )
        return out
