"""A machine at another voltage and clock than its file's own."""

from __future__ import annotations

from typing import Any

from hwsim.arch.machine_spec import MachineSpec, OperatingPointSpec, TechnologySpec
from hwsim.arch.spec import Quantity, Spec
from hwsim.errors import ConfigError, nearest

_UNSCALED = ("area_um2",)


def at_operating_point(machine: MachineSpec, name: str) -> MachineSpec:
    """Return the description of a machine at one of its operating points.

    Dynamic energies and leakage on the chip are multiplied by the point's factors; areas and the DRAM,
    which has a supply of its own, stay. Cycles that the file states in core cycles stay, too.

    Raises:
        ConfigError: the machine has no such point.
    """
    points = {p.name: p for p in machine.operating_points}
    if name not in points:
        have = ", ".join(points) or "none"
        raise ConfigError(
            f"machine {machine.name}: operating point must be one of its own ({have}), not {name!r}"
            f"{nearest(name, list(points))}"
        )
    point = points[name]
    on_chip = ("arrays", "vector_unit", "memories", "dma", "control_pj_per_step", "idle")
    changed = {part: _scaled(getattr(machine, part), part, point) for part in on_chip}
    technology = TechnologySpec(node_nm=machine.technology.node_nm, voltage_v=point.voltage_v)
    return machine.model_copy(
        update={**changed, "technology": technology, "clock_hz": point.clock_hz}
    )


def _scaled(part: Any, key: str, point: OperatingPointSpec) -> Any:
    if isinstance(part, Quantity):
        if key in _UNSCALED:
            return part
        return part.scaled(point.leakage_scale if key == "leakage_mw" else point.dynamic_scale)
    if isinstance(part, Spec):
        fields = type(part).model_fields
        return part.model_copy(update={f: _scaled(getattr(part, f), f, point) for f in fields})
    if isinstance(part, dict):
        return {k: _scaled(v, k, point) for k, v in part.items()}
    if isinstance(part, list):
        return [_scaled(v, key, point) for v in part]
    return part
