"""Switching activity of the arrays' operand registers on real data, in the order of the mapping.

A register holds what it was last given. The first beat of a compute step, and every beat whose block differs from
that of the beat before, loads the positions that it uses; a toggle is a bit that changes in a load. Samples follow
each other, operators follow each other as in an inference, and everything starts at 0.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.arch.machine import Machine
from hwsim.arch.work import cut
from hwsim.engine.energy import Prices
from hwsim.errors import GraphError
from hwsim.graph.serialize import Model
from hwsim.kernels.activity import SUMS
from hwsim.report.plain import say
from hwsim.report.result import package_version
from hwsim.report.table import energy_text
from hwsim.rtl.data_energy import DataEnergy, Switched, data_energy
from hwsim.rtl.product import MappedProduct, Operand, Step
from hwsim.rtl.register import Register
from hwsim.rtl.saif import saif_lines
from hwsim.rtl.session import Session

if TYPE_CHECKING:
    from rich.console import Console

NETS = {"activation": "a_op", "weight": "w_op"}
"""port -> net of its register in SAIF"""


@dataclass(frozen=True)
class PortActivity:
    """What one operator did to one operand register over all samples.

    `cycles` is how long its beats took; the counts are those of `hwsim.kernels.activity.SUMS`. `presented_bits` are
    the bits of this operand that stood at the lanes, beat by beat.
    """

    node: str
    array: str
    operand: Operand
    cycles: int
    beats: int
    loaded_bits: int
    loaded_ones: int
    toggles: int
    loaded_codes: int
    loaded_clear: int
    presented_bits: int

    @property
    def ones_frac(self) -> float:
        """Share of ones among the bits loaded."""
        return self.loaded_ones / self.loaded_bits if self.loaded_bits else 0.0

    @property
    def toggle_rate(self) -> float:
        """Share of the bits loaded that differ from what the register held: 0.5 for random data."""
        return self.toggles / self.loaded_bits if self.loaded_bits else 0.0

    @property
    def zeros_frac(self) -> float:
        """Share of codes loaded that are 0."""
        if not self.loaded_codes or not self.operand.has_zero:
            return 0.0
        return self.loaded_clear / self.loaded_codes

    def to_json(self) -> dict[str, Any]:
        """Return the row of the table."""
        return {
            "operator": self.node,
            "array": self.array,
            "port": self.operand.port,
            "type": self.operand.dtype.name,
            "encoding": self.operand.encoding,
            "width_bits": self.operand.width_bits,
            "cycles": self.cycles,
            "beats": self.beats,
            "loaded_bits": self.loaded_bits,
            "toggles": self.toggles,
            "ones_frac": self.ones_frac,
            "toggle_rate": self.toggle_rate,
            "zeros_frac": self.zeros_frac,
        }


@dataclass(frozen=True)
class Activity:
    """Switching of all operand registers of a machine over some samples."""

    session: Session
    ports: tuple[PortActivity, ...]
    registers: dict[tuple[str, str], Register]
    """(array, port) -> its register"""
    cycles: int
    """of all beats together: the time in which an array works"""
    left_out: tuple[str, ...]
    """why operators were left out"""
    energies: tuple[DataEnergy, ...]
    """of the operators on arrays that state the activity of their figures"""

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row an operator and port."""
        return [port.to_json() for port in self.ports]

    def to_json(self) -> dict[str, Any]:
        """Return the table, and what it is of."""
        session = self.session
        return {
            "model": session.model.name,
            "machine": session.machine.name,
            "hashes": session.hashes(),
            "samples": len(session.chosen),
            "sequence_length": session.length,
            "cycles": self.cycles,
            "operators": self.rows,
            "energy": [energy.to_json() for energy in self.energies],
            "left_out": list(self.left_out),
        }

    def csv(self) -> str:
        """Return the table as text, a row an operator and port."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def saif(self) -> str:
        """Return each bit's times at 0 and 1 and its flips as SAIF 2.0, an instance an array."""
        instances: dict[str, list[Any]] = {}
        for (array, port), register in self.registers.items():
            high, toggles = register.high(self.cycles), register.toggles
            instances.setdefault(array, []).append(
                (NETS[port], high.reshape(-1), toggles.reshape(-1))
            )
        machine = self.session.machine
        lines = saif_lines(
            machine.name, package_version(), machine.spec.clock_hz, self.cycles, instances
        )
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> None:
        """Write activity.csv and activity.saif into a folder, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "activity.csv").write_text(self.csv(), encoding="utf-8")
        (folder / "activity.saif").write_text(self.saif(), encoding="utf-8")

    def render(self, console: Console) -> None:
        """Print a line an operator and port."""
        session = self.session
        say(
            console,
            f"{session.model.name} on {session.machine.name}, {len(session.chosen)} samples, {self.cycles} cycles of beats",
        )
        width = max(len(port.node) for port in self.ports)
        for p in self.ports:
            say(
                console,
                f"{p.node:<{width}}  {p.array}.{NETS[p.operand.port]} {p.operand.dtype.name:<8}"
                f" {p.beats:>9} beats {p.loaded_bits:>11} bits loaded, toggle rate {p.toggle_rate:.3f},"
                f" ones {p.ones_frac:.3f}, zeros {p.zeros_frac:.3f}",
            )
        for e in self.energies:
            say(
                console,
                f"{e.node:<{width}}  {e.array} lanes and registers: {energy_text(e.stated_pj)} at the stated activity,"
                f" {energy_text(e.data_pj)} on this data (x {e.data_pj / e.stated_pj:.3f})",
            )
        for line in self.left_out:
            say(console, f"left out: {line}")


def activity(
    model: Model | Path | str,
    machine: Machine | str,
    samples: int | None = None,
    overrides: Sequence[str] = (),
) -> Activity:
    """Run samples through a machine and count what its operand registers do.

    Args:
        model: an export folder, or one that is loaded.
        machine: a shipped machine's name, a YAML file, or a loaded machine.
        samples: use the first N samples; all of them for None. The mapping is for the longest of them.
        overrides: `key=value` changes of the machine.

    Raises:
        DataError: the model carries no samples.
        GraphError: the machine lacks an operator or a format, or no array's beats are described here.
        OverflowRefused: an accumulator left its range under the rule `error`.
    """
    session = Session(model, machine, overrides, samples)
    mapped: dict[str, MappedProduct] = {}
    left_out = []
    for name in session.rows:
        try:
            mapped[name] = session.product(name, session.length)
        except GraphError as error:
            left_out.append(str(error))
    if not mapped:
        raise GraphError("\n".join(left_out) or "the model has no product of matrices")
    registers = _registers(mapped)
    sums = {(name, port): np.zeros(len(SUMS), np.int64) for name in mapped for port in NETS}
    cycles = dict.fromkeys(mapped, 0)
    shown = {name: np.zeros(3, np.int64) for name in mapped}
    now = 0
    for sample in session.chosen:
        tensors = session.execute(sample)
        tokens = session.tokens(sample)
        for name in mapped:
            product = session.product(name, session.length if tokens is None else tokens)
            end = _run(product, tensors, registers, sums, shown[name], now)
            cycles[name] += end - now
            now = end
    ports = tuple(
        PortActivity(
            name,
            product.array.name,
            operand,
            cycles[name],
            **dict(zip(SUMS, sums[name, operand.port].tolist(), strict=True)),
            presented_bits=int(shown[name][position]),
        )
        for name, product in mapped.items()
        for position, operand in enumerate(product.operands)
    )
    lane_ops = {name: int(counts[2]) for name, counts in shown.items()}
    energies = tuple(_energies(mapped, ports, lane_ops, Prices(session.machine)))
    return Activity(session, ports, registers, now, tuple(left_out), energies)


def _energies(
    mapped: dict[str, MappedProduct],
    ports: tuple[PortActivity, ...],
    lane_ops: dict[str, int],
    prices: Prices,
) -> Iterator[DataEnergy]:
    """Yield the energies of the operators on arrays that state the activity of their figures."""
    for name, product in mapped.items():
        reference = product.array.spec.energy.activity
        if reference is None:
            continue
        first, second = (
            Switched(p.loaded_bits, p.toggles, p.presented_bits) for p in ports if p.node == name
        )
        array, (a, w) = f"array:{product.array.name}", product.types
        yield data_energy(
            name,
            product.array.name,
            (first, second),
            lane_ops[name],
            prices.price(array, f"lane_op:{a}x{w}").pj,
            prices.price(array, "operand_register_bit").pj,
            reference,
        )


def _registers(mapped: dict[str, MappedProduct]) -> dict[tuple[str, str], Register]:
    """Return a register an array and port, as large as its largest operand."""
    sizes: dict[tuple[str, str], tuple[int, int, int]] = {}
    for product in mapped.values():
        for o in product.operands:
            key = (product.array.name, o.port)
            have = sizes.get(key, (0, 0, 0))
            sizes[key] = (
                max(have[0], o.rows),
                max(have[1], o.lanes),
                max(have[2], o.pass_bits),
            )
    return {key: Register(*size) for key, size in sizes.items()}


def _run(
    product: MappedProduct,
    tensors: dict[str, Any],
    registers: dict[tuple[str, str], Register],
    sums: dict[tuple[str, str], npt.NDArray[np.int64]],
    shown: npt.NDArray[np.int64],
    now: int,
) -> int:
    """Let one sample's product pass through the registers, and return the cycle at which it ends.

    `shown` [3] is added to: bits of A and of W that stand at the lanes in all beats, and lane operations.
    """
    codes = product.codes(tensors)
    patterns = [o.patterns(x) for o, x in zip(product.operands, codes, strict=True)]
    for step in product.steps():
        k = slice(step.k.start, step.k.stop)
        ranges = [slice(r.start, r.stop) for r in (step.m, step.n)]
        weight = codes[1][step.batch, ranges[1], k]
        occupied, interval = product.occupied(weight), product.interval(step)
        shown += _shown(product, step, occupied)
        end = now
        for position, operand in enumerate(product.operands):
            end = registers[product.array.name, operand.port].run(
                product,
                operand,
                patterns[position][step.batch, ranges[position], k],
                len(step.n if position == 0 else step.m),
                occupied,
                interval,
                now,
                sums[product.node.name, operand.port],
            )
        now = end
    return now


def _shown(
    product: MappedProduct, step: Step, occupied: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Return the bits of A and of W that stand at the lanes in the beats of a step, and its lane operations."""
    rows, cols, lanes = product.part.block(*product.types)
    n, k = (
        np.array([len(part) for part in cut(len(whole), block)])
        for whole, block in ((step.n, cols), (step.k, lanes))
    )
    first, second = product.operands
    passes = first.planes * second.planes
    m_blocks = -(-len(step.m) // rows)
    depth = (occupied * k).sum(axis=1)  # lanes used in all beats, by block of columns
    a = len(step.m) * int(depth.sum()) * passes
    w = m_blocks * int((n * depth).sum()) * passes
    ops = len(step.m) * int((n * depth).sum()) * passes
    return np.array([a * first.pass_bits, w * second.pass_bits, ops])
