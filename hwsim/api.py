"""The calls of a user: run a model on a machine, decode with it, verify that the machine computes it exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from hwsim.arch.machine import Machine
from hwsim.config.load import load_machine
from hwsim.dataset import IGNORED_LABEL, Rows, make_samples, stored_labels
from hwsim.decoding import Decoder, generate, on_machine
from hwsim.engine.cost import cost
from hwsim.engine.decode_cost import (
    cache_sizes,
    prefill_cost,
    step_costs,
)
from hwsim.engine.execute import Memory, execute, numeric_profiles
from hwsim.engine.faults import BitErrors, Damage
from hwsim.engine.inject import Injection, InjectionError
from hwsim.engine.ratio import Ratio, ratio
from hwsim.errors import DataError
from hwsim.graph.decode_view import caches, decode_faults
from hwsim.graph.ir import QuantGraph
from hwsim.graph.sample_checks import sample_faults
from hwsim.graph.serialize import Model, Samples, load
from hwsim.mapping.objective import Objective
from hwsim.metrics import compute, wilson_interval
from hwsim.report.decoding import Decoded
from hwsim.report.result import Result
from hwsim.verification import (
    DECODE_TOKENS,
    Verification,
    batches,
    first_samples,
    verify_model,
)

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class RunResult:
    """A result that can show itself."""

    result: Result
    file_bytes: dict[str, int]
    cache: dict[str, float] | None = None
    """key-value cache of the costed length (`cache_sizes`); None for a model that cannot be decoded"""
    bit_errors: dict[str, Any] | None = None
    """what flipped in the memories (`Damage.to_json`); None where nothing was to flip"""

    def to_json(self) -> dict[str, Any]:
        """Plain data: `Result.to_json`, the bytes of the export's files and of a decoder's cache, the bit errors."""
        own = {"file_bytes": self.file_bytes, "cache": self.cache, "bit_errors": self.bit_errors}
        return {**self.result.to_json(), **own}

    def render(self, console: Console) -> None:
        """Print the tables."""
        from hwsim.report.table import print_result

        print_result(self.to_json(), console)


def run(
    model: Model | Path | str,
    machine: Machine | str,
    samples: int | None = None,
    cost_only: bool = False,
    overrides: Sequence[str] = (),
    dataset: Iterable[Any] | None = None,
    objective: Literal["cycles", "energy"] = "cycles",
    operating_point: str | None = None,
    faults: BitErrors | None = None,
    length: int | None = None,
) -> RunResult:
    """Execute a model on a machine and report accuracy, cycles, energy and memory.

    Args:
        model: an export folder, or one that is loaded.
        machine: a shipped machine's name, a YAML file, or a loaded machine.
        samples: use the first N samples; all of them for None.
        cost_only: shapes only, no data.
        overrides: `key=value` changes of the machine.
        dataset: labelled rows to run instead of the stored samples: a Hugging Face data set, or a list of
            mappings, as the model's tokenizer or image processor makes them (`hwsim.dataset.Rows`).
        objective: what the mapping is chosen for, `cycles` or `energy`.
        operating_point: one of the machine's own, for another voltage and clock; its file's for None.
        faults: bits that flip in the machine's memories. The accuracy is then that of the damaged model; costs stay.
        length: tokens of the inference that is costed. None takes the longest of all samples, of shapes only the longest
            that the model was built for.

    Raises:
        ConfigError: the machine has no such operating point.
        GraphError: the machine lacks an operator or a format, or the length is out of range.
        CapacityError: not even one tile of an operator fits.
        OverflowRefused: an accumulator left its range under the rule `error`.
        DataError: data is to run, and there are no samples, or rows that do not fit, or no labels.
        InjectionError: the model has nothing where bits are to flip, or no data is to run that would show it.
    """
    loaded, on = _load(model, machine, overrides)
    if faults is not None and cost_only:
        raise InjectionError("bit errors change no cost: let data run to see what they do")
    point: dict[str, Any] | None = None
    if operating_point is not None:
        on = on.at(operating_point)
        voltage, clock = on.spec.technology.voltage_v, on.spec.clock_hz
        point = {"name": operating_point, "voltage_v": voltage, "clock_hz": clock}
    graph = loaded.graph
    on.check(graph)
    accuracy = None
    notes: list[str] = []
    damage = None if faults is None else Damage(graph, on, faults)
    if not cost_only:
        stored = _samples(loaded) if dataset is None else _rows(graph, dataset)
        chosen = first_samples(stored, samples)
        accuracy = measure(graph, on, chosen, damage)
        if stored.lengths is not None and length is None:
            # of all: how many run is no matter of what one costs
            length = int(stored.lengths.max())
            notes.append(
                f"costs are those of the longest of the {len(stored)} samples, {length} tokens"
            )
        for node, profile in numeric_profiles(graph, on, graph.max_length).items():
            notes.append(
                f"{node}: {profile.accumulator_bits}-bit accumulators, overflow {profile.overflow}: the static"
                " bound does not fit, the array's own order of accumulation was executed"
            )
    elif graph.max_length and length is None:
        notes.append(
            f"costs are those of the longest inference that the model was built for, {graph.max_length} tokens;"
            " samples that run may be shorter and cost less"
        )
    if damage is not None:
        notes.append(damage.note())
    report = cost(graph, on, length, Objective(objective))
    result = Result(
        model=loaded.name,
        model_sha256=loaded.sha256,
        machine_sha256=on.sha256,
        cost=report,
        accuracy=accuracy,
        notes=notes,
        operating_point=point,
    )
    cache = None if decode_faults(graph) else cache_sizes(graph, report.sequence_length)
    flips = None if damage is None else damage.to_json()
    return RunResult(result, dict(loaded.file_bytes), cache, flips)


def energy_ratio(first: RunResult, second: RunResult) -> Ratio:
    """Return the energy of one result over that of another, both `steady`, on the same draws.

    The results are of the same code; models and machines may differ, for they are what is compared.

    Raises:
        DataError: the second took no energy.
    """
    return ratio(first.result.cost.steady.ledger, second.result.cost.steady.ledger)


def verify(
    model: Model | Path | str,
    machine: Machine | str,
    samples: int | None = None,
    inject: str | None = None,
    overrides: Sequence[str] = (),
    *,
    host: bool = False,
) -> Verification:
    """Compare every tensor of a model on a machine with the reference; arguments as in `run`.

    Args:
        inject: `FIELD:NODE:INDEX:BIT`, one bit to flip in the machine's memory first.
        host: let the reference compute what the machine has no unit for; listed, and not verified.
    """
    injection = None if inject is None else Injection.parse(inject)
    loaded, on = _load(model, machine, overrides)
    chosen = first_samples(_samples(loaded), samples)
    return verify_model(loaded, on, chosen, injection, host=host)


def decode(
    model: Model | Path | str,
    machine: Machine | str,
    tokens: Sequence[int] | npt.NDArray[np.int64],
    steps: int = DECODE_TOKENS,
    overrides: Sequence[str] = (),
) -> Decoded:
    """Continue a prompt on a machine, greedily, one token at a time through a key-value cache.

    Args:
        model, machine, overrides: as in `run`.
        tokens: ids of the prompt.
        steps: how many tokens to generate.

    Raises:
        GraphError: the model is not causal, or the machine lacks an operator or a format.
        DataError: the prompt is empty, has ids that the model does not know, or leaves too little room.
        CapacityError: not even one tile of an operator fits.
        OverflowRefused: an accumulator left its range under the rule `error`.
    """
    loaded, on = _load(model, machine, overrides)
    graph = loaded.graph
    decoder = Decoder(graph, on_machine(on))
    prompt = np.asarray(tokens, np.int64).reshape(-1)
    made, logits = generate(decoder, prompt, steps)
    return Decoded(
        model=loaded.name,
        model_sha256=loaded.sha256,
        machine=on.name,
        machine_sha256=on.sha256,
        prompt=tuple(prompt.tolist()),
        tokens=tuple(made),
        logits=logits,
        logits_scale=graph.tensors[graph.outputs[0]].scale,
        prefill=prefill_cost(graph, on, len(prompt)),
        steps=tuple(step_costs(graph, on, range(len(prompt), decoder.position))),
        cache=cache_sizes(graph, decoder.position),
    )


def sample_prompt(model: Model | Path | str, sample: int, length: int | None = None) -> list[int]:
    """Return the token ids of a stored sample, its first `length` only where one is given.

    Raises:
        DataError: there is no such sample, or it is shorter.
    """
    loaded = model if isinstance(model, Model) else load(model)
    samples = _samples(loaded)
    if not 0 <= sample < len(samples):
        raise DataError(f"{loaded.folder}: has samples 0 to {len(samples) - 1}, not {sample}")
    caches(loaded.graph)  # refuses a model whose samples are no tokens
    ids = samples.real_ids(loaded.graph.inputs[0], sample)
    if length is not None and not 0 < length <= len(ids):
        raise DataError(
            f"sample {sample} has {len(ids)} tokens; a prompt of 1 to {len(ids)} can be cut from it, not of {length}"
        )
    return [int(i) for i in ids[:length]]


def measure(
    graph: QuantGraph, machine: Machine, samples: Samples, damage: Damage | None = None
) -> dict[str, Any]:
    """Return the task's metrics of the machine's own outputs, with the Wilson interval of an accuracy.

    With `damage`, of the graph, they are those of what its memories hold. Raises DataError where the samples have no labels, or labels that the model does not know.
    """
    if samples.labels is None:
        raise DataError(
            "the samples have no labels to measure with: give a labelled dataset, or ask for the cost alone"
        )
    logits, labels = [], []
    memory: Memory | None = None
    if damage is not None:
        graph, memory = damage.graph, damage.memory if damage.of_tensors else None
    scale = np.asarray(graph.tensors[graph.outputs[0]].scale, np.float64)
    for rows, inputs, lengths in batches(graph, samples):
        made = execute(graph, machine, inputs, lengths, memory=memory)
        codes = next(x for name, x in made if name == graph.outputs[0])
        values = codes.astype(np.float64) * scale
        wanted = samples.labels[rows]
        if wanted.ndim == 2:  # a language model: every position whose next token counts
            wanted = wanted[:, : values.shape[1]]
            counts = wanted != IGNORED_LABEL
            values, wanted = values[counts], wanted[counts]
        logits.append(values)
        labels.append(wanted)
    return judge(graph.meta, np.concatenate(logits), np.concatenate(labels))


def judge(meta: Any, logits: Any, labels: Any) -> dict[str, Any]:
    """Metrics of logits [N, C] and labels [N] by the names in the graph's meta data."""
    names = list(meta.get("metrics", ["accuracy"]))
    if "accuracy" in names and (labels.min() < 0 or labels.max() >= logits.shape[1]):
        raise DataError(
            f"labels must be classes 0 to {logits.shape[1] - 1}, are {labels.min()} to {labels.max()}"
        )
    values = compute(names, logits, labels)
    out: dict[str, Any] = {
        "metric": names[0],
        "value": values[names[0]],
        "metrics": values,
        "total": len(labels),
    }
    if names[0] == "accuracy":  # of another metric they would be read as its own
        correct = int((logits.argmax(axis=1) == labels).sum())
        low, high = wilson_interval(correct, len(labels))
        out |= {"correct": correct, "wilson_95": [low, high]}
    return out


def _load(
    model: Model | Path | str, machine: Machine | str, overrides: Sequence[str]
) -> tuple[Model, Machine]:
    loaded = model if isinstance(model, Model) else load(model)
    on = machine if isinstance(machine, Machine) else load_machine(machine, overrides)
    return loaded, on


def _rows(graph: QuantGraph, dataset: Iterable[Any]) -> Samples:
    rows = Rows(dataset, graph.inputs)
    made = make_samples(graph, rows, stored_labels(rows.labels))
    faults = sample_faults(graph, made.inputs, made.lengths)
    if faults:
        raise DataError("\n".join(f"dataset: {fault}" for fault in faults))
    return made


def _samples(model: Model) -> Samples:
    if model.samples is None or len(model.samples) == 0:
        raise DataError(
            f"{model.folder}: carries no samples to run; export with samples, or use --cost for the shapes alone"
        )
    return model.samples
