"""The proof that verification can fail: one flipped bit in the machine's memory, one named tensor.

Flips are chosen by construction: plain Python arithmetic on the reference's own operands says here, before
the machine runs, that a code must change (or that none can).
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from lowbit_students import Student, first_node

from hwsim import api, reference
from hwsim.engine.inject import Injection, InjectionError, flip_bit
from hwsim.errors import CheckpointError
from hwsim.graph.serialize import load
from hwsim.verification import batches


def operand(made: Student, node: str, which: int = 0) -> np.ndarray:
    """The codes that a node reads on the stored samples, real and padded positions alike, [B, ..]."""
    graph = made.model.graph
    source = graph.by_name[node].inputs[which]
    (_, inputs, lengths), *rest = batches(graph, made.model.samples)
    assert rest == []
    if source in inputs:
        return inputs[source]
    return dict(reference.execute(graph, inputs, lengths))[source]


def stored(made: Student, node: str, role: str) -> tuple[np.ndarray, object]:
    graph = made.model.graph
    constant = graph.constants[graph.by_name[node].constants[role]]
    return constant.array, constant.dtype


def flips(made: Student, node: str, role: str) -> Iterator[tuple[int, int, int, int]]:
    """(index, bit, stored value, flipped value) of every bit, high bits of an element first."""
    array, dtype = stored(made, node, role)
    for index, value in enumerate(array.reshape(-1).tolist()):
        for bit in reversed(range(dtype.bits)):
            yield index, bit, value, flip_bit(value, bit, dtype)


def must_show(made: Student, injection: str, machine: str = "xnor_edge") -> None:
    found = api.verify(made.model, machine, inject=injection)
    assert not found.ok
    node = injection.split(":")[1]
    assert found.unequal[0].tensor == node
    assert found.unequal[0].op == made.model.graph.by_name[node].op
    assert found.unequal[0].expected != found.unequal[0].got
    assert found.inject == injection


def must_be_masked(made: Student, injection: str, machine: str = "int8_edge") -> None:
    found = api.verify(made.model, machine, inject=injection)
    assert found.ok
    assert found.to_json()["ok"] is True
    assert "masked" in rendered(found)
    assert "masked" not in rendered(api.verify(made.model, machine))


def rendered(found: object) -> str:
    from rich.console import Console

    text = io.StringIO()
    found.render(Console(file=text, soft_wrap=True))
    return text.getvalue()


@pytest.mark.parametrize("machine", ["xnor_edge", "ternary_edge", "bitserial_edge", "int8_edge"])
@pytest.mark.parametrize(
    ("family", "recipe", "part", "bit"),
    [
        ("vit", "w8a8", "attention", 7),
        ("vit", "w8a8", "classifier", 7),
        ("bert", "kd_w2a8", "output", 0),
        ("bert", "kd_w2a8", "output", 1),
        ("gpt2", "bit_w1a1", "mlp", 0),
    ],
)
def test_a_weight(student, family, recipe, part, bit, machine):
    """acc changes by (w' - w) * a: it shows in the accumulator wherever a is not 0."""
    made = student(family, recipe)
    node = first_node(made.model.graph, "linear", part)
    weight, dtype = stored(made, node, "weight")
    a = operand(made, node)
    used = int(np.abs(a.reshape(-1, a.shape[-1])).sum(0).argmax())
    index = 3 * weight.shape[1] + used
    assert flip_bit(int(weight[3, used]), bit, dtype) != weight[3, used]
    must_show(made, f"weight:{node}:{index}:{bit}", machine)


def test_the_model_itself_stays_untouched(student):
    made = student("vit", "w8a8")
    node = first_node(made.model.graph, "linear")
    assert not api.verify(made.model, "int8_edge", inject=f"weight:{node}:0:7").ok
    assert api.verify(made.model, "int8_edge").ok


def test_a_weight_names_output_channel_and_values(student):
    """The report's place and numbers are those of the flipped channel."""
    made = student("vit", "w8a8")
    node = first_node(made.model.graph, "linear", "classifier")
    weight, dtype = stored(made, node, "weight")
    a = operand(made, node)
    k = int(np.abs(a).sum(0).argmax())
    found = api.verify(made.model, "int8_edge", inject=f"weight:{node}:{2 * weight.shape[1] + k}:7")
    first = found.unequal[0]
    change = flip_bit(int(weight[2, k]), 7, dtype) - int(weight[2, k])
    sample = int(np.flatnonzero(a[:, k])[0])
    assert (first.first_sample, first.first_index) == (sample, [2])
    assert first.got - first.expected == change * int(a[sample, k])
    assert first.differing == np.count_nonzero(a[:, k])


def plain_requant(x: int, m: int, s: int, b: int, qmin: int, qmax: int) -> int:
    half = (1 << s) >> 1
    return min(max((x * m + b + half) >> s, qmin), qmax)


@pytest.mark.parametrize("role", ["M", "S", "B"])
@pytest.mark.parametrize(
    ("family", "recipe"), [("vit", "w8a8"), ("bert", "kd_w2a8"), ("gpt2", "w8a8")]
)
def test_a_requant_constant(student, family, recipe, role):
    made = student(family, recipe)
    graph = made.model.graph
    node = first_node(graph, "requant", "operands")
    x = operand(made, node).reshape(-1, made.graph.tensors[node].shape[-1])
    dtype = graph.tensors[node].dtype
    constants = {r: stored(made, node, r)[0].reshape(-1) for r in ("M", "S", "B")}

    def shows(index: int, flipped: int) -> bool:
        at = {r: int(c[index if c.size > 1 else 0]) for r, c in constants.items()}
        column = x[:, index] if constants[role].size > 1 else x.reshape(-1)
        damaged = {**at, role: flipped}
        return damaged["S"] <= 62 and any(
            plain_requant(v, at["M"], at["S"], at["B"], dtype.qmin, dtype.qmax)
            != plain_requant(v, damaged["M"], damaged["S"], damaged["B"], dtype.qmin, dtype.qmax)
            for v in column.tolist()
        )

    index, bit = next(
        (i, b) for i, b, _, new in flips(made, node, role) if abs(new) < 1 << 61 and shows(i, new)
    )
    must_show(made, f"{role}:{node}:{index}:{bit}")


def test_a_layer_norm_offset(student):
    made = student("vit", "kd_w2a8")
    node = first_node(made.model.graph, "layer_norm")
    bit = int(made.model.graph.by_name[node].attrs["Q"])  # one code up or down
    must_show(made, f"B:{node}:0:{bit}")


def threshold_flips(made: Student, node: str) -> Iterator[tuple[int, int, bool]]:
    """(index, bit, shows) of every bit: a code changes iff some accumulator lies between old and new."""
    levels, _ = stored(made, node, "threshold")
    x = operand(made, node).reshape(-1, made.graph.tensors[node].shape[-1])
    for index, bit, old, new in flips(made, node, "threshold"):
        column = x[:, index] if levels.shape[0] > 1 else x
        yield index, bit, bool(((column >= min(old, new)) & (column < max(old, new))).any())


@pytest.mark.parametrize("family", ["vit", "bert", "gpt2"])
def test_a_threshold(student, family):
    made = student(family, "bit_w1a1")
    node = first_node(made.model.graph, "threshold", "operands")
    index, bit = next((i, b) for i, b, shows in threshold_flips(made, node) if shows)
    must_show(made, f"threshold:{node}:{index}:{bit}")


@pytest.mark.parametrize("family", ["vit", "bert", "gpt2"])
def test_a_threshold_outside_of_what_occurs(student, family):
    made = student(family, "bit_w1a1")
    nodes = [n.name for n in made.graph.nodes if n.op == "threshold"]
    node, index, bit = next(
        (n, i, b) for n in nodes for i, b, shows in threshold_flips(made, n) if not shows
    )
    must_be_masked(made, f"threshold:{node}:{index}:{bit}")


def test_a_gelu_table(student):
    made = student("bert", "w8a8")
    node = first_node(made.model.graph, "table")
    source = made.graph.tensors[made.graph.by_name[node].inputs[0]].dtype
    table, dtype = stored(made, node, "table")
    read = set((operand(made, node) - source.qmin).reshape(-1).tolist())
    never = next(i for i in range(table.size) if i not in read)
    must_show(made, f"table:{node}:{min(read)}:{dtype.bits - 1}")
    must_be_masked(made, f"table:{node}:{never}:{dtype.bits - 1}")


@pytest.mark.parametrize(
    ("family", "recipe"), [("vit", "bit_w1a1"), ("bert", "bit_w1a1"), ("gpt2", "w8a8")]
)
def test_a_softmax_table(student, family, recipe):
    """Entry 0 is the largest score of every row: losing its top bit must show. 2^24 is one bit."""
    made = student(family, recipe)
    op = "softmax_binary" if recipe == "bit_w1a1" else "softmax"
    node = first_node(made.model.graph, op)
    table, _ = stored(made, node, "table")
    top = int(table.reshape(-1)[0]).bit_length() - 1
    must_show(made, f"table:{node}:0:{top}")


def test_an_exponent_that_no_score_reaches(student):
    made = student("vit", "bit_w1a1")
    node = first_node(made.model.graph, "softmax_binary")
    table, _ = stored(made, node, "table")
    scores = operand(made, node)
    largest = int((scores.max(-1, keepdims=True) - scores).max()) >> 1
    assert largest < table.size - 1
    must_be_masked(made, f"table:{node}:{table.size - 1}:20")


@pytest.mark.parametrize("recipe", ["w8a8", "kd_w2a8", "bit_w1a1"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_length_register(student, family, recipe):
    """A sentence that loses its last keys: the softmax is the first to differ, in that sample."""
    made = student(family, recipe)
    samples = made.model.samples
    node = next(n.name for n in made.graph.nodes if n.attrs.get("masked"))
    sample = int(samples.lengths.argmax())
    bit = int(samples.lengths[sample]).bit_length() - 1
    must_show(made, f"length:{node}:{sample}:{bit}")
    found = api.verify(made.model, "int8_edge", inject=f"length:{node}:{sample}:{bit}")
    assert {u.first_sample for u in found.unequal} == {sample}


def test_a_length_beyond_the_batch_is_masked_by_the_loop_over_keys(student):
    """The longest sentence of a batch has no keys behind it: a longer register reads nothing more."""
    made = student("bert", "w8a8")
    node = next(n.name for n in made.graph.nodes if n.attrs.get("masked"))
    sample = int(made.model.samples.lengths.argmax())
    must_be_masked(made, f"length:{node}:{sample}:20")


MALFORMED = {
    "weight": "FIELD:NODE:INDEX:BIT",
    "weight:{linear}:0": "FIELD:NODE:INDEX:BIT",
    "weight:{linear}:0:0:0": "FIELD:NODE:INDEX:BIT",
    "weight:{linear}:-1:0": "FIELD:NODE:INDEX:BIT",
    "weight:{linear}:x:0": "FIELD:NODE:INDEX:BIT",
    "weight:{linear}:²:0": "FIELD:NODE:INDEX:BIT",
    "weights:{linear}:0:0": "did you mean 'weight'",
    "E:{norm}:0:0": "FIELD must be one of",
    "weight::0:0": "has no node ''",
    "weight:{linear}x:0:0": "did you mean '{linear}'",
    "M:{linear}:0:0": "has no M; it has weight",
    "table:{reshape}:0:0": "it has no constants",
    "weight:{linear}:400:0": "has elements 0 to 399, not 400",
    "weight:{linear}:0:8": "its bits are 0 to 7, not 8",
    "length:{linear}:0:0": "does not mask by length; nodes that do: {softmax}",
    "length:{softmax}:12:0": "samples 0 to 11, not 12",
    "length:{softmax}:0:31": "bits 0 to 30, not 31",
}


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_injection_is_one_clear_message(student, text):
    made = student("bert", "w8a8")
    graph = made.model.graph
    names = {
        "linear": first_node(graph, "linear", "query"),
        "norm": first_node(graph, "layer_norm"),
        "reshape": first_node(graph, "reshape"),
        "softmax": first_node(graph, "softmax"),
    }
    with pytest.raises(InjectionError) as fault:
        api.verify(made.model, "int8_edge", inject=text.format(**names))
    assert MALFORMED[text].format(**names) in str(fault.value)
    assert str(fault.value).startswith("--inject")
    assert "\n" not in str(fault.value)


def test_a_model_without_lengths_has_no_length_register(student):
    made = student("vit", "w8a8")
    node = first_node(made.model.graph, "softmax")
    with pytest.raises(InjectionError, match="does not mask by length"):
        api.verify(made.model, "int8_edge", inject=f"length:{node}:0:0")


def test_fewer_samples_have_fewer_registers(student):
    made = student("bert", "w8a8")
    node = first_node(made.model.graph, "softmax")
    with pytest.raises(InjectionError, match="samples 0 to 2, not 5"):
        api.verify(made.model, "int8_edge", samples=3, inject=f"length:{node}:5:0")


def test_an_injection_reads_back_as_it_was_written():
    assert str(Injection.parse("weight:a.b:17:3")) == "weight:a.b:17:3"


def test_the_same_flip_on_disk_is_refused_by_its_hash(student, tmp_path):
    made = student("bert", "bit_w1a1")
    for name in ("weights.safetensors", "graph.json", "samples.safetensors"):
        folder = tmp_path / name
        shutil.copytree(made.folder, folder)
        data = bytearray((folder / name).read_bytes())
        data[-9] ^= 1
        (folder / name).write_bytes(bytes(data))
        with pytest.raises(CheckpointError) as fault:
            load(folder)
        assert f"{folder / name}: altered or truncated" in str(fault.value)
        assert hashlib.sha256(bytes(data)).hexdigest()[:12] in str(fault.value)
