"""Random bit errors: the flips are those that were drawn, in the format of the memory, and nothing else is damaged."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from lowbit_students import MACHINES, Student, first_node
from scipy.stats import binomtest, chisquare

from hwsim import api, reference
from hwsim.config.load import load_machine
from hwsim.engine.execute import execute
from hwsim.engine.faults import BitErrors, Damage, Place, draw_masks, exposed_tensors
from hwsim.engine.inject import CONSTANTS, Injection, InjectionError, flip_bit, flip_bits
from hwsim.graph.decode_view import caches
from hwsim.graph.dtype import BIPOLAR, TERNARY, UNIPOLAR, DataType, int_, uint
from hwsim.graph.ops import OPERATORS
from hwsim.verification import batches

INT8_EDGE = load_machine("int8_edge")


def damage(made: Student, rate: float, *where: str, seed: int = 0) -> Damage:
    return Damage(made.model.graph, INT8_EDGE, BitErrors(rate, where, seed))


def stream(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- which bits


def by_hand(code: int, mask: int, dtype: DataType) -> int:
    """Flip the letters of the stored number, lowest bit last."""
    if dtype.kind == "bipolar":
        return -code if mask else code
    if dtype.kind == "ternary":
        minus, plus = (
            a != b for a, b in zip((code < 0, code > 0), (mask >> 1, mask & 1), strict=True)
        )
        return plus - minus
    letters = format(code % (1 << dtype.bits), f"0{dtype.bits}b")
    flips = format(mask, f"0{dtype.bits}b")
    value = int(
        "".join("10"[int(a)] if b == "1" else a for a, b in zip(letters, flips, strict=True)), 2
    )
    return value - (1 << dtype.bits) if dtype.is_signed and value >> (dtype.bits - 1) else value


@pytest.mark.parametrize(
    "dtype", [BIPOLAR, UNIPOLAR, TERNARY, int_(3), int_(5, narrow=True), uint(4)], ids=str
)
def test_every_flip_of_every_code(dtype):
    pairs = list(product(dtype.levels, range(1 << dtype.bits)))
    codes = np.array([code for code, _ in pairs])
    masks = np.array([mask for _, mask in pairs], np.uint64)
    got = flip_bits(codes, masks, dtype)
    assert got.tolist() == [by_hand(code, mask, dtype) for code, mask in pairs]


@pytest.mark.parametrize("dtype", [int_(64), int_(30), uint(31), uint(6)], ids=str)
def test_wide_codes_at_their_ends(dtype):
    for code in (dtype.qmin, dtype.qmax, 0):
        for bit in (0, dtype.bits // 2, dtype.bits - 1):
            assert flip_bit(code, bit, dtype) == by_hand(code, 1 << bit, dtype)


def test_the_number_of_flips_is_binomial_and_no_bit_is_special():
    elements, bits, rate = 5000, 8, 0.02
    masks = draw_masks(elements, bits, rate, stream(1))
    planes = [int(np.count_nonzero(masks >> np.uint64(b) & np.uint64(1))) for b in range(bits)]
    assert masks.max() < 1 << bits
    assert sum(planes) == np.bitwise_count(masks).sum()
    assert binomtest(sum(planes), elements * bits, rate).pvalue > 1e-3
    assert chisquare(planes).pvalue > 1e-3


def test_bits_are_independent():
    """Every pattern of three elements of one bit is as frequent as the product of its bits says."""
    rate, draws = 0.3, 4000
    source = stream(2)
    found = np.zeros(8)
    for _ in range(draws):
        found[int(draw_masks(3, 1, rate, source) @ np.array([1, 2, 4], np.uint64))] += 1
    ones = np.array([i.bit_count() for i in range(8)])
    assert chisquare(found, draws * rate**ones * (1 - rate) ** (3 - ones)).pvalue > 1e-3


@pytest.mark.parametrize(("rate", "mask"), [(0.0, 0), (1.0, 31)])
def test_rates_that_leave_nothing_to_chance(rate, mask):
    assert (draw_masks(50, 5, rate, stream(3)) == mask).all()


def test_a_draw_repeats_and_another_seed_is_another_draw(student):
    made = student("bert", "kd_w2a8")

    def weights(seed: int, *where: str) -> dict[str, bytes]:
        graph = damage(made, 0.05, *where, seed=seed).graph
        return {
            n.name: graph.constant(n, "weight").tobytes() for n in graph.nodes if n.op == "linear"
        }

    first = weights(4, "weight")
    assert weights(4, "weight") == first
    assert weights(4, "S", "weight", "activation") == first  # whatever else is exposed
    other = weights(5, "weight")
    assert all(other[name] != codes for name, codes in first.items())


# -- where


@pytest.mark.parametrize("recipe", ["w8a8", "kd_w2a8", "bit_w1a1"])
def test_a_field_and_nothing_but_the_field(student, recipe):
    """At rate 1 every element of every constant of the role is the complement of its stored number."""
    made = student("vit", recipe)
    graph = made.model.graph
    roles = {role for node in graph.nodes for role in node.constants}
    assert roles <= set(CONSTANTS)
    for field in roles:
        damaged = damage(made, 1.0, field)
        named = {n.constants[field] for n in graph.nodes if field in n.constants}
        for name, constant in graph.constants.items():
            got = damaged.graph.constants[name].array
            assert got.dtype == constant.array.dtype
            want = constant.array
            if name in named:
                every = (1 << constant.dtype.bits) - 1
                codes = [
                    by_hand(c, every, constant.dtype) for c in constant.array.reshape(-1).tolist()
                ]
                want = np.array(codes).reshape(want.shape)
            assert np.array_equal(got, want)
        bits = sum(graph.constants[n].array.size * graph.constants[n].dtype.bits for n in named)
        assert damaged.flipped == damaged.bits.total() == bits


def test_patterns_of_nodes_and_formats(student):
    made = student("gpt2", "bit_w1a1")
    graph = made.model.graph

    def hit(place: str) -> set[str]:
        found = damage(made, 1.0, place).graph.constants
        return {name for name, c in graph.constants.items() if found[name].array is not c.array}

    layer = first_node(graph, "linear").split(".attn")[0]
    assert hit(f"weight:{layer}.*") == {
        n.constants["weight"] for n in graph.nodes if n.op == "linear" and n.name.startswith(layer)
    }
    by_format = {f: hit(f"weight:*:{f}") for f in ("BIPOLAR", "INT*")}
    assert all(by_format.values())
    assert hit("weight") == set.union(*by_format.values())
    for name in by_format["BIPOLAR"]:
        assert graph.constants[name].dtype is BIPOLAR


def test_no_error_is_the_model_itself(student):
    made = student("vit", "w8a8")
    none = damage(made, 0.0, "weight", "activation")
    assert none.graph is made.model.graph
    run = api.run(made.model, "int8_edge")
    damaged = api.run(made.model, "int8_edge", faults=BitErrors(0.0, ("weight", "activation")))
    assert damaged.result.accuracy == run.result.accuracy
    assert damaged.to_json()["bit_errors"]["flipped"] == 0
    assert run.to_json()["bit_errors"] is None


@pytest.mark.parametrize(
    ("family", "recipe", "op", "field"),
    [
        ("bert", "kd_w2a8", "linear", "weight"),
        ("vit", "bit_w1a1", "linear", "weight"),
        ("vit", "bit_w1a1", "threshold", "threshold"),
        ("vit", "w8a8", "requant", "S"),
        ("vit", "w8a8", "layer_norm", "G"),
    ],
)
def test_one_flip_is_an_injection_of_the_same_bit(student, family, recipe, op, field):
    made = student(family, recipe)
    node = first_node(made.model.graph, op)
    for seed in range(400):
        found = damage(made, 0.002, f"{field}:{node}", seed=seed)
        if found.flipped == 1:
            break
    assert found.flipped == 1
    name = made.model.graph.by_name[node].constants[field]
    before, after = made.model.graph.constants[name], found.graph.constants[name]
    (index,) = np.flatnonzero(before.array.reshape(-1) != after.array.reshape(-1))
    injected = [
        Injection(field, node, int(index), bit).into_graph(made.model.graph)
        for bit in range(before.dtype.bits)
    ]
    same = [g for g in injected if np.array_equal(g.constants[name].array, after.array)]
    assert same  # a ternary 1 becomes 0 by either plane
    for _, inputs, lengths in batches(made.model.graph, made.model.samples):
        ours, theirs = (execute(g, INT8_EDGE, inputs, lengths) for g in (found.graph, same[0]))
        for (_, a), (_, b) in zip(ours, theirs, strict=True):
            assert np.array_equal(a, b)


# -- while it runs


def run_with(made: Student, errors: BitErrors | None) -> dict[str, np.ndarray]:
    graph, memory = made.model.graph, None
    if errors is not None:
        hurt = Damage(graph, INT8_EDGE, errors)
        graph, memory = hurt.graph, hurt.memory
    (_, inputs, lengths), *_ = batches(graph, made.model.samples)
    return dict(execute(graph, INT8_EDGE, inputs, lengths, memory=memory))


def test_a_tensor_is_read_as_it_was_damaged(student):
    made = student("vit", "w8a8")
    graph = made.model.graph
    name = first_node(graph, "layer_norm")
    clean = run_with(made, None)
    found = run_with(made, BitErrors(1.0, (f"activation:{name}",)))
    bits = graph.tensors[name].dtype.bits
    assert np.array_equal(found[name], -1 - clean[name].astype(np.int64))  # all of two's complement
    assert bits > 1
    order = [n.name for n in graph.nodes]
    for before in order[: order.index(name)]:
        assert np.array_equal(found[before], clean[before])
    reader = graph.consumers(name)[0].name
    assert not np.array_equal(found[reader], clean[reader])


def test_accumulators_and_views_are_no_memory(student):
    graph = student("gpt2", "w8a8").model.graph
    exposed = exposed_tensors(graph, INT8_EDGE, [Place("activation")])
    assert exposed == {n.name for n in graph.nodes if OPERATORS[n.op].unit == "vector"}
    assert exposed_tensors(graph, INT8_EDGE, [Place("cache")]) == {c.tensor for c in caches(graph)}


def test_what_an_output_stage_hands_on_lies_in_no_memory(student):
    graph = student("vit", "w8a8").model.graph
    staged = load_machine("int8_edge", ["output_stage=[requant, table]"])
    inside = exposed_tensors(graph, INT8_EDGE, [Place("activation")])
    inside -= exposed_tensors(graph, staged, [Place("activation")])
    assert inside
    for name in inside:
        (reader,) = graph.consumers(name)
        assert reader.op == "table"


@pytest.mark.parametrize("machine", ["int8_edge", "xnor_edge"])
def test_the_damaged_model_is_computed_exactly(student, machine):
    """Codes that stay within their types: the reference of the damaged graph is what the machine must compute."""
    made = student("vit", "bit_w1a1")
    on = load_machine(machine)
    hurt = Damage(made.model.graph, on, BitErrors(0.05, ("weight", "threshold", "table"), 3)).graph
    for _, inputs, lengths in batches(hurt, made.model.samples):
        pairs = zip(
            execute(hurt, on, inputs, lengths),
            reference.execute(hurt, inputs, lengths),
            strict=True,
        )
        for (name, got), (_, want) in pairs:
            assert np.array_equal(got, want), name


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("family", "recipe"), [("vit", "w8a8"), ("bert", "kd_w2a8"), ("gpt2", "bit_w1a1")]
)
def test_everything_may_be_damaged(student, family, recipe, machine):
    """Half of all bits: shifts up to 63, thresholds in any order, the codes that narrow types lack."""
    made = student(family, recipe)
    roles = {role for node in made.model.graph.nodes for role in node.constants}
    found = api.run(
        made.model,
        machine,
        samples=3,
        faults=BitErrors(0.5, (*sorted(roles), "activation"), seed=9),
    )
    flips = found.bit_errors
    assert flips is not None
    share = flips["flipped"] / sum(flips["bits"].values())
    assert 0.48 < share < 0.52
    assert found.result.accuracy is not None


# -- refusals


@pytest.mark.parametrize(
    ("rate", "where", "text"),
    [
        (1.5, ("weight",), "rate must be 0 to 1, not 1.5"),
        (0.1, (), "at least one place"),
        (0.1, ("weight:a:b:c",), r"FIELD\[:NODES\[:FORMAT\]\]"),
        (0.1, ("weight:",), r"FIELD\[:NODES\[:FORMAT\]\]"),
        (0.1, ("weights",), "did you mean 'weight'"),
        (0.1, ("threshold",), "the model has no threshold; it has weight, M, S, B"),
        (0.1, ("weight:nowhere",), "no weight matches 'weight:nowhere': .* nodes are, for example"),
        (0.1, ("weight:*:TERNARY",), "no weight matches .*: its formats are INT8"),
        (0.1, ("cache",), "the model has no cache: decoding needs a causal model"),
    ],
)
def test_a_place_that_is_none(student, rate, where, text):
    with pytest.raises(InjectionError, match=text):
        Damage(student("vit", "w8a8").model.graph, INT8_EDGE, BitErrors(rate, where))


def test_errors_need_data_to_show(student):
    with pytest.raises(InjectionError, match="bit errors change no cost"):
        api.run(student("vit", "w8a8").model, "int8_edge", cost_only=True, faults=BitErrors(0.1))


def test_a_place_reads_back():
    for text in ("weight", "weight:a.*", "weight:*:INT8", "S:a:UINT6"):
        assert str(Place.parse(text)) == text
