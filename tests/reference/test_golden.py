"""Graphs worked out by hand: every number below follows from docs/arithmetic.md and the comment beside it.

Each runs twice, through the reference and on a machine, so that neither can drift with the other.
"""

from __future__ import annotations

import numpy as np
import plain
import pytest
from golden import HALVES, Run
from hand_made import (
    INT8,
    INT16,
    INT32,
    INT64,
    MULTIPLIER,
    SHIFT,
    UINT8,
    Maker,
)

from hwsim.graph.dtype import BIPOLAR, TERNARY, UNIPOLAR, DataType, int_, uint

# -- products and what follows them


def test_linear_and_threshold(run: Run) -> None:
    g = Maker()
    x = g.input("x", BIPOLAR, 4)
    weight = [[1, 1, 1, 1], [1, -1, -1, 1], [-1, -1, -1, -1]]
    acc = g.node("acc", "linear", (x,), INT32, (3,), {"weight": (BIPOLAR, weight)})
    g.node(
        "y", "threshold", (acc,), BIPOLAR, (3,),
        {"threshold": (INT8, [[2], [3], [-2]]), "direction": (BIPOLAR, [1, 1, -1])},
    )  # fmt: skip
    got = run(g.graph("y"), {"x": [[1, -1, 1, 1], [-1, -1, 1, -1]]})
    # sample 0: 1-1+1+1 = 2;  1+1-1+1 = 2;  -2      sample 1: -1-1+1-1 = -2;  -1+1-1-1 = -2;  2
    assert got["acc"] == [[2, 2, -2], [-2, -2, 2]]
    # 2 >= 2 yes, 2 >= 3 no, -2 <= -2 yes;           -2 >= 2 no, -2 >= 3 no, 2 <= -2 no
    assert got["y"] == [[1, -1, 1], [-1, -1, -1]]


def test_ternary_linear_and_two_thresholds(run: Run) -> None:
    g = Maker()
    x = g.input("x", UINT8, 3)
    weight = [[1, 0, -1], [0, 1, 1]]
    acc = g.node("acc", "linear", (x,), INT32, (2,), {"weight": (TERNARY, weight)})
    g.node(
        "y", "threshold", (acc,), TERNARY, (2,),
        {"threshold": (INT16, [[-5, 5]]), "direction": (BIPOLAR, [1])},
    )  # fmt: skip
    got = run(g.graph("y"), {"x": [[255, 0, 1], [1, 2, 3], [0, 0, 6]]})
    assert got["acc"] == [[254, 1], [-2, 5], [-6, 6]]
    # both levels reached: 1; one: 0; none: -1
    assert got["y"] == [[1, 0], [0, 1], [-1, 1]]


def test_unipolar_by_bipolar(run: Run) -> None:
    g = Maker()
    x = g.input("x", UNIPOLAR, 5)
    weight = [[1, 1, -1, -1, 1]]
    g.node("acc", "linear", (x,), INT32, (1,), {"weight": (BIPOLAR, weight)})
    # only the ones of x count: 1 + (-1) + 1 = 1
    assert run(g.graph("acc"), {"x": [[1, 0, 1, 0, 1], [0] * 5]})["acc"] == [[1], [0]]


def test_linear_and_requant_with_zero_points(run: Run) -> None:
    # real input = x - 3 (zero point 3), real output = (y - 7); scale ratio 1/4: M = 2^30, S = 32
    m, s = 1 << 30, 32
    weight = [[10, -20, 30], [1, 1, 1]]  # row sums 20 and 3
    g = Maker()
    x = g.input("x", INT8, 3)
    acc = g.node("acc", "linear", (x,), INT32, (2,), {"weight": (INT8, weight)})
    # B = bias/s_out * 2^S - zp_in * sum(w) * M, the bias being 1/2 and 0 output steps
    b = [(1 << 31) - 3 * 20 * m, 0 - 3 * 3 * m]
    g.requant("y", acc, INT8, [m], [s], b, zero_point=7)
    got = run(g.graph("y"), {"x": [[5, 1, -2], [3, 3, 1], [127, -128, 127]]})
    # codes: 50-20-60 = -30, 5+1-2 = 4;  30-60+30 = 0, 7;  1270+2560+3810 = 7640, 126
    assert got["acc"] == [[-30, 4], [0, 7], [7640, 126]]
    # minus 60 and 9, over 4, plus bias: -90/4 + 1/2 = -22, -5/4 -> -1;  -60/4 + 1/2 = -14.5 -> -14 (a tie goes
    # up), -2/4 = -0.5 -> 0;  7580/4 + 1/2 -> saturated, 117/4 = 29.25 -> 29;  each plus 7
    assert got["y"] == [[-22 + 7, -1 + 7], [-14 + 7, 0 + 7], [127, 29 + 7]]


def test_the_zero_multiplier_leaves_the_bias(run: Run) -> None:
    g = Maker()
    g.requant("y", g.input("x", INT32, 1), INT8, [0], [1], [-5])
    # (0 - 5 + 1) >> 1 = -2: -2.5 rounds up to -2, whatever x is
    assert run(g.graph("y"), {"x": [[2**31 - 1], [-(2**31)]]})["y"] == [[-2], [-2]]


def test_product_of_two_activations(run: Run) -> None:
    g = Maker()
    a, b = g.input("a", INT8, 1, 2, 3), g.input("b", INT8, 1, 2, 3)
    g.node("acc", "matmul", (a, b), INT32, (1, 2, 2))
    got = run(
        g.graph("acc"), {"a": [[[[1, 2, 3], [-1, 0, 1]]]], "b": [[[[4, 5, 6], [-128, 127, 1]]]]}
    )
    # 4+10+18 = 32, -128+254+3 = 129;  -4+6 = 2, 128+1 = 129
    assert got["acc"] == [[[[32, 129], [2, 129]]]]


# -- add


def test_add_with_two_scales(run: Run) -> None:
    g = Maker()
    a, b = g.input("a", INT16, 4), g.input("b", INT16, 4)
    g.node("y", "add", (a, b), INT16, (4,), {"M": (MULTIPLIER, [3, 1]), "S": (SHIFT, [2, 0])})
    got = run(g.graph("y"), {"a": [[1, 2, -2, 10]], "b": [[5, -7, 0, 32767]]})
    # 0.75a rounded: 0.75 -> 1, 1.5 -> 2 (tie up), -1.5 -> -1 (tie up), 7.5 -> 8; then + b, saturating
    assert got["y"] == [[6, -5, -1, 32767]]


def test_add_does_not_clamp_its_operands(run: Run) -> None:
    g = Maker()
    a, b = g.input("a", INT32, 2), g.input("b", INT32, 2)
    g.node("y", "add", (a, b), INT16, (2,), {"M": (MULTIPLIER, [1, 1]), "S": (SHIFT, [0, 0])})
    got = run(g.graph("y"), {"a": [[40_000, -40_000]], "b": [[-39_999, -40_000]]})
    assert got["y"] == [[1, -32768]]


def test_add_of_constant_rows_is_cut_to_the_sequence(run: Run) -> None:
    g = Maker()
    x = g.input("x", INT16, "T", 2)
    rows = [[10, 20], [30, 40], [50, 60]]  # built for three positions
    g.node(
        "y", "add", (x,), INT16, ("T", 2),
        {"M": (MULTIPLIER, [1, 1]), "S": (SHIFT, [0, 0]), "addend": (INT16, rows)},
    )  # fmt: skip
    got = run(g.graph("y", max_length=3), {"x": [[[1, 1], [2, 2]], [[3, 3], [4, 4]]]})
    assert got["y"] == [[[11, 21], [32, 42]], [[13, 23], [34, 44]]]


def test_a_decoding_step_adds_the_row_of_its_position(run: Run) -> None:
    g = Maker()
    x = g.input("x", INT16, 1, 2)
    rows = [[10, 20], [30, 40], [50, 60]]
    g.node(
        "y", "add", (x,), INT16, (1, 2),
        {"M": (MULTIPLIER, [1, 1]), "S": (SHIFT, [0, 0]), "addend": (INT16, rows)}, first=1,
    )  # fmt: skip
    assert run(g.graph("y"), {"x": [[[1, 2]], [[3, 4]]]})["y"] == [[[31, 42]], [[33, 44]]]


# -- layer norm


def test_layer_norm_of_four_elements(run: Run) -> None:
    # The square root comes out whole: x = 1, 2, 3, 6: N = 4, Sm = 12, d = 4x - 12 = -8, -4, 0, 12
    # V = 4 * (1+4+9+36) - 144 + E = 56 + 8 = 2^6, 7 bits: k = (62-7)>>1 = 27, r = sqrt(2^6 * 2^54) = 2^30,
    # R = (2^61 + 2^29) // 2^30 = 2^31, h = 61 - 27 - 22 = 12, n = (d * 2^31 + 2^11) >> 12 = d/8 * 2^22
    # so the normalised values are -1, -1/2, 0, 3/2.
    # Q = 43: G = gamma/s_y * 2^21, B = beta/s_y * 2^43;  gamma/s_y = 8, 8, 8, 4;  beta/s_y = 0, 1/2, -1, 1/4
    g = Maker()
    x = g.input("x", INT16, 4)
    gamma = [8 << 21, 8 << 21, 8 << 21, 4 << 21]
    beta = [0, 1 << 42, -(1 << 43), 1 << 41]
    g.node(
        "y", "layer_norm", (x,), INT8, (4,), {"G": (int_(26), gamma), "B": (INT64, beta)},
        zero_point=2, E=8, F=22, Q=43,
    )  # fmt: skip
    got = run(g.graph("y"), {"x": [[1, 2, 3, 6], [5, 5, 5, 5], [-6, -3, -2, -1]]})
    # -8; -4 + 1/2 = -3.5 -> -3; 0 - 1 = -1; 6 + 1/4 -> 6; plus 2
    assert got["y"][0] == [-8 + 2, -3 + 2, -1 + 2, 6 + 2]
    # a constant row: d = 0, only beta is left: 0, 1/2 -> 1, -1, 1/4 -> 0; plus 2
    assert got["y"][1] == [2, 3, 1, 2]
    # the mirrored row: normalised -3/2, 0, 1/2, 1: -12, 1/2 -> 1, 4 - 1 = 3, 4 + 1/4 -> 4; plus 2
    assert got["y"][2] == [-10, 3, 5, 6]


def test_layer_norm_saturates(run: Run) -> None:
    # As above with G a hundred times as large
    g = Maker()
    x = g.input("x", INT16, 4)
    g.node(
        "y", "layer_norm", (x,), INT8, (4,), {"G": (int_(32), [800 << 21] * 4), "B": (INT64, [0] * 4)},
        E=8, F=22, Q=43,
    )  # fmt: skip
    assert run(g.graph("y"), {"x": [[1, 2, 3, 6]]})["y"] == [[-128, -128, 0, 127]]


@pytest.mark.parametrize("eps", [0, 1, 12_345])
def test_normalised_values_to_the_last_bit(run: Run, eps: int) -> None:
    # G = 2 and Q = 1 hand out n itself; one element among many zeros makes it large, so that the last bit
    # of R shows. Truth: the formulas in plain Python integers.
    rng = np.random.default_rng(eps)
    size = 2048
    one_hot = [32767] + [0] * (size - 1)
    rows = [
        one_hot,
        [-32768, 3] * (size // 2),
        rng.integers(-9, 9, size).tolist(),
        [0, 1] + [0] * (size - 2),
    ]
    g = Maker()
    x = g.input("x", INT16, size)
    g.node(
        "n", "layer_norm", (x,), INT32, (size,), {"G": (int_(26), [2] * size), "B": (INT64, [0] * size)},
        E=eps, F=22, Q=1,
    )  # fmt: skip
    got = run(g.graph("n"), {"x": rows})["n"]
    assert got == [plain.layer_norm_normal(row, eps, 22) for row in rows]


# -- look-ups


def test_embedding(run: Run) -> None:
    g = Maker()
    ids = g.input("ids", INT32, "T")
    g.node(
        "y", "embedding", (ids,), INT32, ("T", 3),
        {"weight": (TERNARY, [[1, -1, 0], [1, 1, -1]]), "M": (MULTIPLIER, [3, 5])}, S=1,
    )  # fmt: skip
    got = run(g.graph("y", max_length=4), {"ids": [[1, 0, 1]]})
    # row 0: 3/2 -> 2, -3/2 -> -1, 0;  row 1: 5/2 -> 3, 3, -5/2 -> -2
    assert got["y"] == [[[3, 3, -2], [2, -1, 0], [3, 3, -2]]]


@pytest.mark.parametrize("source", [int_(4), uint(4)], ids=str)
def test_table(run: Run, source: DataType) -> None:
    g = Maker()
    squares = [c * c for c in range(source.qmin, source.qmax + 1)]
    x = g.input("x", source, 3)
    g.node("y", "table", (x,), UINT8, (3,), {"table": (UINT8, squares)})
    low, high = source.qmin, source.qmax
    assert run(g.graph("y"), {"x": [[low, 3, high]]})["y"] == [[low * low, 9, high * high]]


# -- moving codes


def test_im2col(run: Run) -> None:
    g = Maker()
    x = g.input("x", UINT8, 2, 2, 4)
    g.node("tiles", "im2col", (x,), UINT8, (2, 8), kernel=(2, 2), stride=(2, 2))
    g.node("slid", "im2col", (x,), UINT8, (6, 4), kernel=(1, 2), stride=(1, 1))
    channel0, channel1 = [[1, 2, 3, 4], [5, 6, 7, 8]], [[11, 12, 13, 14], [15, 16, 17, 18]]
    got = run(g.graph("tiles", "slid"), {"x": [[channel0, channel1]]})
    # (channel, kh, kw): the left 2 x 2 of channel 0, then of channel 1; then the right ones
    assert got["tiles"] == [[[1, 2, 5, 6, 11, 12, 15, 16], [3, 4, 7, 8, 13, 14, 17, 18]]]
    assert got["slid"][0][:3] == [[1, 2, 11, 12], [2, 3, 12, 13], [3, 4, 13, 14]]
    assert got["slid"][0][3:] == [[5, 6, 15, 16], [6, 7, 16, 17], [7, 8, 17, 18]]


def test_concat_puts_constant_rows_in_front(run: Run) -> None:
    g = Maker()
    x = g.input("x", INT16, 2, 2)
    g.node("y", "concat", (x,), INT16, (3, 2), {"rows": (INT16, [[-7, 900]])})
    got = run(g.graph("y"), {"x": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]})
    assert got["y"] == [[[-7, 900], [1, 2], [3, 4]], [[-7, 900], [5, 6], [7, 8]]]


def test_relayout_swaps_the_last_two_axes(run: Run) -> None:
    g = Maker()
    x = g.input("x", INT8, 2, "T", 3)
    g.node("y", "relayout", (x,), INT8, (2, 3, "T"))
    got = run(
        g.graph("y", max_length=2), {"x": [[[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [0, -1, -2]]]]}
    )
    assert got["y"] == [[[[1, 4], [2, 5], [3, 6]], [[7, 0], [8, -1], [9, -2]]]]


def test_views(run: Run) -> None:
    g = Maker()
    x = g.input("x", INT8, "T", 4)
    heads = g.node("heads", "reshape", (x,), INT8, ("T", 2, 2), shape=("T", 2, 2))
    turned = g.node("turned", "permute", (heads,), INT8, (2, "T", 2), axes=(1, 0, 2))
    one = g.node("one", "slice", (turned,), INT8, (1, "T", 2), axis=0, start=1, stop=2)
    g.node("end", "slice", (one,), INT8, (1, "T", 1), axis=2, start=1, stop=2)
    got = run(g.graph("end", max_length=3), {"x": [[[1, 2, 3, 4], [5, 6, 7, 8]]]})
    assert got["heads"] == [[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]]
    assert got["turned"] == [[[[1, 2], [5, 6]], [[3, 4], [7, 8]]]]
    assert got["one"] == [[[[3, 4], [7, 8]]]]
    assert got["end"] == [[[[4], [8]]]]


def test_append_puts_new_codes_behind_a_cache(run: Run) -> None:
    """Keys grow along their tokens, values along theirs; an empty cache becomes the new codes."""
    g = Maker()
    keys, values, none = (g.input(n, INT8, *s) for n, s in (("k", (1, 2, 2)), ("v", (1, 2, 1)), ("n", (1, 0, 2))))  # fmt: skip
    key, value = g.input("key", INT8, 1, 1, 2), g.input("value", INT8, 1, 2, 1)
    g.node("all_keys", "append", (keys, key), INT8, (1, 3, 2), axis=1)
    g.node("all_values", "append", (values, value), INT8, (1, 2, 2), axis=2)
    g.node("begun", "append", (none, key), INT8, (1, 1, 2), axis=1)
    got = run(
        g.graph("all_keys", "all_values", "begun"),
        {
            "k": [[[[1, 2], [3, 4]]]],
            "v": [[[[7], [8]]]],
            "n": np.zeros((1, 1, 0, 2)),
            "key": [[[[5, 6]]]],
            "value": [[[[9], [-9]]]],
        },
    )
    assert got["all_keys"] == [[[[1, 2], [3, 4], [5, 6]]]]
    assert got["all_values"] == [[[[7, 9], [8, -9]]]]
    assert got["begun"] == [[[[5, 6]]]]


# -- several operators in a row


def test_binary_attention_by_hand(run: Run) -> None:
    """Two tokens, one head of width 2: scores, binary map, V packed along tokens, context, output."""
    g = Maker()
    q, k, v = (g.input(n, BIPOLAR, 1, "T", 2) for n in "qkv")
    scores = g.node("scores", "matmul", (q, k), INT32, (1, "T", "T"))
    p = g.node(
        "p", "softmax_binary", (scores,), UNIPOLAR, (1, "T", "T"), {"table": (uint(25), HALVES)},
        mode="direct", shift=1, causal=False, masked=True, level=1 << 23,
    )  # fmt: skip
    turned = g.node("turned", "relayout", (v,), BIPOLAR, (1, 2, "T"))
    context = g.node("context", "matmul", (p, turned), INT32, (1, "T", 2))
    g.requant("y", context, INT8, [3], [1], [0])
    inputs = {"q": [[[[1, 1], [1, -1]]]], "k": [[[[1, 1], [-1, 1]]]], "v": [[[[1, -1], [-1, -1]]]]}
    got = run(g.graph("y", max_length=2), inputs, [2])
    # q k^T: 1+1 = 2, -1+1 = 0;  1-1 = 0, -1-1 = -2
    assert got["scores"] == [[[[2, 0], [0, -2]]]]
    # differences 0 and 2 are entries 0 and 1: p = 2/3, 1/3; at least 1/2 only the first
    assert got["p"] == [[[[1, 0], [1, 0]]]]
    assert got["turned"] == [[[[1, -1], [-1, -1]]]]
    # each row picks v's first token: 1, -1; times 3/2: 1.5 -> 2 (tie up), -1.5 -> -1
    assert got["y"] == [[[[2, -1], [2, -1]]]]
    # with one real token the second key is out, and nothing else changes here
    assert run(g.graph("y", max_length=2), inputs, [1])["y"] == got["y"]
    # without any, the map is empty
    assert run(g.graph("y", max_length=2), inputs, [0])["y"] == [[[[0, 0], [0, 0]]]]
