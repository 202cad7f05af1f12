"""Views that cut rows which are not whole words are a pass of the vector unit; all others stay free."""

from __future__ import annotations

import pytest
from graph_maker import INT32, GraphMaker

from hwsim.arch.machine import Machine
from hwsim.config.load import load_machine
from hwsim.engine.cost import CostReport, OperatorCost, cost
from hwsim.graph.dtype import DataType, parse
from hwsim.graph.ir import QuantGraph

INT8 = parse("INT8")


def split(width: int, heads: int, *, late: bool = False, codes: DataType = INT8) -> QuantGraph:
    """Four rows of a product's codes, cut in heads; `late`: cut as accumulators, and made codes afterwards."""
    g, apart = GraphMaker(), (4, heads, width // heads)
    g.input("x", INT8, 4, 16)
    acc = g.node("y", "linear", ("x",), INT32, (4, width), {"weight": (INT8, (width, 16))})
    if late:
        acc = g.node("cut", "reshape", (acc,), INT32, apart, shape=apart)
        out = g.requant("codes", acc, codes)
    else:
        made = g.requant("codes", acc, codes)
        out = g.node("cut", "reshape", (made,), codes, apart, shape=apart)
    z = g.node("z", "linear", (out,), INT32, (*apart[:2], 3), {"weight": (INT8, (3, apart[2]))})
    return g.build(("x",), (z,), 0)


def row(report: CostReport, node: str) -> OperatorCost:
    return next(o for o in report.steady.operators if o.node == node)


@pytest.fixture(scope="module")
def toy() -> Machine:
    return load_machine("toy")


def test_a_cut_within_words_is_a_pass_over_all_codes(toy: Machine) -> None:
    report = cost(split(8, 2), toy)
    cut = row(report, "cut")
    unit = toy.spec.vector_unit
    assert unit is not None
    (sweep,) = unit.operators["relayout"].passes
    work = unit.overhead_cycles + -(-32 // unit.lanes) * sweep.cycles_per_element
    work += 8 * unit.operators["relayout"].cycles_per_row
    assert (cut.op, cut.unit, cut.compute_cycles, cut.cycles) == ("reshape", "vector", work, work)
    counts = {(c.component, c.action, c.operand): c.count for c in cut.counts}
    # Rows of 8 codes are a word each; rows of 4 codes take a word each, too. The buffer's words are of 64 bits.
    assert counts["memory:buffer", "read", "activation"] == 4
    assert counts["memory:buffer", "write", "output"] == 8
    assert counts["vector", "element:relayout", "output"] == 32
    assert counts["vector", "row:relayout", "output"] == 8
    assert cut.energy_pj.nominal > 0
    assert not [line for line in report.not_modelled if "repacking" in line]


@pytest.mark.parametrize(("width", "heads"), [(16, 2), (16, 1)])
def test_whole_words_are_read_where_they_are(toy: Machine, width: int, heads: int) -> None:
    cut = row(cost(split(width, heads), toy), "cut")
    assert (cut.unit, cut.cycles, cut.counts) == ("view", 0, ())


def test_codes_are_moved_and_not_accumulators(toy: Machine) -> None:
    # 2 x 32 bits are a word, but what is stored are 2 x 8.
    first, late = (cost(split(4, 2, late=x), toy) for x in (False, True))
    assert row(late, "y").fused == ("codes",)
    assert late.steady.cycles == first.steady.cycles
    assert row(late, "cut").counts == row(first, "cut").counts
    assert late.energy_pj.nominal == pytest.approx(first.energy_pj.nominal)


def test_a_machine_that_cannot_repack_says_so() -> None:
    edge = load_machine("toy")
    assert edge.spec.vector_unit is not None
    del edge.spec.vector_unit.operators["relayout"]
    report = cost(split(8, 2), edge)
    assert row(report, "cut").unit == "view"
    assert "repacking of 1 views whose rows are not whole words" in report.not_modelled
