"""An explained operator: counts times units that add up to the report, formulas that give its cycles."""

from __future__ import annotations

import ast
import io
import json
import math
import operator as arithmetic
import re

import pytest
from rich.console import Console
from view_cases import Case

from hwsim.config.load import load_machine
from hwsim.engine.cost import OperatorCost, cost
from hwsim.errors import GraphError
from hwsim.mapping.problems import Scenario
from hwsim.report.explain import Explanation, explain

NAMES = ("head by head", "spilled", "empty beats", "fused thresholds", "own rhythm")
OPERATIONS = {ast.Add: arithmetic.add, ast.Mult: arithmetic.mul, ast.Div: arithmetic.truediv}


def explained(case: Case, node: str, scenario: Scenario = "steady") -> Explanation:
    return explain(case.report, case.graph, case.machine, node, scenario, "model")


def every(case: Case) -> list[tuple[OperatorCost, Explanation]]:
    return [
        (o, explained(case, o.node, scenario))
        for scenario in ("steady", "cold")
        for o in getattr(case.report, scenario).operators
    ]


def value(formula: str) -> float:
    """Work a printed formula out: sums, products and `ceil` of quotients."""

    def walk(node: ast.AST) -> float:
        if isinstance(node, ast.Expression):
            return walk(node.body)
        if isinstance(node, ast.Constant):
            return float(node.value)  # type: ignore[arg-type]
        if isinstance(node, ast.BinOp):
            return float(OPERATIONS[type(node.op)](walk(node.left), walk(node.right)))
        assert isinstance(node, ast.Call)
        return math.ceil(walk(node.args[0]))

    return walk(ast.parse(formula, mode="eval"))


@pytest.mark.parametrize("name", NAMES)
def test_sums_are_the_report_s(cases: dict[str, Case], name: str) -> None:
    for o, e in every(cases[name]):
        assert math.fsum(line.pj for line in e.energy) == o.energy_pj.nominal
        counts: dict[str, int] = {}
        for line in e.energy:
            c = line.count
            key = f"{c.component}.{c.action}.{c.operand}"
            counts[key] = counts.get(key, 0) + c.count
        assert counts == o.to_json()["counts"]
        assert e.split.computing + e.split.waiting == o.cycles
        for what, cycles in (("compute", o.compute_cycles), ("post", 0 if o.mapping is None else o.mapping.timeline.vector_busy)):  # fmt: skip
            assert sum(s.cycles for s in e.steps if s.what == what) == cycles
        moving = [s for s in e.steps if s.what.startswith(("load", "store"))]
        assert sum(s.cycles for s in moving) == (0 if o.mapping is None else o.mapping.timeline.bus_busy)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_formulas_give_the_cycles_of_a_step(cases: dict[str, Case], name: str) -> None:
    checked = 0
    for _, e in every(cases[name]):
        for s in e.steps:
            if s.what not in ("compute", "post") or "rhythm" in s.formula:
                continue
            beats = re.fullmatch(
                r"(.*) = ([\d,]+) beats of (\d+) cycles?(?: \([a-z]+ port: (.*)\))?(, less the empty ones)?",
                s.formula,
            )
            if beats is None:
                wanted = sum(value(part.split(": ")[1]) for part in re.split(r" \+ (?=[a-z_]+:)", s.formula))  # fmt: skip
                assert (s.least, s.most) == (wanted, wanted)
            else:
                count = int(beats[2].replace(",", ""))
                assert value(beats[1].replace(" passes", "")) == count
                assert s.most <= count * int(beats[3])
                assert beats[4] is None or value(beats[4]) == int(beats[3])
                assert beats[5] is not None or s.least == s.most == count * int(beats[3])
            checked += 1
    assert checked > 20


def test_a_beat_names_the_port_that_it_waits_for(cases: dict[str, Case]) -> None:
    graph = cases["spilled"].graph
    machine = load_machine("toy", ["arrays.main.weight_port_bits_per_cycle=32"])
    e = explain(cost(graph, machine), graph, machine, "q", "steady", "model")
    formulas = [s.formula for s in e.steps if s.what == "compute"]
    assert formulas
    for formula in formulas:
        assert re.search(r"beats of \d cycles \(weight port: ceil\(\d+/32\)\)$", formula)


def test_formulas_of_planes(cases: dict[str, Case]) -> None:
    machine = load_machine("bitserial_edge")
    graph = cases["spilled"].graph
    e = explain(cost(graph, machine), graph, machine, "q", "steady", "model")
    assert all("64 passes" in s.formula for s in e.steps if s.what == "compute")  # 8 x 8 planes


def test_an_operator_inside_a_group_and_a_view(cases: dict[str, Case]) -> None:
    case = cases["head by head"]
    assert explained(case, "qa").operator.node == "q"
    view = explained(case, "qp")
    assert (view.steps, view.energy, view.problem, view.mapping) == ((), (), {}, {})
    out = io.StringIO()
    view.render(Console(file=out, width=120))
    assert "no cycles and no energy" in out.getvalue()


def test_an_unknown_operator_names_the_nearest(cases: dict[str, Case]) -> None:
    with pytest.raises(GraphError, match=r"^model: has no operator 'logit'; did you mean 'logits'\?$"):  # fmt: skip
        explained(cases["spilled"], "logit")


def test_cold_and_steady_differ_where_constants_arrive(cases: dict[str, Case]) -> None:
    case = cases["head by head"]
    cold, steady = (explained(case, "q", s).problem for s in ("cold", "steady"))
    assert (cold["weight"]["place"], steady["weight"]["place"]) == ("fill", "chip")


def test_console_and_json_hold_the_same(cases: dict[str, Case]) -> None:
    e = explained(cases["head by head"], "qk")
    data = json.loads(json.dumps(e.to_json()))
    assert data["schema_version"] == "hwsim/explain/1"
    assert (data["blocks"], data["problem"]["batch"]) == (8, 1)
    assert data["cycles"]["total"] == sum(
        data["cycles"][k] for k in ("computing", "vector", "bus", "other")
    )
    for line in data["energy"]:
        unit = line["unit_pj"]
        assert unit["low"] <= unit["nominal"] <= unit["high"]
        assert line["pj"] == line["count"] * unit["nominal"]
        assert line["source"]
    out = io.StringIO()
    e.render(Console(file=out, width=220))
    text = out.getvalue()
    assert "qk (matmul)" in text
    assert "8 times, a head each" in text
    assert f"{e.operator.cycles:,} cycles" in text
    assert f"{e.operator.energy_pj.nominal:,.1f} pJ" in text
    for line in e.energy:
        assert line.price.quantity.source in text
