"""Softmax and masks worked out by hand: every number below follows from docs/arithmetic.md and the comment beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from golden import HALVES, Run
from hand_made import (
    INT32,
    MULTIPLIER,
    SHIFT,
    UINT17,
    Maker,
)

from hwsim.graph import derive
from hwsim.graph.dtype import UNIPOLAR, DataType, uint
from hwsim.graph.ir import QuantGraph

# -- softmax


def direct(name: str, dtype: DataType, heads: int = 1, **attrs: Any) -> QuantGraph:
    """A softmax of [heads, T, T] scores with the table of halves."""
    g = Maker()
    x = g.input("x", INT32, heads, "T", "T")
    chosen: dict[str, Any] = {
        "mode": "direct",
        "shift": 0,
        "causal": False,
        "masked": False,
    } | attrs
    table = {"table": (uint(25), HALVES)}
    g.node("p", name, (x,), dtype, (heads, "T", "T"), table, **chosen)
    return g.graph("p", max_length=8)


def test_softmax_direct(run: Run) -> None:
    # differences 0, 1, 2: e = 2^24 * (1, 1/2, 1/4), Z = 2^24 * 7/4, R = floor(2^32 * 4/7) = 2454267026
    # u = R/2^16 = 37449.1 -> 37449, R/2^17 = 18724.6 -> 18725, R/2^18 = 9362.3 -> 9362
    row = [7, 6, 5]
    got = run(direct("softmax", UINT17), {"x": [[[row, row[::-1], [-9, -9, -9]]]]})["p"][0][0]
    assert got[0] == [37449, 18725, 9362]
    assert got[1] == [9362, 18725, 37449]
    # three equal: R = floor(2^32 / 3) = 1431655765, u = 21845.3 -> 21845
    assert got[2] == [21845] * 3


def test_softmax_direct_of_bipolar_scores_reads_every_other_difference(run: Run) -> None:
    row = [4, 2, 0]  # differences 0, 2, 4 are entries 0, 1, 2
    got = run(direct("softmax", UINT17, shift=1), {"x": [[[row] * 3]]})["p"][0][0]
    assert got[0] == [37449, 18725, 9362]


def exp2(name: str, dtype: DataType, **attrs: Any) -> QuantGraph:
    """A softmax that halves with every two steps of the score: t = 2048 * delta, M = 2^30, S = 19."""
    g = Maker()
    x = g.input("x", INT32, 1, "T", "T")
    constants = {
        "table": (uint(21), derive.softmax_exp2_table()),
        "M": (MULTIPLIER, [1 << 30]),
        "S": (SHIFT, [19]),
    }
    chosen: dict[str, Any] = {"mode": "exp2", "shift": 0, "causal": False, "masked": False} | attrs
    g.node("p", name, (x,), dtype, (1, "T", "T"), constants, **chosen)
    return g.graph("p", max_length=8)


def test_softmax_exp2(run: Run) -> None:
    got = run(exp2("softmax", UINT17), {"x": [[[[9, 8, 7], [100, 58, 56], [10**6, 0, 0]]]]})["p"][
        0
    ][0]
    # t = 0, 2048, 4096: e = 2^20, floor(2^19.5 + 1/2) * 2^20 / 2^20 = 741455, 2^19; Z = 2314319
    # R = floor(2^56 / Z) = 31135549610; u = e*R / 2^40 = 29693.17, 20996.24, 14846.59 -> 14847
    assert got[0] == [29693, 20996, 14847]
    # t = 86016 = 21 * 4096: e = rshr(2^40, 41) = 1;  t = 90112 = 22 * 4096: e = 0
    # Z = 2^20 + 1: R = floor(2^56 / Z) = 68719411200; u = 65535.94 -> 65536, 0.06 -> 0
    assert got[1] == [65536, 0, 0]
    # t would be 2 thousand million: it stops at 2^17 - 1, which is 0
    assert got[2] == [65536, 0, 0]


def test_softmax_exp2_multiplies_two_tables(run: Run) -> None:
    # M = 2^30, S = 30: t = delta. t = 65 = 1 * 64 + 1: e = rshr(1037281 * 1048399, 20) = 1037105.5 -> 1037106:
    # floor(2^(20 - 1/64) + 1/2) = 1037281, floor(2^(20 - 1/4096) + 1/2) = 1048399
    g = Maker()
    x = g.input("x", INT32, 1, "T", "T")
    constants = {
        "table": (uint(21), derive.softmax_exp2_table()),
        "M": (MULTIPLIER, [1 << 30]),
        "S": (SHIFT, [30]),
    }
    attrs: dict[str, Any] = {"mode": "exp2", "shift": 0, "causal": False, "masked": False}
    g.node("p", "softmax", (x,), UINT17, (1, "T", "T"), constants, **attrs)
    got = run(g.graph("p", max_length=8), {"x": [[[[65, 0], [0, 65]]]]})["p"][0][0]
    e = (1037281 * 1048399 + (1 << 19)) >> 20
    z = (1 << 20) + e
    want = [((v * ((1 << 56) // z)) + (1 << 39)) >> 40 for v in (1 << 20, e)]
    assert got == [want, want[::-1]]
    assert e == 1037106


def test_softmax_binary(run: Run) -> None:
    # p = 4/7, 2/7, 1/7; alpha/2 = 1/4: level = 2^22
    graph = direct("softmax_binary", UNIPOLAR, level=1 << 22)
    got = run(graph, {"x": [[[[7, 6, 5], [5, 5, 5], [9, 5, 5]]]]})["p"][0][0]
    # 1/3 each is above 1/4; 16/18 and 1/18
    assert got == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]


def test_softmax_binary_counts_an_exact_half_step(run: Run) -> None:
    # four equal scores: p = 1/4 = alpha/2 exactly, which is 1; one level higher it is 0
    scores = {"x": [[[[3, 3, 3, 3]] * 4]]}
    for level, bit in ((1 << 22, 1), ((1 << 22) + 1, 0)):
        graph = direct("softmax_binary", UNIPOLAR, level=level)
        assert run(graph, scores)["p"][0][0] == [[bit] * 4] * 4


def test_softmax_binary_exp2(run: Run) -> None:
    # p = 0.453, 0.320, 0.227
    graph = exp2("softmax_binary", UNIPOLAR, level=derive.binary_softmax_level(0.6))
    assert run(graph, {"x": [[[[9, 8, 7]] * 3]]})["p"][0][0] == [[1, 1, 0]] * 3


def test_a_table_for_each_head(run: Run) -> None:
    g = Maker()
    x = g.input("x", INT32, 2, "T", "T")
    tables = [
        [1 << 24, 1 << 24],
        [1 << 24, 0],
    ]  # the first head ignores a step, the second kills it
    g.node(
        "p", "softmax", (x,), UINT17, (2, "T", "T"), {"table": (uint(25), tables)},
        mode="direct", shift=0, causal=False, masked=False,
    )  # fmt: skip
    got = run(g.graph("p", max_length=2), {"x": [[[[1, 0], [0, 1]], [[1, 0], [0, 1]]]]})["p"][0]
    assert got == [[[32768, 32768], [32768, 32768]], [[65536, 0], [0, 65536]]]


# -- masks


@pytest.mark.parametrize(("op", "dtype"), [("softmax", UINT17), ("softmax_binary", UNIPOLAR)])
def test_causal_mask(run: Run, op: str, dtype: DataType) -> None:
    attrs: dict[str, Any] = {"level": 1 << 22} if op == "softmax_binary" else {}
    # later keys have huge scores that must not even move the maximum
    scores = [[0, 4, 4], [0, 0, 4], [0, 0, 0]]
    got = run(direct(op, dtype, causal=True, **attrs), {"x": [[scores]]})["p"][0][0]
    if op == "softmax":
        assert got == [[65536, 0, 0], [32768, 32768, 0], [21845, 21845, 21845]]
    else:
        assert got == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize("make", [direct, exp2])
def test_length_mask_and_empty_rows(run: Run, make: Callable[..., QuantGraph]) -> None:
    scores = [[0, 0, 4], [0, 0, 4], [0, 0, 4]]
    got = run(
        make("softmax", UINT17, masked=True), {"x": [[scores], [scores], [scores]]}, [2, 1, 0]
    )["p"]
    # padded keys get 0 and do not set the maximum; padded queries are computed like any other
    assert got[0][0] == [[32768, 32768, 0]] * 3
    assert got[1][0] == [[65536, 0, 0]] * 3
    assert got[2][0] == [[0, 0, 0]] * 3


@pytest.mark.parametrize("make", [direct, exp2])
def test_an_empty_row_of_a_binary_map_is_zero_at_any_level(
    run: Run, make: Callable[..., QuantGraph]
) -> None:
    graph = make("softmax_binary", UNIPOLAR, masked=True, level=0)
    assert run(graph, {"x": [[[[1, 0], [0, 1]]]]}, [0])["p"] == [[[[0, 0], [0, 0]]]]


def test_both_masks_at_once(run: Run) -> None:
    graph = direct("softmax", UINT17, causal=True, masked=True)
    got = run(graph, {"x": [[[[0] * 3] * 3]]}, [2])["p"][0][0]
    assert got == [[65536, 0, 0], [32768, 32768, 0], [32768, 32768, 0]]


def test_lengths_do_not_touch_a_node_that_does_not_mask(run: Run) -> None:
    got = run(direct("softmax", UINT17), {"x": [[[[0, 0]] * 2]]}, [1])["p"]
    assert got == [[[[32768, 32768]] * 2]]
