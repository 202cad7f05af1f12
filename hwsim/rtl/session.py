"""A model mapped on a machine, and its samples executed there bit by bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hwsim.arch.machine import Machine
from hwsim.config.load import load_machine
from hwsim.engine.cost import OperatorCost, cost
from hwsim.engine.execute import execute
from hwsim.engine.memory_plan import bind_length
from hwsim.errors import DataError
from hwsim.graph.serialize import Model, Samples, load
from hwsim.report.result import code_sha256
from hwsim.rtl.product import Array, MappedProduct
from hwsim.verification import batches


class Session:
    """One model on one machine, mapped for the longest of some of its samples.

    Args:
        model: an export folder, or one that is loaded.
        machine: a shipped machine's name, a YAML file, or a loaded machine.
        overrides: `key=value` changes of the machine.
        chosen: numbers of the samples, or how many of the first; all of them for None.

    Raises:
        GraphError: the machine lacks an operator or a format.
        DataError: the model does not carry these samples.
    """

    def __init__(
        self,
        model: Model | Path | str,
        machine: Machine | str,
        overrides: Sequence[str] = (),
        chosen: range | int | None = None,
    ) -> None:
        self.model = model if isinstance(model, Model) else load(model)
        self.machine = machine if isinstance(machine, Machine) else load_machine(machine, overrides)
        self.machine.check(self.model.graph)
        samples = self.model.samples
        if samples is None or len(samples) == 0:
            raise DataError(f"{self.model.folder}: carries no samples to run; export with samples")
        self.samples: Samples = samples
        if isinstance(chosen, int) and chosen < 1:
            raise DataError(f"at least one sample must be used, not {chosen}")
        if not isinstance(chosen, range):
            chosen = range(len(samples) if chosen is None else min(chosen, len(samples)))
        self.chosen = chosen
        if not 0 <= self.chosen.start < self.chosen.stop <= len(samples):
            wrong = self.chosen.stop - 1 if self.chosen.start >= 0 else self.chosen.start
            raise DataError(
                f"{self.model.folder}: has samples 0 to {len(samples) - 1}, not {wrong}"
            )
        lengths = [n for n in map(self.tokens, self.chosen) if n is not None]
        self.length = bind_length(self.model.graph, max(lengths, default=None))

    @cached_property
    def rows(self) -> dict[str, OperatorCost]:
        """The contractions in order of execution, as a steady inference of this length maps them."""
        report = cost(self.model.graph, self.machine, self.length)
        return {o.node: o for o in report.steady.operators if o.unit.startswith("array:")}

    def hashes(self) -> dict[str, str]:
        """Return what a file of this session came from, as a result of `hwsim run` says it."""
        return {
            "model": self.model.sha256,
            "machine": self.machine.sha256,
            "code": code_sha256(),
        }

    def product(self, node: str, length: int) -> MappedProduct:
        """Return a contraction of a sample of so many tokens, in the session's mapping."""
        return MappedProduct.of(self.model.graph, self.machine, length, self.rows[node])

    def tokens(self, sample: int) -> int | None:
        """Return the real length of a sample; None where the model knows no length."""
        if self.samples.lengths is not None:
            return int(self.samples.lengths[sample])
        for name in self.model.graph.inputs:
            for axis, size in enumerate(self.model.graph.tensors[name].shape, start=1):
                if isinstance(size, str):
                    return int(self.samples.inputs[name].shape[axis])
        return None

    def execute(self, sample: int) -> dict[str, Array]:
        """Return every tensor of one sample, its inputs too: name -> [1, *shape], without padding."""
        inputs, lengths = _one(self.model, self.samples, sample)
        return {**inputs, **dict(execute(self.model.graph, self.machine, inputs, lengths))}


def _one(
    model: Model, samples: Samples, index: int
) -> tuple[Mapping[str, Array], npt.NDArray[np.int64] | None]:
    """Return the inputs [1, *shape] of one sample, and its length [1] where it has one."""
    rows = slice(index, index + 1)
    lengths = None if samples.lengths is None else samples.lengths[rows]
    one = Samples({name: x[rows] for name, x in samples.inputs.items()}, None, lengths)
    _, inputs, lengths = next(batches(model.graph, one))
    return inputs, lengths
