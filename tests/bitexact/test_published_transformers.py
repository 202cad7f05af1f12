"""Published machines on tiny transformers: what they have a unit for is equal, the rest is named."""

from __future__ import annotations

import pytest

from hwsim import api
from hwsim.config.load import list_machines, load_machine
from hwsim.engine.cost import cost
from hwsim.errors import GraphError
from hwsim.graph.ops import OPERATORS

RECIPES = ("w8a8", "kd_w2a8", "bit_w1a1")
PRODUCTS = {  # of the 10 products of a BERT of one layer, those that a machine multiplies, by recipe
    **dict.fromkeys(("binareye", "chewbaccann", "xne", "xnorbin"), (0, 0, 7)),
    **dict.fromkeys(("bismo", "braintta", "ita", "vta"), (9, 9, 10)),  # probabilities are UINT8, they have INT8
    **dict.fromkeys((f"nvdla_{n}" for n in (64, 256, 512, 1024, 2048)), (9, 9, 10)),
    "fracbnn": (0, 0, 2),  # those of 0/1 probabilities and of 0/1 hidden values, which UINT2 holds
    "cobra": (10, 10, 10),  # its int8 unit has UINT8, too
    **dict.fromkeys(("cutie", "tcn_cutie", "unpu", "yodann"), (0, 0, 9)),
    **dict.fromkeys(("finn_cnv", "slim_llama", "tereffic"), (0, 7, 9)),
}  # fmt: skip


def test_every_published_machine_is_here() -> None:
    assert set(PRODUCTS) == {name for name, _ in list_machines(published=True)}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("machine", sorted(PRODUCTS))
def test_what_a_published_machine_can_run_is_equal(student, machine, recipe):
    made = student("bert", recipe)
    expected = PRODUCTS[machine][RECIPES.index(recipe)]
    if expected == 0:
        with pytest.raises(GraphError, match=r"cannot run this graph, it lacks:\n(.*\n)* *linear"):
            api.verify(made.model, machine, host=True)
        return
    found = api.verify(made.model, machine, host=True)
    assert found.ok
    products = {n.name for n in made.graph.nodes if OPERATORS[n.op].unit == "array"}
    assert len(products - found.host.keys()) == expected
    assert found.host == load_machine(machine).lacking(made.graph)
    assert found.tensors == len(made.graph.nodes) - len(found.host)


def test_cobra_runs_a_whole_transformer_without_softmax(student):
    """Its attention is a threshold, as BiBERT's: nothing is left to a host, and there is a cost."""
    made = student("bert", "bibert_w1a1")
    found = api.verify(made.model, "cobra")
    assert found.ok
    assert found.tensors == len(made.graph.nodes)
    report = cost(made.graph, load_machine("cobra"))
    assert all(share["cycles"] > 0 for share in report.arrays.values())
    staged = [o for o in report.steady.operators if o.unit == "output stage"]
    assert {o.op for o in staged} == {"threshold"}
    maps = {n.name for n in made.graph.nodes if n.op == "threshold" and "masked" in n.attrs}
    assert maps
    assert maps <= {o.node for o in staged}
    with pytest.raises(GraphError, match="vector operator softmax_binary"):
        api.verify(student("bert", "bit_w1a1").model, "cobra")


def test_a_patch_embedding_is_among_the_products_of_ita(student):
    made = student("vit", "w8a8")
    found = api.verify(made.model, "ita", host=True)
    assert found.ok
    ops = [n.op for n in made.graph.nodes if n.name not in found.host]
    assert ops.count("linear") + ops.count("matmul") == 9
    assert (
        ops.count("requant") >= 5
    )  # in the array's output stage; those behind softmax and sums are the host's


def test_the_host_works_on_what_the_machine_made(student):
    """A flipped bit passes through the host's operators to the end: they do not read the reference's tensors."""
    made = student("bert", "w8a8")
    first = next(n.name for n in made.graph.nodes if n.op == "linear")
    found = api.verify(made.model, "ita", host=True, inject=f"weight:{first}:0:6")
    assert not found.ok
    last = [n.name for n in made.graph.nodes if n.name not in found.host][-1]
    assert next(u.tensor for u in found.unequal) == first
    assert last in {u.tensor for u in found.unequal}
    assert not {u.tensor for u in found.unequal} & found.host.keys()
