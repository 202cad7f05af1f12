"""What a machine cannot do: narrow accumulators and missing units, refused or modelled, never ignored."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from lowbit_students import FAMILIES, Student

from hwsim import api, reference
from hwsim.config.load import load_machine
from hwsim.engine.execute import contraction_bound, execute, numeric_profiles
from hwsim.errors import GraphError, OverflowRefused
from hwsim.verification import batches

NARROW = "arrays.main.accumulator_bits=8"


def bits(value: int) -> int:
    return (value if value >= 0 else ~value).bit_length() + 1


def first_overflow(made: Student, limit: int) -> str:
    """Name of the first contraction whose true result leaves the accumulator; partial sums may earlier."""
    graph = made.model.graph
    _, inputs, lengths = next(iter(batches(graph, made.model.samples)))
    return next(
        name
        for name, x in reference.execute(graph, inputs, lengths)
        if graph.by_name[name].op in ("linear", "matmul")
        and (x.max() > limit or x.min() < -limit - 1)
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("machine", "lanes"), [("int8_edge", 64), ("bitserial_edge", 64)])
def test_a_narrow_accumulator_names_the_operator_and_by_how_much(student, family, machine, lanes):
    made = student(family, "w8a8")
    on = load_machine(machine, [NARROW, f"arrays.main.lanes={lanes}", "arrays.main.fixed=true"])
    with pytest.raises(OverflowRefused) as fault:
        api.run(made.model, on)
    found = re.match(
        r"operator (\S+): accumulator \[\d+, \d+\] of array main must hold (-?\d+), which needs (\d+) bits,"
        r" (\d+) more than its accumulator_bits 8; the operator's static bound is (\d+) \((\d+) bits\)",
        str(fault.value),
    )
    assert found, str(fault.value)
    node, value, needed, more, bound = found[1], *(int(found[i]) for i in (2, 3, 4, 5))
    graph = made.model.graph
    length = 0 if made.model.samples.lengths is None else int(made.model.samples.lengths.max())
    assert node in numeric_profiles(graph, on, graph.max_length)
    assert bound == contraction_bound(graph, graph.by_name[node], on, length)
    assert abs(value) <= bound
    assert (needed, more) == (bits(value), bits(value) - 8)
    assert more > 0
    if machine == "int8_edge":  # one chunk holds all of K: the accumulator is the result itself
        assert node == first_overflow(made, 127)


def test_the_binary_array_overflows_where_a_row_is_long(student):
    """BIPOLAR products of 28 terms fit 8 bits but not 5: the static bound says so before any data runs."""
    made = student("bert", "bit_w1a1")
    graph = made.model.graph
    assert numeric_profiles(graph, load_machine("xnor_edge", [NARROW]), graph.max_length) == {}
    on = load_machine("xnor_edge", ["arrays.main.accumulator_bits=4"])
    profiles = numeric_profiles(graph, on, graph.max_length)
    bounds = {
        n.name: contraction_bound(graph, n, on, graph.max_length)
        for n in graph.nodes
        if n.op in ("linear", "matmul")
    }
    on_main = {n for n, bound in bounds.items() if bound > 7 and n in profiles}
    assert set(profiles) == on_main
    with pytest.raises(
        OverflowRefused, match=r"operator (\S+): .* 1 more than its accumulator_bits 4"
    ) as fault:
        api.run(made.model, on)
    assert str(fault.value).split()[1].rstrip(":") in profiles


@pytest.mark.parametrize("machine", ["xnor_edge", "ternary_edge", "bitserial_edge", "int8_edge"])
@pytest.mark.parametrize("rule", ["wrap", "clamp"])
@pytest.mark.parametrize(
    ("family", "recipe"), [("bert", "kd_w2a8"), ("gpt2", "bit_w1a1"), ("vit", "w8a8")]
)
def test_machine_and_reference_overflow_alike(student, family, recipe, rule, machine):
    made = student(family, recipe)
    narrow = 4 if recipe == "bit_w1a1" else 8
    on = load_machine(
        machine, [f"arrays.main.accumulator_bits={narrow}", f"arrays.main.overflow={rule}"]
    )
    found = api.verify(made.model, on)
    assert found.ok
    graph = made.model.graph
    profiles = numeric_profiles(graph, on, graph.max_length)
    assert set(found.profiles) == set(profiles)
    for text in found.profiles.values():
        assert text.startswith(f"{narrow} bits, {rule}, chunks of")
    if not profiles:  # the shared unit runs everything, with its own 32 bits
        assert machine == "xnor_edge" or (machine == "ternary_edge" and recipe == "w8a8")
        assert recipe != "bit_w1a1"
        return
    _, inputs, lengths = next(iter(batches(graph, made.model.samples)))
    exact = dict(reference.execute(graph, inputs, lengths))
    modelled = dict(execute(graph, on, inputs, lengths))
    assert any(not np.array_equal(exact[n], modelled[n]) for n in profiles), "nothing overflowed"
    if rule == "wrap":
        return
    # A note quotes a profile, which was looked at above for either rule; one rule is enough for the cost around it.
    notes = api.run(made.model, on).to_json()["notes"]
    assert all(any(n in note for note in notes) for n in profiles)


def machine_file(folder: Path, spec: dict[str, object]) -> str:
    path = folder / "machine.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return str(path)


def test_a_machine_without_softmax_is_refused_with_all_that_it_lacks(student, tmp_path):
    whole = load_machine("int8_edge")
    operators = whole.spec.model_dump(mode="json", by_alias=True)
    for name in ("softmax", "relayout", "table"):
        del operators["vector_unit"]["operators"][name]
    path = machine_file(tmp_path, {**operators, "name": "poor"})
    made = student("bert", "w8a8")
    for call in (api.run, api.verify):
        with pytest.raises(GraphError) as fault:
            call(made.model, path)
        lines = str(fault.value).splitlines()
        assert lines[0] == "machine poor cannot run this graph, it lacks:"
        assert sorted(line.split(":")[0].strip() for line in lines[1:]) == [
            "vector operator relayout",
            "vector operator softmax",
            "vector operator table",
        ]
        first = next(n.name for n in made.graph.nodes if n.op == "softmax")
        assert any(first in line for line in lines)
    with pytest.raises(GraphError, match="softmax"):
        api.run(made.model, path, cost_only=True)


def test_a_machine_without_a_vector_unit_lists_every_operator(student, tmp_path):
    path = tmp_path / "bare.yaml"
    path.write_text(
        "schema: hwsim/accelerator/1\nextends: int8_edge\nname: bare\nvector_unit: null\n",
        encoding="utf-8",
    )
    made = student("vit", "bit_w1a1")
    with pytest.raises(GraphError) as fault:
        api.verify(made.model, str(path))
    from hwsim.graph.ops import OPERATORS

    needed = {n.op for n in made.graph.nodes if OPERATORS[n.op].unit == "vector"}
    listed = {line.split(":")[0].split()[-1] for line in str(fault.value).splitlines()[1:]}
    assert listed == needed


def test_formats_that_no_array_multiplies_are_listed(student, tmp_path):
    spec = load_machine("int8_edge").spec.model_dump(mode="json", by_alias=True)
    main = spec["arrays"]["main"]
    main["formats"] = [{"activation": "UINT8", "weight": "INT8"}]
    path = machine_file(tmp_path, {**spec, "arrays": {"main": main}})
    made = student("gpt2", "w8a8")
    with pytest.raises(GraphError) as fault:
        api.run(made.model, path)
    assert "linear of INT8 x INT8" in str(fault.value)
    assert "matmul of INT8 x INT8" in str(fault.value)
    assert "UINT8" not in str(fault.value)
