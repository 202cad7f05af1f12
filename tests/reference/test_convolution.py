"""Convolutions: the reference against PyTorch and plain Python, the machines' arrays against the reference."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import plain
import pytest
import torch
from hand_made import INT32, Maker
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import reference
from hwsim.arch.machine import Machine
from hwsim.config.load import load_machine
from hwsim.engine import convolution
from hwsim.engine.execute import execute, numeric_profiles
from hwsim.errors import GraphError, OverflowRefused
from hwsim.graph.dtype import parse
from hwsim.graph.ir import QuantGraph
from hwsim.graph.windows import Windows

SETTINGS = settings(derandomize=True, deadline=None, max_examples=50)
ARRAYS = [  # machine, formats: every kind of padding that a type can have
    ("xnor_edge", "BIPOLAR", "BIPOLAR"),
    ("xnor_edge", "UNIPOLAR", "BIPOLAR"),
    ("ternary_edge", "TERNARY", "TERNARY"),
    ("ternary_edge", "INT8", "BIPOLAR"),
    ("bitserial_edge", "BIPOLAR", "BIPOLAR"),
    ("bitserial_edge", "BIPOLAR", "INT4"),
    ("bitserial_edge", "UINT4", "BIPOLAR"),
    ("int8_edge", "UINT8", "INT8"),
    ("cutie", "TERNARY", "TERNARY"),
    ("unpu", "INT8", "BIPOLAR"),
]
HOW = st.sampled_from(["computed", "skipped"])


@lru_cache
def machine(name: str, *overrides: str) -> Machine:
    return load_machine(name, overrides)


def random_codes(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    dtype = parse(name)
    return rng.choice(np.arange(dtype.qmin, dtype.qmax + 1, dtype.step), shape)


def conv(windows: Windows, channels: int, outputs: int, a: str, w: str, how: str, seed: int) -> tuple[QuantGraph, dict[str, Any]]:  # fmt: skip
    """A graph of one convolution with random weights, and two random images."""
    rng = np.random.default_rng(seed)
    g = Maker()
    x = g.input("x", parse(a), *windows.image, channels)
    depth = windows.kernel[0] * windows.kernel[1] * channels
    weight = random_codes(rng, w, (outputs, depth))
    g.node(
        "acc", "conv2d", (x,), INT32, (*windows.positions, outputs), {"weight": (parse(w), weight)},
        kernel=windows.kernel, stride=windows.stride, padding=windows.padding, padding_positions=how,
    )  # fmt: skip
    return g.graph("acc"), {"x": random_codes(rng, a, (2, *windows.image, channels))}


@st.composite
def slid(draw: st.DrawFn) -> Windows:
    """Images smaller than the kernel, strides larger, 1 x 1, padding 0 to 3."""
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel, stride = draw(pair), draw(pair)
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    sides = [draw(st.integers(max(1, k - 2 * p), 5)) for k, p in zip(kernel, padding, strict=True)]
    return Windows((sides[0], sides[1]), kernel, stride, padding)


def both(graph: QuantGraph, inputs: dict[str, Any], on: Machine) -> tuple[np.ndarray, np.ndarray]:
    """Return what the reference and the machine make of a graph's last node."""
    profiles = numeric_profiles(graph, on, 0)
    want = dict(reference.execute(graph, inputs, profiles=profiles))
    got = dict(execute(graph, on, inputs))
    return want[graph.outputs[0]], got[graph.outputs[0]]


@SETTINGS
@given(
    windows=slid(),
    channels=st.integers(1, 4),
    a=st.sampled_from(["BIPOLAR", "UNIPOLAR", "TERNARY", "UINT8"]),
    how=HOW,
    seed=st.integers(0, 99),
)
def test_the_reference_is_a_convolution_over_zeros(windows, channels, a, how, seed):  # fmt: skip
    """PyTorch's own convolution pads with the number 0, which no bipolar code is."""
    graph, inputs = conv(windows, channels, 3, a, "TERNARY", how, seed)
    (_, got), = reference.execute(graph, inputs)  # fmt: skip
    weight = torch.from_numpy(graph.constants["acc.weight"].array.astype(np.float64))
    weight = weight.reshape(3, *windows.kernel, channels).permute(0, 3, 1, 2)
    image = torch.from_numpy(inputs["x"].astype(np.float64)).permute(0, 3, 1, 2)
    image = torch.nn.functional.pad(image, (windows.padding[1],) * 2 + (windows.padding[0],) * 2)
    expected = torch.nn.functional.conv2d(image, weight, stride=windows.stride)
    np.testing.assert_array_equal(got, expected.permute(0, 2, 3, 1).long().numpy())
    geometry = (windows.kernel, windows.stride, windows.padding)
    rows = graph.constants["acc.weight"].array.tolist()
    assert got[0].tolist() == plain.conv2d(inputs["x"][0].tolist(), rows, *geometry)


@SETTINGS
@given(
    windows=slid(),
    channels=st.integers(1, 4),
    array=st.sampled_from(ARRAYS),
    how=HOW,
    seed=st.integers(0, 99),
)
def test_machines_equal_the_reference(windows, channels, array, how, seed):  # fmt: skip
    name, a, w = array
    want, got = both(*conv(windows, channels, 3, a, w, how, seed), machine(name))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("how", ["computed", "skipped"])
@pytest.mark.parametrize(("name", "a", "w"), ARRAYS)
def test_channels_around_a_block_of_lanes(name: str, a: str, w: str, how: str) -> None:
    """A border at which K is just below, at and just above the lanes and the words of 64."""
    lanes = machine(name).array_for(parse(a), parse(w)).block(parse(a), parse(w))[2]
    for channels in {63, 64, 65, *([lanes - 1, lanes, lanes + 1] if lanes < 300 else [])}:
        windows = Windows((2, 3), (3, 3), (1, 1), (1, 1))
        want, got = both(*conv(windows, channels, 2, a, w, how, channels), machine(name))
        np.testing.assert_array_equal(got, want)


NARROW = ("arrays.main.accumulator_bits=5",)


@SETTINGS
@given(
    windows=slid(),
    channels=st.integers(2, 6),
    array=st.sampled_from([x for x in ARRAYS if x[0].endswith("_edge")]),
    how=HOW,
    rule=st.sampled_from(["wrap", "clamp", "error"]),
    seed=st.integers(0, 99),
)
def test_narrow_accumulators_follow_the_arrays_own_order(windows, channels, array, how, rule, seed):  # fmt: skip
    """Chunks of 3 lanes, 5 bits: with `error` both refuse or neither does."""
    name, a, w = array
    on = machine(name, *NARROW, f"arrays.main.overflow={rule}", "arrays.main.lanes=3")
    graph, inputs = conv(windows, channels, 3, a, w, how, seed)
    try:
        want = dict(reference.execute(graph, inputs, profiles=numeric_profiles(graph, on, 0)))
    except OverflowRefused:
        with pytest.raises(OverflowRefused):
            dict(execute(graph, on, inputs))
        return
    np.testing.assert_array_equal(dict(execute(graph, on, inputs))["acc"], want["acc"])


def test_clamped_sums_depend_on_whether_padding_is_computed() -> None:
    """The control of the test above: the chunks are cut differently, and that shows."""
    windows = Windows((3, 3), (3, 3), (1, 1), (1, 1))
    on = machine("ternary_edge", *NARROW, "arrays.main.overflow=clamp", "arrays.main.lanes=3")
    made = []
    for how in ("computed", "skipped"):
        graph, inputs = conv(windows, 5, 8, "INT8", "TERNARY", how, 3)
        made.append(both(graph, inputs, on)[1])
    assert (made[0][:, 1, 1] == made[1][:, 1, 1]).all()  # the one window without padding
    assert (made[0] != made[1]).any()


@pytest.mark.parametrize("name", ["xnor_edge", "bitserial_edge"])
def test_a_border_that_is_not_put_right_shows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = Windows((4, 4), (3, 3), (1, 1), (1, 1))
    graph, inputs = conv(windows, 7, 5, "BIPOLAR", "BIPOLAR", "computed", 1)
    sums = convolution.border_sums
    monkeypatch.setattr(convolution, "border_sums", lambda *a: 0 * sums(*a))
    want, got = both(graph, inputs, machine(name))
    assert (want[:, 1:3, 1:3] == got[:, 1:3, 1:3]).all()
    assert (want != got).any()


def test_by_hand() -> None:
    """An image of +1 and a kernel of +1: each of the four windows sees the four codes, and nothing else."""
    g = Maker()
    x = g.input("x", parse("BIPOLAR"), 2, 2, 1)
    g.node(
        "acc", "conv2d", (x,), INT32, (2, 2, 1), {"weight": (parse("BIPOLAR"), np.ones((1, 9)))},
        kernel=(3, 3), stride=(1, 1), padding=(1, 1), padding_positions="computed",
    )  # fmt: skip
    want, got = both(g.graph("acc"), {"x": np.ones((1, 2, 2, 1), np.int64)}, machine("xnor_edge"))
    assert want.tolist() == got.tolist() == [[[[4], [4]], [[4], [4]]]]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"stride": (0, 1)}, r"node acc: stride must be at least 1, not \[0, 1\]"),
        ({"kernel": (7, 3)}, r"the kernel must lie inside the padded image \[6, 6\], not be \[7, 3\]"),
        ({"padding_positions": "left"}, "padding_positions must be one of computed, skipped, not 'left'"),
        ({"depth": 9}, r"the weight must be \[N, .*\] = \[N, 18\] \(one group\), not \[3, 9\]"),
        ({"out": (4, 4, 2)}, r"its output must be \[4, 4, 3\], not \[4, 4, 2\]"),
    ],
)  # fmt: skip
def test_what_is_no_convolution_is_refused(change: dict[str, Any], fault: str) -> None:
    """A depthwise kernel, for one, has a reduction of its own window alone."""
    g = Maker()
    x = g.input("x", parse("INT8"), 4, 4, 2)
    attrs = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1), "padding_positions": "computed"}
    attrs |= {k: v for k, v in change.items() if k in attrs}
    weight = np.ones((3, change.get("depth", 18)))
    g.node(
        "acc", "conv2d", (x,), INT32, change.get("out", (4, 4, 3)), {"weight": (parse("INT8"), weight)}, **attrs
    )  # fmt: skip
    with pytest.raises(GraphError, match=fault):
        g.graph("acc")
