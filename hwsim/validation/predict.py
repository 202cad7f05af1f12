"""Our answer to what a validation target asks. Nothing here sees the published value.

A peak is one compute step of full blocks with its operands on chip; a network is `cost_workload`; a
pipeline of engines gives a result every time that its slowest engine is through.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod

from hwsim.arch.machine import Machine
from hwsim.arch.targets import ENERGY_METRICS, Metric, ModeSpec, QuestionSpec
from hwsim.engine.energy import Count, Ledger, Prices, array_counts, waiting_counts
from hwsim.errors import ConfigError
from hwsim.graph import dtype as dt
from hwsim.mapping.site import Site
from hwsim.workload import LayerSpec, Workload, cost_workload

PEAK_BLOCKS = (256, 16, 16)
"""blocks of M, N and K in a peak: enough that filling a block once weighs little"""

_MS_PER_S = 1e3
_OPS_PER_GOP = 1e9
_PJ_PER_UJ = 1e6
_FJ_PER_PJ = 1e3


@dataclass(frozen=True)
class Prediction:
    """An answer in the metric's unit; for energies the 5-95 % band and the joules by provenance."""

    value: float
    low: float
    high: float
    share_by_provenance: dict[str, float]

    @property
    def band_ratio(self) -> float:
        """High end of the band over its low end; 1 where nothing is uncertain."""
        return self.high / self.low


@dataclass(frozen=True)
class Measure:
    """What a machine did: `ops` operations in `cycles` core cycles; the ledger where energy was asked for."""

    ops: int
    cycles: int
    clock_hz: int
    ledger: Ledger | None

    def predict(self, question: QuestionSpec) -> Prediction:
        """Return the answer to a question."""
        if question.metric in ENERGY_METRICS:
            if self.ledger is None:
                raise AssertionError("a pipeline of engines is not asked for energy")
            part = parts_of(self.ledger, question)
            band = part.total
            ends = [as_metric(pj, self.ops, question.metric) for pj in (band.low, band.high)]
            nominal = as_metric(band.nominal, self.ops, question.metric)
            return Prediction(nominal, min(ends), max(ends), part.share_by_provenance())
        seconds = self.cycles / self.clock_hz
        value = {
            "cycles": float(self.cycles),
            "ms": seconds * _MS_PER_S,
            "fps": 1 / seconds,
            "gops": self.ops / seconds / _OPS_PER_GOP,
        }[question.metric]
        return Prediction(value, value, value, {})


def as_metric(pj: float, ops: int, metric: Metric) -> float:
    """Return an energy as uJ, fJ an operation or TOPS/W."""
    if metric == "uj":
        return pj / _PJ_PER_UJ
    return pj * _FJ_PER_PJ / ops if metric == "fj_per_op" else ops / pj


def parts_of(ledger: Ledger, question: QuestionSpec) -> Ledger:
    """Return the part of a ledger that a question includes."""
    wanted = question.includes
    kept = [e for e in ledger.entries if e[1].component.partition(":")[0] in wanted]
    return Ledger(ledger.prices, kept)


def measure(machine: Machine, question: QuestionSpec, workload: Workload | None) -> Measure:
    """Return what a machine does for a question, which answers every metric of that run.

    Args:
        machine: the machine at its file's own voltage and clock.
        question: what is asked.
        workload: the network; None for a peak.

    Raises:
        ConfigError: there is not one engine a layer.
        GraphError: the machine lacks a format.
        CapacityError: not even the smallest tile of a layer fits a memory.
    """
    if question.operating_point is not None:
        machine = machine.at(question.operating_point)
    if question.mode is not None:
        return _peak(machine, question.mode)
    if workload is None:
        raise AssertionError("a question that is no peak comes with its workload")
    if question.engines:
        cycles = _slowest_engine(machine, question, workload)
        return Measure(2 * workload.macs, cycles, machine.spec.clock_hz, None)
    report = cost_workload(workload, machine)
    return Measure(
        2 * workload.macs, report.steady.cycles, machine.spec.clock_hz, report.steady.ledger
    )


def _peak(machine: Machine, mode: ModeSpec) -> Measure:
    """Run `PEAK_BLOCKS` full blocks: each operand is fetched and each result written once a use."""
    a, w = dt.parse(mode.activation), dt.parse(mode.weight)
    array = machine.array_for(a, w)
    site = Site(machine)
    rows, cols, lanes = array.block(a, w)
    m, n, k = (size * blocks for size, blocks in zip((rows, cols, lanes), PEAK_BLOCKS, strict=True))
    cycles = array.cycles(m, n, k, a, w)
    work = array.work(m, n, k, a, w)
    results = PEAK_BLOCKS[0] * PEAK_BLOCKS[1] * site.writes(site.output, rows * cols * a.bits)
    counts = [
        *array_counts(array, a, w, [(1, work)]),
        *(
            Count(f"memory:{memory}", "read", operand, times * site.reads(memory, bits))
            for memory, operand, fetches in (
                (site.activation, "activation", work.activation),
                (site.weight, "weight", work.weight),
            )
            for bits, times in fetches.reads
        ),
        Count(f"memory:{site.output}", "write", "output", results),
        *waiting_counts(machine, cycles, {f"array:{array.name}": cycles}),
        *site.control(1),
    ]
    ledger = Ledger(Prices(machine), [("peak", c) for c in counts])
    return Measure(2 * m * n * k, cycles, machine.spec.clock_hz, ledger)


def _slowest_engine(machine: Machine, question: QuestionSpec, workload: Workload) -> int:
    """Return the cycles between two results of a pipeline with an array for each layer."""
    layers = workload.spec.layers
    if len(question.engines) != len(layers):
        raise ConfigError(
            f"{machine.name}: target {question.name!r} must name one engine for each of the"
            f" {len(layers)} layers of {workload.name}, not {len(question.engines)}"
        )
    cycles = []
    for name, layer in zip(question.engines, layers, strict=True):
        a, w = dt.parse(layer.activation), dt.parse(layer.weight)
        array = machine.arrays[name]
        array.lane_op_fj(a, w)  # refuses formats that the engine does not multiply
        cycles.append(layer.count * sum(array.cycles(g.m, g.n, g.k, a, w) for g in layer.gemms()))
    return max(cycles)


def naive(
    machine: Machine, question: QuestionSpec, workload: Workload | None, fj_per_op: float | None
) -> float | None:
    """Return the naive baseline: operations x a published energy, or the roofline of peak and DRAM.

    Args:
        machine: the machine at its file's own voltage and clock.
        question: what is asked.
        workload: the network; None for a peak.
        fj_per_op: published energy of an operation at this machine's peak, where there is one.

    Returns:
        the baseline in the metric's unit, or None where there is none.
    """
    if question.metric in ENERGY_METRICS:
        if fj_per_op is None:
            return None
        ops = 1 if workload is None else 2 * workload.macs
        return as_metric(ops * fj_per_op / _FJ_PER_PJ, ops, question.metric)
    if workload is None:
        return None
    if question.operating_point is not None:
        machine = machine.at(question.operating_point)
    clock_hz = machine.spec.clock_hz
    if question.engines:  # a pipeline whose engines are all equally busy
        specs = [machine.arrays[name].spec for name in question.engines]
        cycles = workload.macs / sum(s.rows * s.cols * s.lanes for s in specs)
    else:
        work = sum(_full_use_cycles(machine, layer) for layer in workload.spec.layers)
        transfer = Fraction(workload.weight_bits) / machine.dram.bits_per_cycle
        cycles = float(max(work, transfer))
    seconds = cycles / clock_hz
    return {"cycles": cycles, "ms": seconds * _MS_PER_S, "fps": 1 / seconds}[question.metric]


def _full_use_cycles(machine: Machine, layer: LayerSpec) -> Fraction:
    a, w = dt.parse(layer.activation), dt.parse(layer.weight)
    array = machine.array_for(a, w)
    return Fraction(layer.macs * array.passes(a, w), prod(array.block(a, w)))


def fj_per_op(value: float, metric: Metric) -> float | None:
    """Return a published peak as fJ an operation, or None where it is no energy of an operation."""
    if metric == "fj_per_op":
        return value
    return _FJ_PER_PJ / value if metric == "tops_w" else None
