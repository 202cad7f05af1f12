"""Decoding token by token equals one pass over the whole sequence, on the reference and on every machine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from lowbit_students import HEADS, MACHINES, VOCABULARY, WIDTH, Student, build, with_attrs

import hwsim
from hwsim import api, reference
from hwsim.config.load import load_machine
from hwsim.decoding import Decoder, Executor, generate, on_machine, on_reference
from hwsim.engine.cost import cost
from hwsim.engine.decode_cost import cache_bytes, cache_sizes, prefill_cost, step_costs
from hwsim.engine.inject import InjectionError
from hwsim.errors import DataError, GraphError
from hwsim.graph.decode_view import caches, decode_view, row_at
from hwsim.graph.ir import QuantGraph

TOKENS, POSITIONS, BATCH = 32, 34, 2
STEPS = 18  # INT8 codes of a channel's values fill two words of 8 and begin a third, as they do a chunk of 16 lanes
RECIPES = ("w8a8", "kd_w2a8", "bit_w1a1")
GetStudent = Callable[[str], Student]


@pytest.fixture(scope="module")
def decoder_of(tmp_path_factory: pytest.TempPathFactory) -> GetStudent:
    """`decoder_of(recipe)`: a GPT-2 of two layers, built for 34 positions, with samples of up to 32 tokens."""
    made: dict[str, Student] = {}

    def get(recipe: str) -> Student:
        if recipe not in made:
            folder = tmp_path_factory.mktemp("decode") / recipe
            made[recipe] = build("gpt2", recipe, folder, longest=TOKENS)
        return made[recipe]

    return get


def some_ids(batch: int = BATCH, tokens: int = TOKENS) -> np.ndarray:
    return np.random.default_rng(5).integers(0, VOCABULARY, (batch, tokens))


def one_pass(graph: QuantGraph, ids: np.ndarray) -> dict[str, np.ndarray]:
    lengths = np.full(len(ids), ids.shape[1], np.int64)
    return dict(reference.execute(graph, {"input_ids": ids}, lengths))


def executor(name: str) -> Executor:
    if name == "reference":
        return on_reference(load_machine("int8_edge"))
    return on_machine(load_machine(name))


@pytest.mark.parametrize("where", ["reference", *MACHINES])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_tensor_of_18_steps_is_its_row_of_one_pass(decoder_of, recipe, where):
    graph = decoder_of(recipe).model.graph
    ids = some_ids(tokens=STEPS)
    want = one_pass(graph, ids)
    decoder = Decoder(graph, executor(where), BATCH)
    for position in range(STEPS):
        made = decoder.step(ids[:, position])
        assert set(want) < set(made)
        for name, codes in want.items():
            expected = row_at(graph.tensors[name], codes, position)
            assert np.array_equal(made[name], expected), (name, position)
    assert decoder.position == STEPS
    for name, held in decoder.caches.items():
        assert np.array_equal(held, want[name])


@pytest.mark.parametrize("where", ["reference", "xnor_edge"])
def test_a_prefill_leaves_what_steps_leave(decoder_of, where):
    graph = decoder_of("bit_w1a1").model.graph
    ids = some_ids()
    stepped, filled = (Decoder(graph, executor(where), BATCH) for _ in range(2))
    for position in range(7):
        stepped.step(ids[:, position])
    logits = filled.prefill(ids[:, :7])
    assert np.array_equal(logits, one_pass(graph, ids)[graph.outputs[0]][:, :7])
    assert filled.position == stepped.position
    for name in stepped.caches:
        assert np.array_equal(filled.caches[name], stepped.caches[name])
    a, b = stepped.step(ids[:, 7]), filled.step(ids[:, 7])
    assert np.array_equal(a[graph.outputs[0]], b[graph.outputs[0]])
    with pytest.raises(GraphError, match="a prefill needs empty caches; these hold 8 tokens"):
        filled.prefill(ids)


@pytest.mark.parametrize("recipe", RECIPES)
def test_greedy_tokens_are_those_of_whole_passes(decoder_of, recipe):
    """Recomputing everything for each token, without a cache, is the definition."""
    graph = decoder_of(recipe).model.graph
    prompt = some_ids()[0, :3]
    ids, logits = generate(Decoder(graph, executor("int8_edge")), prompt, 12)
    text = prompt.tolist()
    for token, codes in zip(ids, logits, strict=True):
        row = one_pass(graph, np.array([text]))[graph.outputs[0]][0, -1]
        assert np.array_equal(codes, row)
        assert token == int(row.argmax())
        text.append(token)
    assert len(ids) == 12


@pytest.mark.parametrize("operand", [0, 1], ids=["key", "value"])
def test_one_wrong_code_in_a_cache_shows(decoder_of, operand):
    """The control: without it, a step that never read its cache would pass."""
    graph = decoder_of("w8a8").model.graph
    ids = some_ids()
    want = one_pass(graph, ids)[graph.outputs[0]]
    decoder = Decoder(graph, executor("int8_edge"), BATCH)
    decoder.prefill(ids[:, :9])
    held = decoder.caches[caches(graph)[operand].tensor]
    spoilt = held.copy()
    spoilt[1, 0, 0, 0] ^= 64  # of the second sequence
    decoder.caches[caches(graph)[operand].tensor] = spoilt
    logits = decoder.step(ids[:, 9])[graph.outputs[0]]
    assert np.array_equal(logits[0], want[0, 9:10])
    assert not np.array_equal(logits[1], want[1, 9:10])


def test_a_step_at_the_wrong_position_shows(decoder_of):
    """The position embedding is that of the step, not of the first row."""
    graph = decoder_of("w8a8").model.graph
    (add,) = (n.name for n in graph.nodes if "addend" in n.constants)
    views = [decode_view(graph, p) for p in (0, 5)]
    rows = [dict(reference.execute(v, step_inputs(v)))[add] for v in views]
    assert not np.array_equal(*rows)


def step_inputs(view: QuantGraph) -> dict[str, np.ndarray]:
    return {name: np.ones((1, *view.tensors[name].bind(0)), np.int64) for name in view.inputs}


def test_the_view_is_a_graph_of_one_query_and_all_keys(decoder_of):
    graph = decoder_of("w8a8").model.graph
    view = decode_view(graph, 6)
    assert [c.shape for c in caches(graph)] == [(HEADS, "T", 10), (HEADS, 10, "T")] * 2
    assert all(isinstance(d, int) for t in view.tensors.values() for d in t.shape)
    assert view.constants is graph.constants
    added = [n for n in view.nodes if n.op == "append"]
    assert [n.name for n in added] == [c.extended for c in caches(graph)]
    assert len(view.nodes) == len(graph.nodes) + len(added)
    assert view.inputs == ("input_ids", *(c.past for c in caches(graph)))
    assert view.outputs == (*graph.outputs, *(c.tensor for c in caches(graph)))
    masks = [n for n in view.nodes if "causal" in n.attrs]
    assert len(masks) == 2
    assert not any(n.attrs["causal"] or n.attrs["masked"] for n in masks)
    products = [view.tensors[n.name].shape for n in view.nodes if n.op == "matmul"]
    assert products == [(HEADS, 1, 7), (HEADS, 1, 10)] * 2


def test_bytes_of_a_cache_by_hand(decoder_of):
    """Two layers, two heads of 10 channels; rows of whole 64-bit words: keys a token, values a channel."""
    assert WIDTH == HEADS * 10
    wide, binary = (decoder_of(r).model.graph for r in ("w8a8", "bit_w1a1"))
    # 8 bits: a key row is 80 bits = 2 words; a value row of 5 tokens is 40 bits = 1 word, of 9 tokens 2
    assert cache_bytes(wide, 5) == 2 * (2 * 5 * 16 + 2 * 10 * 8)
    assert cache_bytes(wide, 9) == 2 * (2 * 9 * 16 + 2 * 10 * 16)
    assert cache_sizes(wide, 5)["bytes_per_token"] == 2 * (2 * 16 + 2 * 10 * 1)
    # 1 bit: a key row is one word, a value row holds 64 tokens a word
    assert cache_bytes(binary, 5) == 2 * (2 * 5 * 8 + 2 * 10 * 8)
    assert cache_sizes(binary, 5)["bytes_per_token"] == 2 * (2 * 8 + 2 * 10 / 8)
    assert cache_bytes(wide, 0) == 0
    assert cache_sizes(wide, 5)["bytes_longest"] == cache_bytes(wide, POSITIONS)
    run = api.run(decoder_of("w8a8").model, "int8_edge", samples=1).to_json()
    assert run["cache"] == cache_sizes(wide, TOKENS)


def test_steps_cost_more_as_the_cache_grows(decoder_of):
    graph = decoder_of("w8a8").model.graph
    machine = load_machine("int8_edge")
    steps = step_costs(graph, machine, (1, 15, 33))
    assert [s.position for s in steps] == [1, 15, 33]
    assert [s.cache_bytes for s in steps] == [cache_bytes(graph, p) for p in (1, 15, 33)]
    assert steps[0].cycles < steps[1].cycles < steps[2].cycles
    assert steps[0].energy_pj.nominal < steps[1].energy_pj.nominal < steps[2].energy_pj.nominal
    # All codes are read, this token's included, each of 2 x 2 heads in bursts of 32 bytes. 16 tokens: 16 keys of 2 words,
    # 10 channels of 2 words; 2 tokens: 2 keys of 2 words, 10 channels of 1 word, which are 2.5 bursts.
    more = steps[1].traffic_bytes["dram_load"] - steps[0].traffic_bytes["dram_load"]
    assert more == 4 * (256 + 160) - 4 * (32 + 96)
    # Two layers: a projected row of 20 keys is 3 words, 1 burst; a word for each of 20 channels; then 30 logits.
    assert {s.traffic_bytes["dram_store"] for s in steps} == {2 * (32 + 20 * 8) + 128}


def test_a_prefill_writes_the_cache_to_dram(decoder_of):
    graph = decoder_of("w8a8").model.graph
    machine = load_machine("int8_edge")
    filled = prefill_cost(graph, machine, 16).steady.traffic_bytes()["dram_store"]
    alone = cost(graph, machine, 16).steady.traffic_bytes()["dram_store"]
    # two layers: 16 rows of two heads of 2 words of keys, repacked, and 20 channels of 2 words of values
    assert filled - alone == cache_bytes(graph, 16) == 2 * (16 * 2 * 16 + 20 * 16)


def test_verify_decodes_and_reports(decoder_of):
    made = decoder_of("w8a8")
    found = api.verify(made.model, "int8_edge")
    assert found.ok
    assert found.decode is not None
    assert found.decode.tokens == TOKENS
    assert found.decode.tensors == len(made.graph.nodes) + 4
    assert found.to_json()["decode"]["unequal"] == []


def test_verify_finds_a_flip_in_the_cache(decoder_of):
    made = decoder_of("w8a8")
    key, value = (c.tensor for c in caches(made.graph)[:2])
    for tensor in (key, value):
        found = api.verify(made.model, "int8_edge", samples=2, inject=f"cache:{tensor}:3:6")
        assert found.unequal == []
        assert not found.ok
        assert found.decode is not None
        first = found.decode.unequal[0]
        assert (first.tensor, first.op, first.token) == (f"{tensor}.extended", "append", 1)
        assert abs(first.got - first.expected) == 64


@pytest.mark.parametrize(
    ("inject", "text"),
    [
        ("cache:logits.codes:0:0", "node logits.codes is not cached"),
        ("cache:{key}:20:0", "has elements 0 to 19, not 20"),
        ("cache:{key}:0:8", "is INT8, its bits are 0 to 7, not 8"),
    ],
)
def test_flips_outside_a_cache_are_refused(decoder_of, inject, text):
    made = decoder_of("w8a8")
    inject = inject.format(key=caches(made.graph)[0].tensor)
    with pytest.raises(InjectionError, match=text):
        api.verify(made.model, "int8_edge", samples=1, inject=inject)


def test_a_model_that_is_not_causal_is_refused(decoder_of, student):
    made = student("bert", "w8a8")
    assert api.verify(made.model, "int8_edge", samples=1).decode is None
    with pytest.raises(GraphError, match="needs a causal model; in 1 places of this one") as e:
        hwsim.decode(made.model, "int8_edge", [1, 2], 2)
    assert "an output with a row of logits a token" in str(e.value)
    with pytest.raises(GraphError, match="token ids as the only input, not pixel_values"):
        caches(student("vit", "w8a8").model.graph)
    graph = decoder_of("w8a8").model.graph
    (_, second) = (n.name for n in graph.nodes if n.op == "softmax")
    with pytest.raises(GraphError, match=f"attends to later ones, first in {second}"):
        caches(with_attrs(graph, second, causal=False))


@pytest.mark.parametrize(
    ("prompt", "tokens", "text"),
    [
        ([], 3, "the prompt must have at least one token id"),
        ([1, -1], 3, "token ids must be 0 to 29, not -1"),
        ([1, 30], 3, "token ids must be 0 to 29, not 30"),
        ([1, 2], 0, "tokens must be at least 1, is 0"),
        ([1, 2, 3], 33, "a prompt of 3 tokens leaves room for 32 new ones, not 33"),
        ([1] * 35, 1, "a prompt of 35 tokens leaves room for 0 new ones, not 1"),
    ],
)
def test_prompts_that_cannot_be_continued(decoder_of, prompt, tokens, text):
    with pytest.raises(DataError, match=text) as error:
        hwsim.decode(decoder_of("w8a8").model, "int8_edge", prompt, tokens)
    assert len(str(error.value).splitlines()) == 1


def test_the_last_position_can_be_decoded_and_no_later_one(decoder_of):
    graph = decoder_of("w8a8").model.graph
    decoder = Decoder(graph, executor("int8_edge"))
    ids, _ = generate(decoder, np.array([1, 2, 3]), 32)
    assert len(ids) == 32
    assert decoder.position == POSITIONS
    with pytest.raises(GraphError, match="position 34: the model was built for 34 tokens"):
        decoder.step(np.array([1]))


def test_decode_reports_tokens_costs_and_cache(decoder_of):
    made = decoder_of("bit_w1a1")
    prompt = api.sample_prompt(made.model, 0, 4)
    result = hwsim.decode(made.model, machine="xnor_edge", tokens=prompt, steps=3)
    assert result.prompt == tuple(prompt)
    assert len(result.tokens) == len(result.logits) == 3
    assert [s.position for s in result.steps] == [4, 5]
    seconds = sum(s.latency_s for s in result.steps)
    assert result.tokens_per_s == 2 / seconds
    assert result.cache["bytes"] == cache_bytes(made.graph, 6)
    assert result.time_to_first_token_s["cold"] >= result.time_to_first_token_s["steady"] > 0
    plain = result.to_json()
    assert plain["logit_codes"] == [int(row[t]) for row, t in zip(result.logits, result.tokens, strict=True)]  # fmt: skip
    with pytest.raises(DataError, match="has samples 0 to 11, not 12"):
        api.sample_prompt(made.model, 12)
    with pytest.raises(DataError, match="a prompt of 1 to 32 can be cut from it, not of 33"):
        api.sample_prompt(made.model, 0, 33)
