"""Workloads: the layers of a published network as matrix products, costed without weights.

A published energy or frame rate belongs to a list of layers. A workload file states that list, where it
comes from, and which of it nobody published; `cost_workload` gives its cycles and energy on a machine.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from hwsim.arch.component import FormatName
from hwsim.arch.spec import Count, NonNegative, Spec
from hwsim.engine.products import parts
from hwsim.graph import dtype as dt
from hwsim.graph.ir import Attr, Constant, Node, QuantGraph, Tensor
from hwsim.graph.windows import Windows

if TYPE_CHECKING:
    from hwsim.arch.machine import Machine
    from hwsim.engine.cost import CostReport

Pair = Annotated[list[Count], Field(min_length=2, max_length=2)]
"""[height, width]"""


class GemmShape(Spec):
    """A matrix product: acc[m, n] = sum_k a[m, k] * w[n, k]."""

    m: Count
    """rows: tokens or output positions"""
    n: Count
    """columns: output channels"""
    k: Count
    """length of the reduction"""


class ConvShape(Spec):
    """A convolution over an image that is square or not; zero padding on all four sides."""

    image: Pair
    """[height, width] of the input"""
    channels: Count
    """input channels"""
    outputs: Count
    """output channels"""
    kernel: Pair
    """[height, width] of the window"""
    stride: Count = 1
    """step of the window, both ways"""
    padding: NonNegative = 0
    """positions added on each side"""
    padding_positions: Literal["computed", "skipped"] = "computed"
    """whether the machine multiplies by the padding or leaves those positions out"""

    @model_validator(mode="after")
    def _window_fits(self) -> ConvShape:
        for side, window in zip(self.image, self.kernel, strict=True):
            if window > side + 2 * self.padding:
                raise ValueError(
                    f"must have a kernel inside the padded image, not {window} of"
                    f" {side + 2 * self.padding} positions"
                )
        return self

    @property
    def windows(self) -> Windows:
        """The windows over the image."""
        (height, width), (kh, kw) = self.image, self.kernel
        steps, border = (self.stride, self.stride), (self.padding, self.padding)
        return Windows((height, width), (kh, kw), steps, border)

    def gemms(self) -> list[GemmShape]:
        """Return the products that the convolution is, the largest first."""
        found = parts(self.windows, self.channels, self.padding_positions)
        return [GemmShape(m=p.m, n=self.outputs, k=p.k) for p in found]


class LayerSpec(Spec):
    """One layer, or `count` equal ones in a row, each with its own weights."""

    name: Annotated[str, Field(min_length=1)]
    """name in results"""
    gemm: GemmShape | None = None
    """the layer as a product; this or `conv`"""
    conv: ConvShape | None = None
    """the layer as a convolution"""
    activation: FormatName
    """format of the input"""
    weight: FormatName
    """format of the weights"""
    result: FormatName
    """format that the machine stores: after the threshold or requantisation in its output stage"""
    count: Count = 1
    """equal layers in a row"""

    @model_validator(mode="after")
    def _one_shape(self) -> LayerSpec:
        if (self.gemm is None) == (self.conv is None):
            both = "both" if self.gemm is not None else "neither"
            raise ValueError(f"must have either gemm or conv, not {both}")
        return self

    def gemms(self) -> list[GemmShape]:
        """Return the products of one of the layers, the largest first."""
        if self.conv is not None:
            return self.conv.gemms()
        return [] if self.gemm is None else [self.gemm]

    @property
    def op(self) -> str:
        """The layer's operator in a graph."""
        return "linear" if self.conv is None else "conv2d"

    @property
    def attrs(self) -> dict[str, Attr]:
        """The attributes of that operator."""
        if self.conv is None:
            return {}
        windows = self.conv.windows
        return {
            "kernel": windows.kernel,
            "stride": windows.stride,
            "padding": windows.padding,
            "padding_positions": self.conv.padding_positions,
        }

    @property
    def reads(self) -> tuple[int, ...]:
        """Shape of the input: [H, W, C], or [M, K] of a product."""
        if self.conv is not None:
            return (*self.conv.windows.image, self.conv.channels)
        (g,) = self.gemms()
        return g.m, g.k

    @property
    def writes(self) -> tuple[int, ...]:
        """Shape of the result: [H', W', N], or [M, N] of a product."""
        if self.conv is not None:
            return (*self.conv.windows.positions, self.conv.outputs)
        (g,) = self.gemms()
        return g.m, g.n

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Shape of the weight: [N, K]."""
        if self.conv is not None:
            height, width = self.conv.kernel
            return self.conv.outputs, height * width * self.conv.channels
        (g,) = self.gemms()
        return g.n, g.k

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all `count` layers."""
        return self.count * sum(g.m * g.n * g.k for g in self.gemms())


class WorkloadSpec(Spec):
    """Description of a workload."""

    schema_: Literal["hwsim/workload/1"] = Field(alias="schema")
    """version of this layout"""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    """name in results"""
    description: Annotated[str, Field(min_length=1)]
    """one line"""
    source: Annotated[str, Field(min_length=1)]
    """where the list of layers comes from"""
    energy_includes: Annotated[str, Field(min_length=1)]
    """what the published figures for it cover, as far as their source says"""
    unknown: list[str] = Field(default_factory=list)
    """inputs that no source gives: figures for this workload are underdetermined"""
    layers: Annotated[list[LayerSpec], Field(min_length=1)]
    """a chain: each layer reads what the one before wrote"""

    @model_validator(mode="after")
    def _names_differ(self) -> WorkloadSpec:
        names = Counter(layer.name for layer in self.layers)
        twice = [name for name, times in names.items() if times > 1]
        if twice:
            raise ValueError(f"must have layers of different names, not {twice[0]!r} twice")
        return self


class Workload:
    """A workload built from its description."""

    def __init__(self, spec: WorkloadSpec) -> None:
        self.spec = spec

    @property
    def name(self) -> str:
        """The workload's name."""
        return self.spec.name

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the description, as hexadecimal text."""
        text = json.dumps(
            self.spec.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":")
        )
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def macs(self) -> int:
        """Multiply-accumulates; one counts as two operations."""
        return sum(layer.macs for layer in self.spec.layers)

    @property
    def weight_bits(self) -> int:
        """Bits of all weights, without padding."""
        return sum(
            layer.count * prod(layer.weight_shape) * dt.parse(layer.weight).bits
            for layer in self.spec.layers
        )

    def layers(self) -> list[tuple[str, LayerSpec]]:
        """Return (name, layer) one by one; the second of `count` equal ones is NAME.1."""
        return [
            (f"{layer.name}.{index}" if index else layer.name, layer)
            for layer in self.spec.layers
            for index in range(layer.count)
        ]

    def graph(self) -> QuantGraph:
        """Return the chain as a graph of shapes, to be costed and never executed.

        A layer reads a view of what the one before wrote, whatever that was. Results have the stored format
        at once: thresholds belong to the array's output stage. Weights are ones that take no memory.
        """
        nodes: list[Node] = []
        tensors: dict[str, Tensor] = {}
        constants: dict[str, Constant] = {}
        inputs: list[str] = []
        stored = ""
        for name, layer in self.layers():
            a, w = dt.parse(layer.activation), dt.parse(layer.weight)
            before, stored = stored, name
            read, weight = f"{name}.in", f"{name}.weight"
            tensors[read] = Tensor(read, a, layer.reads)
            if before:
                view: dict[str, Attr] = {"axis": 0, "start": 0, "stop": layer.reads[0]}
                nodes.append(Node(read, "slice", (before,), attrs=view))
            else:
                inputs.append(read)
            ones = np.broadcast_to(np.ones((), np.int8), layer.weight_shape)
            constants[weight] = Constant(weight, w, ones)
            nodes.append(Node(name, layer.op, (read,), {"weight": weight}, layer.attrs))
            tensors[name] = Tensor(name, dt.parse(layer.result), layer.writes)
        return QuantGraph(tuple(nodes), tensors, constants, tuple(inputs), (stored,))


def cost_workload(workload: Workload | Path | str, machine: Machine | Path | str) -> CostReport:
    """Return what one inference of a workload costs on a machine.

    Args:
        workload: a shipped workload's name, a YAML file, or a loaded workload.
        machine: a shipped machine's name, a YAML file, or a loaded machine.

    Raises:
        ConfigError: a file is wrong or there is none.
        GraphError: the machine lacks a format.
        CapacityError: not even the smallest tile of a layer fits a memory.
    """
    from hwsim.arch.machine import Machine
    from hwsim.config.load import load_machine, load_workload
    from hwsim.engine.cost import cost

    if not isinstance(workload, Workload):
        workload = load_workload(workload)
    if not isinstance(machine, Machine):
        machine = load_machine(machine)
    return cost(workload.graph(), machine)
