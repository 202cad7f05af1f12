"""What an array's operand registers and lanes take on real data, where its machine says what its figures were for.

A unit energy e of an array was measured or derived at some activity. At another one it is
e * (fixed + (1 - fixed) * activity / reference), so that it is e itself at the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hwsim.arch.component import ActivityReference


@dataclass(frozen=True)
class DataEnergy:
    """Lane and register energy of one operator over all samples, pJ.

    Attributes:
        node: the contraction.
        array: what it runs on.
        lane_activity: share of the operand bits at the lanes that flip from beat to beat.
        stated_pj: at the activity of the machine's file, as `hwsim run` counts it.
        data_pj: at the activity of this data.
    """

    node: str
    array: str
    lane_activity: float
    stated_pj: float
    data_pj: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {
            "operator": self.node,
            "array": self.array,
            "lane_activity": self.lane_activity,
            "stated_pj": self.stated_pj,
            "data_pj": self.data_pj,
        }


@dataclass(frozen=True)
class Switched:
    """What one port of an operator did: bits loaded, flips, and bits that stood at the lanes in all beats."""

    loaded_bits: int
    toggles: int
    presented_bits: int


def data_energy(
    node: str,
    array: str,
    ports: tuple[Switched, Switched],
    lane_ops: int,
    lane_op_pj: float,
    register_bit_pj: float,
    reference: ActivityReference,
) -> DataEnergy:
    """Price one operator at the activity that was counted.

    A register's activity is its flips over the bits that it was given. That of the lanes is the flips over the bits
    that stand there in every beat: an operand that stays costs its lanes no flips.
    """
    presented = sum(p.presented_bits for p in ports)
    lanes = sum(p.toggles for p in ports) / presented if presented else 0.0

    def at(activity: float) -> float:
        fixed = reference.fixed_frac
        return fixed + (1 - fixed) * activity / reference.toggle_rate

    loaded = [p.loaded_bits * register_bit_pj for p in ports]
    rates = [p.toggles / p.loaded_bits if p.loaded_bits else 0.0 for p in ports]
    lane_pj = lane_ops * lane_op_pj
    return DataEnergy(
        node,
        array,
        lanes,
        lane_pj + sum(loaded),
        lane_pj * at(lanes) + sum(pj * at(rate) for pj, rate in zip(loaded, rates, strict=True)),
    )
