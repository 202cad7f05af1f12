"""What a graph costs on thousands of machines: one call, columns out, for whoever searches machines.

>>> machines = hwsim.vary("ternary_edge", {"arrays.main.rows": [4, 8], "dma.channels": [1, 2]})  # doctest: +SKIP
>>> hwsim.cost("MODEL", machines).cycles_steady                                                  # doctest: +SKIP

Every row is what `hwsim.run(..., cost_only=True)` of that machine says, to the last bit; only what cannot differ
is shared between rows (`hwsim.mapping.memo`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hwsim.arch.machine import Machine
from hwsim.arch.machine_spec import MachineSpec
from hwsim.config.load import build_machine, changed_machine, machine_bases
from hwsim.config.source import Document
from hwsim.engine.energy import Prices
from hwsim.engine.inference import costed, ledger_of, map_inference, peak_bytes
from hwsim.engine.memory_plan import Program, bind_length, make_program
from hwsim.errors import BitwrightError, ConfigError
from hwsim.graph.ir import QuantGraph
from hwsim.graph.serialize import Model, load
from hwsim.mapping.memo import Memo, RememberingMapper
from hwsim.mapping.objective import Objective
from hwsim.mapping.site import Site

PIECES = 4
"""Into so many pieces a worker's share is cut, so that none of them waits long for the last."""
MISSING = -1
"""what a column of whole numbers holds where a machine was refused; one of other numbers holds NaN"""


@dataclass(frozen=True, slots=True)
class Variant:
    """A machine's name or file with some of its keys set: `("arrays.main.rows", 8)`, as `--set` does."""

    machine: str
    settings: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """One machine's line: the columns of `Costs` without the machine's own."""

    cycles_cold: int = MISSING
    cycles_steady: int = MISSING
    clock_hz: int = MISSING
    energy_pj: float = np.nan
    energy_low_pj: float = np.nan
    energy_high_pj: float = np.nan
    energy_cold_pj: float = np.nan
    area_um2: float = np.nan
    weight_bytes: int = MISSING
    resident_bytes: int = MISSING
    peak_activation_bytes: int = MISSING
    refusal: str = ""


@dataclass(frozen=True)
class Costs:
    """What one inference costs on each machine: columns [n], in the order of the machines.

    Attributes:
        machine: names.
        settings: what was set on each.
        cycles_cold, cycles_steady: core cycles, constants from DRAM or on chip where they stay.
        clock_hz: core clock.
        energy_pj, energy_low_pj, energy_high_pj: of a steady inference: nominal, 5th and 95th percentile of the draws.
        energy_cold_pj: nominal energy of a cold one.
        area_um2: nominal area of the chip; NaN where a part states none.
        weight_bytes: encoded bytes of all constants.
        resident_bytes: of those that stay on chip.
        peak_activation_bytes: of live activations and buffers, wherever they are.
        refusal: why a machine cannot run the graph, or ""; its other columns are then -1 or NaN.
    """

    machine: npt.NDArray[np.str_]
    settings: tuple[dict[str, Any], ...]
    cycles_cold: npt.NDArray[np.int64]
    cycles_steady: npt.NDArray[np.int64]
    clock_hz: npt.NDArray[np.int64]
    energy_pj: npt.NDArray[np.float64]
    energy_low_pj: npt.NDArray[np.float64]
    energy_high_pj: npt.NDArray[np.float64]
    energy_cold_pj: npt.NDArray[np.float64]
    area_um2: npt.NDArray[np.float64]
    weight_bytes: npt.NDArray[np.int64]
    resident_bytes: npt.NDArray[np.int64]
    peak_activation_bytes: npt.NDArray[np.int64]
    refusal: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.machine)

    @property
    def ok(self) -> npt.NDArray[np.bool_]:
        """Which machines run the graph: [n]."""
        return np.asarray(self.refusal == "")

    def at(self, index: Sequence[int] | npt.NDArray[Any]) -> Costs:
        """Return some of the rows, chosen by position or by a mask [n]."""
        chosen = np.arange(len(self))[index]
        names = [f.name for f in fields(self) if f.name != "settings"]
        settings = tuple(self.settings[i] for i in chosen)
        return Costs(settings=settings, **{name: getattr(self, name)[chosen] for name in names})

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the columns as plain lists; None where a number is missing."""
        ok = self.ok
        columns: dict[str, list[Any]] = {}
        for f in fields(self):
            column = getattr(self, f.name)
            if f.name in ("machine", "settings", "refusal"):
                columns[f.name] = list(column if f.name == "settings" else column.tolist())
            else:
                there = ok & ~np.isnan(column)
                columns[f.name] = [
                    v if t else None for v, t in zip(column.tolist(), there, strict=True)
                ]
        return columns

    def rows(self) -> list[dict[str, Any]]:
        """Return the machines one by one, as plain data."""
        columns = self.to_dict()
        return [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]


def vary(
    machine: Path | str, values: Mapping[str, Sequence[Any]] | Iterable[Mapping[str, Any]]
) -> list[Variant]:
    """Return variants of a machine: every combination of some keys' values, or one for each mapping.

    Args:
        machine: a shipped machine's name or a YAML file.
        values: key -> its values, the last key changing fastest; or an iterable of key -> value. Values are
            plain data as YAML would give them; a quantity is a mapping with its provenance, or its `value`,
            `low` and `high` are set.
    """
    points: Iterable[Mapping[str, Any]]
    if isinstance(values, Mapping):
        for key, several in values.items():
            if isinstance(several, str) or not isinstance(several, Iterable):
                raise ConfigError(f"{key}: must be a list of values, not {several!r}")
        grid = itertools.product(*values.values())
        points = (dict(zip(values, point, strict=True)) for point in grid)
    else:
        points = values
    return [Variant(str(machine), tuple(point.items())) for point in points]


def cost(
    model: Model | QuantGraph | Path | str,
    machines: Iterable[Machine | Variant | str],
    objective: Literal["cycles", "energy"] = "cycles",
    length: int | None = None,
    workers: int = 1,
) -> Costs:
    """Return what one inference costs on each of many machines.

    A machine that is wrong or cannot run the graph is a row with a refusal, not an exception.

    Args:
        model: an export folder, a loaded model, or a graph (of a workload, for instance).
        machines: loaded machines, names or files, or variants of them (`vary`).
        objective: what mappings are chosen for, `cycles` or `energy`.
        length: tokens of the sample; None takes the longest that the graph was built for.
        workers: processes. Neighbours in `machines` share most, so each takes runs of them.

    Raises:
        CheckpointError: the model is no export, or damaged.
        GraphError: the length is out of range.
        ConfigError: a machine's file does not exist or cannot be read.
    """
    if isinstance(model, Path | str):
        model = load(model)
    graph = model.graph if isinstance(model, Model) else model
    bind_length(graph, length)
    wanted = [Variant(m, ()) if isinstance(m, str) else m for m in machines]
    names = dict.fromkeys(m.machine for m in wanted if isinstance(m, Variant))
    bases = {name: machine_bases(name) for name in names}  # a file that is not there is no row
    context = (graph, length, Objective(objective), bases)
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    if workers == 1:
        rows = _Session(*context).rows(wanted)
    else:
        share = max(1, -(-len(wanted) // (workers * PIECES)))
        pieces = [
            [m.spec if isinstance(m, Machine) else m for m in wanted[i : i + share]]
            for i in range(0, len(wanted), share)
        ]
        with ProcessPoolExecutor(workers, initializer=_start, initargs=context) as pool:
            rows = [row for piece in pool.map(_piece, pieces) for row in piece]
    return _columns(wanted, rows)


class _Session:
    """A graph with all that its costs on several machines have in common."""

    def __init__(
        self,
        graph: QuantGraph,
        length: int | None,
        objective: Objective,
        bases: Mapping[str, Document],
    ) -> None:
        self._graph, self._length, self._objective = graph, length, objective
        self._bases = bases
        self._memo = Memo()
        self._programs: dict[tuple[object, ...], tuple[QuantGraph, Program]] = {}

    def rows(self, machines: Iterable[Machine | Variant]) -> list[_Row]:
        """Return the lines of some machines."""
        return [self._row(m) for m in machines]

    def _row(self, machine: Machine | Variant) -> _Row:
        try:
            if isinstance(machine, Variant):
                bases = self._bases[machine.machine]
                machine = build_machine(changed_machine(bases, machine.settings))
            return self._cost(machine)
        except BitwrightError as error:
            return _Row(refusal=str(error))

    def _cost(self, machine: Machine) -> _Row:
        machine.check(self._graph)
        graph, program = self._program(machine)
        site, prices = Site(machine), Prices(machine)
        mapper = RememberingMapper(site, prices, self._objective, self._memo)
        inference = map_inference(graph, program, site, mapper)
        work = inference.steady.work()
        cold_work = inference.cold.work()
        energy = ledger_of(work, prices).total
        plan = inference.steady.placement.plan
        peak, _ = peak_bytes(plan, (w.mapping for w in work), site)
        area = machine.area_um2
        return _Row(
            cycles_cold=sum(w.mapping.timeline.cycles for w in cold_work),
            cycles_steady=sum(w.mapping.timeline.cycles for w in work),
            clock_hz=machine.spec.clock_hz,
            energy_pj=energy.nominal,
            energy_low_pj=energy.low,
            energy_high_pj=energy.high,
            energy_cold_pj=ledger_of(cold_work, prices).nominal_pj,
            area_um2=np.nan if area is None else area,
            weight_bytes=sum(s.bytes for s in program.stores.values()),
            resident_bytes=plan.resident_bytes(),
            peak_activation_bytes=peak,
        )

    def _program(self, machine: Machine) -> tuple[QuantGraph, Program]:
        unit = machine.vector_unit
        repacks = unit is not None and unit.supports("relayout")
        key = (repacks, *machine.spec.output_stage)
        if key not in self._programs:
            length = bind_length(self._graph, self._length)
            graph = costed(self._graph, machine, length).graph
            self._programs[key] = graph, make_program(graph, length)
        return self._programs[key]


def _columns(machines: Sequence[Machine | Variant], rows: Sequence[_Row]) -> Costs:
    names = [m.name if isinstance(m, Machine) else m.machine for m in machines]
    columns: dict[str, Any] = {}
    for f in fields(_Row):
        kind = {"int": np.int64, "float": np.float64, "str": np.str_}[str(f.type)]
        columns[f.name] = np.array([getattr(row, f.name) for row in rows], dtype=kind)
    return Costs(
        machine=np.array(names, dtype=np.str_),
        settings=tuple({} if isinstance(m, Machine) else dict(m.settings) for m in machines),
        **columns,
    )


_session: _Session | None = None
"""that of a worker process"""


def _start(*context: Any) -> None:
    global _session  # noqa: PLW0603  a process of a pool keeps what it was started with
    _session = _Session(*context)


def _piece(machines: Sequence[MachineSpec | Variant]) -> list[_Row]:
    assert _session is not None
    return _session.rows(Machine(m) if isinstance(m, MachineSpec) else m for m in machines)
