"""Rung B: every tensor of the graph, as the machine computes it, equal to the reference bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.arch.machine import Machine
from hwsim.decoding import Decoder, on_machine, on_reference
from hwsim.engine.execute import execute, numeric_profiles
from hwsim.engine.inject import Injection
from hwsim.graph.decode_view import caches, decode_faults, row_at
from hwsim.graph.ir import Node, QuantGraph
from hwsim.graph.ops import OPERATORS
from hwsim.graph.serialize import Model, Samples
from hwsim.report.plain import say

if TYPE_CHECKING:
    from rich.console import Console

BATCH = 16
DECODE_TOKENS = 32
"""at most so many tokens of a causal model are decoded one by one"""


@dataclass
class Unequal:
    """A tensor that differs."""

    tensor: str
    op: str
    differing: int
    first_sample: int
    first_index: list[int]
    expected: int
    got: int
    token: int | None = None
    """of decoding: the first position whose step differs"""


@dataclass
class DecodeCheck:
    """One sample decoded token by token on the machine, against one pass of the reference over it."""

    sample: int
    tokens: int
    tensors: int
    """of a step's graph, the caches among them"""
    elements: int
    unequal: list[Unequal]
    """by token, then in execution order"""


@dataclass
class Verification:
    """What `hwsim verify` found."""

    model: str
    model_sha256: str
    machine: str
    machine_sha256: str
    samples: int
    tensors: int
    elements: int
    unequal: list[Unequal]
    """in execution order: the first one is where the fault entered"""
    record: dict[str, Any]
    """rungs A1-A3 as the export stored them"""
    inject: str | None = None
    profiles: dict[str, str] = field(default_factory=dict)
    """contractions whose accumulators are modelled because their static bound does not fit"""
    decode: DecodeCheck | None = None
    """None for a model that cannot be decoded, or where the host took part"""
    host: dict[str, str] = field(default_factory=dict)
    """nodes that the reference computed because the machine cannot, and what it lacks; not among the tensors"""

    @property
    def ok(self) -> bool:
        """Whether every tensor is equal, those of decoding too."""
        return not self.unequal and not (self.decode and self.decode.unequal)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"ok": self.ok, "rung_c": "not run"}

    def render(self, console: Console) -> None:
        """Print what was compared and what came of it."""
        say(
            console,
            f"model {self.model} ({self.model_sha256[:12]}) on {self.machine} ({self.machine_sha256[:12]})",
        )
        for line in self._rung_a():
            say(console, line)
        for node, text in self.profiles.items():
            say(console, f"numeric profile: {node}: {text}")
        if self.inject is not None:
            say(console, f"injected: {self.inject}, in the machine's memory only")
        if self.host:
            say(console, f"on the host, not verified: {self._on_host()}")
        verdict = f"{len(self.unequal)} unequal of {self.tensors} tensors, {self.elements} elements, {self.samples} samples"
        say(console, f"rung B: {verdict}")
        for u in self.unequal[:5]:
            say(
                console,
                f"  {u.tensor} ({u.op}): {u.differing} elements differ, first at sample {u.first_sample}"
                f" {u.first_index}: must be {u.expected}, is {u.got}",
            )
        if self.decode is not None:
            say(
                console,
                f"decode: {len(self.decode.unequal)} unequal of {self.decode.tensors} tensors, {self.decode.elements}"
                f" elements, {self.decode.tokens} tokens one by one",
            )
            for u in self.decode.unequal[:5]:
                say(
                    console,
                    f"  {u.tensor} ({u.op}): {u.differing} elements differ, first at token {u.token}"
                    f" {u.first_index}: must be {u.expected}, is {u.got}",
                )
        if self.inject is not None and self.ok:
            say(console, "the flip is masked: it changes no tensor on these samples")
        say(console, "rung C (RTL): not run")

    def _on_host(self) -> str:
        times = Counter(self.host.values())
        return ", ".join(
            f"{n} {what.removeprefix('vector operator ')}" for what, n in times.items()
        )

    def _rung_a(self) -> Iterator[str]:
        if not self.record:
            yield "rungs A1-A3: no record in this export"
            return
        r = self.record
        held = "hold" if r["holds"] else "FAIL"
        bits = r["a2_identical_bits"]
        identical = "" if bits is None else f", samples with identical 1-bit codes {bits:.4f}"
        yield (
            f"rungs A1-A3 {held} (from the export, {r['samples']} samples): A1 {len(r['a1'])} operators;"
            f" A2 agreement {r['a2_agreement']:.4f}{identical}; A3 agreement {r['a3_agreement']:.4f}"
        )
        for fault in r["failures"]:
            yield f"  {fault}"


def batches(
    graph: QuantGraph, samples: Samples, size: int = BATCH
) -> Iterator[
    tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[np.int64]], npt.NDArray[np.int64] | None]
]:
    """Yield (rows, inputs, lengths) of similar length, sequences cut to the longest of the batch."""
    order = np.arange(len(samples))
    if samples.lengths is not None:
        order = np.argsort(samples.lengths, kind="stable")
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        lengths = None if samples.lengths is None else samples.lengths[rows]
        inputs = {}
        for name, x in samples.inputs.items():
            sequential = lengths is not None and graph.tensors[name].shape[:1] == ("T",)
            inputs[name] = (
                x[rows, : int(lengths.max())] if sequential and lengths is not None else x[rows]
            )
        yield rows, inputs, lengths


def first_samples(samples: Samples, count: int | None) -> Samples:
    """Return the first `count` samples; all of them for None."""
    if count is None or count >= len(samples):
        return samples
    lengths = None if samples.lengths is None else samples.lengths[:count]
    labels = None if samples.labels is None else samples.labels[:count]
    return Samples({n: x[:count] for n, x in samples.inputs.items()}, labels, lengths)


def verify_model(
    model: Model,
    machine: Machine,
    samples: Samples,
    injection: Injection | None = None,
    *,
    host: bool = False,
) -> Verification:
    """Compare the machine with the reference on every tensor of every sample.

    Args:
        model: the model.
        machine: the machine.
        samples: what to run.
        injection: a bit to flip in the machine's memory.
        host: let the reference compute what the machine has no unit for, from the machine's own tensors.

    Raises:
        GraphError: the machine cannot run the graph; with a host, none of its products.
        OverflowRefused: an accumulator left its range under the rule `error`.
        InjectionError: the injection names no bit of the model.
    """
    from hwsim import reference

    graph = model.graph
    on_host = machine.lacking(graph) if host else {}
    if not host or all(n.name in on_host for n in graph.nodes if OPERATORS[n.op].unit == "array"):
        machine.check(graph)
    damaged = graph if injection is None else injection.into_graph(graph)
    on_length = injection if injection is not None and injection.field == "length" else None
    if on_length is not None:
        on_length.check_register(0 if samples.lengths is None else len(samples))
    profiles = numeric_profiles(graph, machine, graph.max_length)
    faults: dict[str, Unequal] = {}
    elements = 0
    ops = {n.name: n.op for n in graph.nodes}
    for rows, inputs, lengths in batches(graph, samples):
        seen = lengths
        if on_length is not None and lengths is not None:
            seen = on_length.into_lengths(lengths, rows)
        want = reference.execute(graph, inputs, lengths, profiles)
        run_node = partial(_on_reference, graph, lengths) if on_host else None
        got = execute(damaged, machine, inputs, seen, run_node)
        for (name, expected), (same, result) in zip(want, got, strict=True):
            assert name == same
            if name in on_host:
                continue
            elements += expected.size
            if expected.shape != result.shape or not np.array_equal(expected, result):
                _note(faults, name, ops[name], rows, expected, result.astype(np.int64))
    order = {n.name: i for i, n in enumerate(graph.nodes)}
    unequal = sorted(faults.values(), key=lambda u: order[u.tensor])
    decode = (
        None
        if on_host or decode_faults(graph)
        else _check_decode(graph, damaged, machine, samples, injection)
    )
    return Verification(
        model.name, model.sha256, machine.name, machine.sha256, len(samples), len(graph.nodes) - len(on_host), elements, unequal,
        dict(model.record), None if injection is None else str(injection),
        {n: f"{p.accumulator_bits} bits, {p.overflow}, chunks of {p.lanes}" for n, p in profiles.items()},
        decode, on_host,
    )  # fmt: skip


def _on_reference(
    graph: QuantGraph, lengths: npt.NDArray[np.int64] | None, node: Node, operands: list[npt.NDArray[Any]]
) -> npt.NDArray[np.int64]:  # fmt: skip
    """Compute a node as the reference does: the host's part."""
    from hwsim import reference

    return reference.run_node(graph, node, operands, lengths)


def _check_decode(
    graph: QuantGraph, damaged: QuantGraph, machine: Machine, samples: Samples, injection: Injection | None
) -> DecodeCheck:  # fmt: skip
    """Decode the start of the longest sample from an empty cache, and compare every tensor of every step."""
    (name,) = graph.inputs
    rows = [samples.real_ids(name, i)[:DECODE_TOKENS] for i in range(len(samples))]
    sample = max(range(len(rows)), key=lambda i: len(rows[i]))
    ids = rows[sample][None]  # [1, T]
    tokens = ids.shape[1]
    want = dict(on_reference(machine)(graph, {name: ids}, np.array([tokens], np.int64)))
    kept = {c.extended: c for c in caches(graph)}
    nodes = graph.by_name
    decoder = Decoder(damaged, on_machine(machine))
    faults: dict[str, Unequal] = {}
    elements = 0
    for position in range(tokens):
        made = decoder.step(ids[:, position])
        for tensor, result in made.items():
            if tensor in kept:
                cache = kept[tensor]
                op = "append"
                expected = want[cache.tensor].take(np.arange(position + 1), cache.axis + 1)
            else:
                op = nodes[tensor].op
                expected = row_at(graph.tensors[tensor], want[tensor], position)
            elements += expected.size
            if not np.array_equal(expected, result):
                _note(
                    faults,
                    tensor,
                    op,
                    np.array([sample]),
                    expected,
                    result.astype(np.int64),
                    position,
                )
        if position == 0 and injection is not None and injection.field == "cache":
            held = decoder.caches[injection.node]
            decoder.caches[injection.node] = injection.into_cache(
                held, graph.tensors[injection.node].dtype
            )
    return DecodeCheck(
        sample, tokens, len(graph.nodes) + len(kept), elements, list(faults.values())
    )


def _note(
    faults: dict[str, Unequal], name: str, op: str, rows: npt.NDArray[np.int64],
    expected: npt.NDArray[np.int64], got: npt.NDArray[np.int64], token: int | None = None,
) -> None:  # fmt: skip
    different = expected != got
    count = int(different.sum())
    if name in faults:
        faults[name].differing += count
        return
    place = tuple(int(i) for i in np.argwhere(different)[0])
    faults[name] = Unequal(
        name,
        op,
        count,
        int(rows[place[0]]),
        list(place[1:]),
        int(expected[place]),
        int(got[place]),
        token,
    )
