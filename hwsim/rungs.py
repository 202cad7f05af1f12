"""Rungs A1 to A3: does the integer graph compute what the student computes?

A1 compares operator by operator, each fed with the static student's own codes, and so names the guilty
one. A2 lets the integer graph run freely against the static student, A3 compares with the plain student.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hwsim import reference
from hwsim.capture import Captured
from hwsim.errors import DataError
from hwsim.graph.ir import Node, QuantGraph
from hwsim.lower import Lowered, Tap, apply_view
from hwsim.student import Grid, Interpreter, quantize

Batch = Mapping[str, Tensor]

# Operators that must agree on every element, those that may round a tie of their real factor differently,
# and those whose fixed-point arithmetic has a stated error: the share of elements that may differ by 1.
EXACT = frozenset({
    "linear", "matmul", "conv2d", "threshold", "concat", "relayout", "im2col", "max_pool", "reshape", "permute",
    "slice", "table",
})  # fmt: skip
ALLOWED_SHARE = {
    "requant": 1e-5,
    "add": 1e-5,
    "embedding": 1e-5,
    # 2^-28 of the normalised value, of which 1.0 is up to 2^14 codes, and 2^-29 of G
    "layer_norm": 1e-3,
    "softmax": 1.0,
    # a probability within the table's error of alpha/2
    "softmax_binary": 1e-4,
}
# Largest difference in codes. Softmax: a table of exact differences is within 1.5 codes of Q0.16; the 2^-t
# form rounds the exponent to 2^-12 of an octave, each exponential by 8.5e-5 of itself, hence a probability u by
# 2 u (1 - u) 8.5e-5 <= 2.8 codes and the rounding of u.
LARGEST = {"direct": 2, "exp2": 4}
A2_AGREEMENT = 0.99
A2_IDENTICAL_BITS = 0.95
A3_AGREEMENT = 0.97


@dataclass
class OperatorCheck:
    """Rung A1 of one node."""

    node: str
    op: str
    elements: int = 0
    differing: int = 0
    largest: int = 0
    allowed_share: float = 0.0
    allowed_largest: int = 1

    @property
    def holds(self) -> bool:
        """Whether the node is within what its operator may differ."""
        if self.differing == 0:
            return True
        # one tie a thousand elements is always possible in a small sample of a rounding operator
        allowed = max(1.0, self.allowed_share * self.elements) if self.allowed_share > 0 else 0
        return self.largest <= self.allowed_largest and self.differing <= allowed


@dataclass
class RungRecord:
    """What `qat export` stores beside the graph, bound to its hash."""

    samples: int = 0
    operator_samples: int = 0
    """how many of them rung A1 compared operator by operator"""
    a1: list[OperatorCheck] = field(default_factory=list)
    a2_agreement: float = 0.0
    a2_identical_bits: float | None = None
    a2_logit_error: float = 0.0
    """root mean square of the logit difference over the standard deviation of the logits"""
    a3_agreement: float = 0.0
    saturated_share: dict[str, float] = field(default_factory=dict)
    """share of codes at the ends of the format, for every wide edge that saturates at all"""

    @property
    def failures(self) -> list[str]:
        """Everything that does not hold, in words."""
        out = [
            f"A1 {c.node} ({c.op}): {c.differing} of {c.elements} elements differ, by up to {c.largest}"
            for c in self.a1
            if not c.holds
        ]
        if self.a2_agreement < A2_AGREEMENT:
            out.append(f"A2 prediction agreement {self.a2_agreement:.4f} is below {A2_AGREEMENT}")
        if self.a2_identical_bits is not None and self.a2_identical_bits < A2_IDENTICAL_BITS:
            out.append(
                f"A2 samples with identical 1-bit codes {self.a2_identical_bits:.4f} are below {A2_IDENTICAL_BITS}"
            )
        if self.a3_agreement < A3_AGREEMENT:
            out.append(
                f"A3 agreement with the plain student {self.a3_agreement:.4f} is below {A3_AGREEMENT}"
            )
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain data for the export."""
        return asdict(self) | {"failures": self.failures, "holds": not self.failures}


def read_tap(tap: Tap, values: Mapping[str, Tensor], length: int) -> npt.NDArray[np.int64]:
    """Codes of a graph tensor as the static student holds them, [B, *shape]."""
    if tap.kind == "acc":
        x = values[f"{tap.call}.acc"]
    elif tap.kind == "codes":
        x = values[tap.call]
    else:
        value = values[tap.call]
        if tap.shift is None and tap.dtype.bits > 2:
            x = Grid(tap.dtype, tap.scale).codes(value)
        else:
            shift = None if tap.shift is None else torch.from_numpy(tap.shift)
            x = quantize(value, torch.tensor(tap.scale, dtype=torch.float64), shift, tap.dtype)
    for view in tap.views:
        x = apply_view(x, view, length)
    codes: npt.NDArray[np.int64] = x.numpy().astype(np.int64)
    return codes


class StaticRun:
    """One batch through the static student, with every graph tensor readable."""

    def __init__(self, static: Captured, lowered: Lowered, batch: Batch) -> None:
        self.lowered = lowered
        self.values: dict[str, Tensor] = {}
        interpreter = Interpreter(static, observe=self.values.__setitem__)
        self.output = interpreter.run(batch)[0]
        self.length = interpreter.length
        self.inputs = graph_inputs(lowered.graph, batch)
        mask = batch.get("attention_mask")
        self.lengths = None if mask is None else real_lengths(mask)

    def codes(self, tensor: str) -> npt.NDArray[np.int64]:
        """The static student's codes of a graph tensor."""
        if tensor in self.lowered.graph.inputs:
            return self.inputs[tensor]
        return read_tap(self.lowered.taps[tensor], self.values, self.length)


def real_lengths(mask: Tensor) -> npt.NDArray[np.int64]:
    """Real positions of each sequence of an attention mask [B, T].

    Raises:
        DataError: a mask has a gap or padding on the left; lengths cannot say that.
    """
    if bool((mask[:, 1:] > mask[:, :-1]).any()):
        raise DataError("attention_mask must have all its padding on the right; pad on that side")
    lengths: npt.NDArray[np.int64] = mask.sum(1).numpy().astype(np.int64)
    return lengths


def graph_inputs(graph: QuantGraph, batch: Batch) -> dict[str, npt.NDArray[np.int64]]:
    """Make the graph's input codes of a batch of model inputs, as the host does."""
    inputs = {}
    for name in graph.inputs:
        tensor = graph.tensors[name]
        x = batch[name]
        if x.is_floating_point():
            assert tensor.scale is not None  # inputs have one scale
            x = Grid(tensor.dtype, tensor.scale).codes(x.double())
        inputs[name] = x.numpy().astype(np.int64)
    return inputs


def valid_elements(
    graph: QuantGraph, tensor: str, array: npt.NDArray[Any], lengths: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.bool_]:
    """Mark the elements that lie on real positions along every sequence axis.

    Behind the last real key an attention map is no garbage: what masks must have put a 0 there.
    """
    keep = np.ones(array.shape, dtype=bool)
    if lengths is None:
        return keep
    node = graph.by_name.get(tensor)
    last = array.ndim - 1 if node is not None and "masked" in node.attrs else array.ndim
    for axis, d in enumerate(graph.tensors[tensor].shape, start=1):
        if isinstance(d, str) and axis < last:
            position = np.arange(array.shape[axis]).reshape(
                [-1 if i == axis else 1 for i in range(array.ndim)]
            )
            keep &= position < lengths.reshape([-1, *([1] * (array.ndim - 1))])
    return keep


def compare_local(run: StaticRun, checks: dict[str, OperatorCheck]) -> None:
    """Rung A1 on one batch: feed every node the static student's codes and compare its output."""
    graph = run.lowered.graph
    for node in graph.nodes:
        operands = [run.codes(t) for t in node.inputs]
        got = reference.run_node(graph, node, operands, run.lengths)
        want = run.codes(node.name)
        keep = valid_elements(graph, node.name, got, run.lengths)
        difference = np.abs(got - want)[keep]
        check = checks.get(node.name) or OperatorCheck(node.name, node.op)
        checks[node.name] = check
        check.allowed_share = ALLOWED_SHARE.get(node.op, 0.0)
        if node.op == "requant":
            # M/2^S is within 2^-31 of the ratio: codes this large meet a tie that much more often
            check.allowed_share = max(
                check.allowed_share, float(np.abs(want).max(initial=0)) * 2.0**-30
            )
        check.allowed_largest = LARGEST[str(node.attrs["mode"])] if node.op == "softmax" else 1
        check.elements += difference.size
        check.differing += int(np.count_nonzero(difference))
        check.largest = max(check.largest, int(difference.max(initial=0)))


def free_running(
    run: StaticRun,
) -> Iterator[tuple[Node, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield (node, integer graph's codes, static student's codes) with the graph running on its own."""
    graph = run.lowered.graph
    nodes = graph.by_name
    for name, got in reference.execute(graph, run.inputs, run.lengths):
        yield nodes[name], got, run.codes(name)


def climb(
    static: Captured,
    lowered: Lowered,
    batches: Iterable[Batch],
    plain_logits: Iterable[Tensor],
    operator_samples: int | None = None,
) -> tuple[RungRecord, dict[str, npt.NDArray[np.float64]]]:
    """Run rungs A1 to A3 over batches.

    Args:
        static: the static student.
        lowered: the integer graph and its taps.
        batches: model inputs.
        plain_logits: the trained student's own logits for the same batches.
        operator_samples: A1 stops after this many samples; None compares all of them.

    Returns:
        The record, and the logits of the three (`student`, `static`, `graph`), [N, classes].
    """
    record = RungRecord()
    checks: dict[str, OperatorCheck] = {}
    logits: dict[str, list[npt.NDArray[np.float64]]] = {"student": [], "static": [], "graph": []}
    identical: list[npt.NDArray[np.bool_]] = []
    graph = lowered.graph
    ends: dict[str, list[int]] = {}
    for batch, plain in zip(batches, plain_logits, strict=True):
        run = StaticRun(static, lowered, batch)
        if operator_samples is None or record.operator_samples < operator_samples:
            compare_local(run, checks)
            record.operator_samples += run.output.shape[0]
        same = np.ones(run.output.shape[0], dtype=bool)
        for node, got, want in free_running(run):
            dtype = graph.tensors[node.name].dtype
            if dtype.bits == 1:
                keep = valid_elements(graph, node.name, got, run.lengths)
                same &= ~((got != want) & keep).reshape(got.shape[0], -1).any(axis=1)
            elif dtype.bits >= 8 and node.op in ("requant", "add", "layer_norm"):
                count = ends.setdefault(node.name, [0, 0])
                count[0] += int(((got == dtype.qmax) | (got == dtype.qmin)).sum())
                count[1] += got.size
            if node.name == graph.outputs[0]:
                scale = graph.tensors[node.name].scale  # freeze puts all logits on one
                logits["graph"].append(got * np.asarray(scale))
        identical.append(same)
        logits["static"].append(run.output.double().numpy())
        logits["student"].append(plain.detach().double().numpy())
        record.samples += same.size
    joined = {name: _stack(parts) for name, parts in logits.items()}
    record.a1 = list(checks.values())
    record.a2_agreement = _agreement(joined["graph"], joined["static"])
    record.a3_agreement = _agreement(joined["graph"], joined["student"])
    spread = float(joined["static"].std()) or 1.0
    record.a2_logit_error = (
        float(np.sqrt(np.square(joined["graph"] - joined["static"]).mean())) / spread
    )
    if any(t.dtype.bits == 1 for t in graph.tensors.values()):
        record.a2_identical_bits = float(np.concatenate(identical).mean())
    record.saturated_share = {name: a / b for name, (a, b) in ends.items() if a}
    return record, joined


def _stack(parts: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Join logits of batches; language models are joined along positions, [*, classes]."""
    return np.concatenate([p.reshape(-1, p.shape[-1]) for p in parts])


def _agreement(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    if a.shape[-1] == 1:  # regression: agreement to 1 % of the spread stands for equal predictions
        return float((np.abs(a - b) <= 0.01 * (b.std() or 1.0)).mean())
    return float((a.argmax(-1) == b.argmax(-1)).mean())
