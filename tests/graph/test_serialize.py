"""Exports on disk: the round trip, true packed sizes, and how one takes the place of another."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import RECORD, samples
from hand_made import (
    INT8,
    INT16,
    INT32,
    MULTIPLIER,
    SHIFT,
    Maker,
    every_operator,
    inputs_of_every_operator,
)
from safetensors.numpy import load_file

from hwsim import reference
from hwsim.errors import CheckpointError
from hwsim.graph import packing
from hwsim.graph.dtype import BIPOLAR, TERNARY, UNIPOLAR, DataType, int_, uint
from hwsim.graph.ir import Constant, QuantGraph
from hwsim.graph.serialize import load, save


def assert_same(a: QuantGraph, b: QuantGraph) -> None:
    assert a.nodes == b.nodes
    assert a.tensors == b.tensors
    assert (a.inputs, a.outputs, a.max_length, a.meta) == (
        b.inputs,
        b.outputs,
        b.max_length,
        b.meta,
    )
    assert a.constants.keys() == b.constants.keys()
    for name, constant in a.constants.items():
        assert b.constants[name].dtype == constant.dtype
        np.testing.assert_array_equal(b.constants[name].array, constant.array)


# -- the round trip


def test_round_trip(exported: Path) -> None:
    model = load(exported)
    assert_same(every_operator(), model.graph)
    assert model.name == "model"
    assert model.record == RECORD | {"model_sha256": model.sha256}
    assert model.samples is not None
    assert len(model.samples) == 3
    for name, array in samples().inputs.items():
        np.testing.assert_array_equal(model.samples.inputs[name], array)
    np.testing.assert_array_equal(model.samples.labels, samples().labels)
    np.testing.assert_array_equal(model.samples.lengths, samples().lengths)


def test_the_loaded_graph_computes_the_same(exported: Path) -> None:
    inputs, lengths = inputs_of_every_operator()
    loaded = reference.execute(load(exported).graph, inputs, lengths)
    for (name, x), (same, y) in zip(
        reference.execute(every_operator(), inputs, lengths), loaded, strict=True
    ):
        assert name == same
        np.testing.assert_array_equal(x, y)


def test_an_export_needs_neither_samples_nor_record(tmp_path: Path) -> None:
    save(tmp_path / "bare", every_operator())
    model = load(str(tmp_path / "bare"))
    assert (model.samples, model.record) == (None, {})
    assert set(model.file_bytes) == {"graph.json", "weights.safetensors", "manifest.json"}


def test_the_identity_is_that_of_graph_and_weights_alone(tmp_path: Path) -> None:
    bare = save(tmp_path / "a", every_operator())
    assert bare == save(tmp_path / "b", every_operator(), samples(), RECORD)
    assert bare != save(tmp_path / "c", replace(every_operator(), meta={"task": "another"}))
    other = every_operator()
    other.constants["hidden.weight"].array[0, 0] ^= 1
    assert bare != save(tmp_path / "d", other)


@pytest.mark.parametrize(
    ("dtype", "n", "k", "size"),
    [
        (BIPOLAR, 64, 1000, 64 * 125),  # 1 bit an element
        (TERNARY, 64, 1000, 64 * 200),  # 1.6 bits
        (INT8, 64, 1000, 64 * 1000),  # 8 bits
        (BIPOLAR, 3, 13, 3 * ceil(13 / 8)),  # rows start on a byte
        (TERNARY, 3, 13, 3 * ceil(13 / 5)),
    ],
)
def test_weights_take_their_true_width_on_disk(
    tmp_path: Path, dtype: DataType, n: int, k: int, size: int
) -> None:
    g = Maker()
    x = g.input("x", INT8, k)
    levels = np.array(dtype.levels)
    weight = np.random.default_rng(0).choice(levels, (n, k))
    g.node("acc", "linear", (x,), INT32, (n,), {"weight": (dtype, weight)})
    save(tmp_path / "m", g.graph("acc"))
    stored = load_file(tmp_path / "m" / "weights.safetensors")["acc.weight"]
    assert stored.dtype == np.uint8
    assert stored.nbytes == size
    overhead = (tmp_path / "m" / "weights.safetensors").stat().st_size - size
    assert 0 < overhead < 200  # the header of a safetensors file
    np.testing.assert_array_equal(load(tmp_path / "m").graph.constants["acc.weight"].array, weight)


def test_what_repeats_is_stored_once_and_numbers_take_the_bytes_they_need(tmp_path: Path) -> None:
    """A scale for the whole matrix with a bias a channel, and the same row at every position."""
    rng = np.random.default_rng(0)
    g = Maker()
    acc = g.node("acc", "linear", (g.input("x", INT8, "T", 64),), INT32, ("T", 96), {
        "weight": (BIPOLAR, rng.choice([-1, 1], (96, 64)))
    })  # fmt: skip
    bias = rng.integers(-(1 << 44), 1 << 44, 96)
    y = g.requant("y", acc, INT16, [5 << 28] * 96, [35] * 96, bias)
    row = rng.integers(-30_000, 30_000, 96)
    g.node("sum", "add", (y,), INT16, ("T", 96), {
        "M": (MULTIPLIER, [1, 1]), "S": (SHIFT, [0, 0]), "addend": (INT16, np.tile(row, (512, 1)))
    })  # fmt: skip
    graph = g.graph("sum", max_length=512)
    save(tmp_path / "m", graph)
    model = load(tmp_path / "m")
    assert_same(graph, model.graph)
    assert model.constant_bytes == {
        "acc.weight": 96 * 8, "y.M": 4, "y.S": 1, "y.B": 96 * 6, "sum.M": 1, "sum.S": 1, "sum.addend": 96 * 2,
    }  # fmt: skip
    for name, array in load_file(tmp_path / "m" / "weights.safetensors").items():
        assert array.nbytes == model.constant_bytes[name]


def test_constants_may_have_any_name_and_several_readers(tmp_path: Path) -> None:
    g = Maker()
    x = g.input("x", INT8, 2)
    for name in ("a", "b"):
        x = g.requant(name, x, INT8, [1], [1], [0])
    nodes = [replace(n, constants={**n.constants, "M": "multiplier"}) for n in g.nodes]
    shared = Constant("multiplier", MULTIPLIER, np.array([3]))
    constants = {n: c for n, c in g.constants.items() if not n.endswith(".M")} | {
        "multiplier": shared
    }
    graph = replace(g.graph("b"), nodes=tuple(nodes), constants=constants)
    save(tmp_path / "m", graph)
    assert_same(graph, load(tmp_path / "m").graph)


def test_the_example_of_docs_files_byte_by_byte(tmp_path: Path) -> None:
    g = Maker()
    weight = [[1, 0, -1, 1, 1, 0, 0, -1, 1, 0, 1, 1, -1], [0] * 13]
    acc = g.node(
        "acc", "linear", (g.input("x", INT8, 13),), INT32, (2,), {"weight": (TERNARY, weight)}
    )
    g.requant("y", acc, INT8, [1 << 30], [36], [0, 1 << 35])
    save(tmp_path / "m", g.graph("y"))
    stored = {n: a.tolist() for n, a in load_file(tmp_path / "m" / "weights.safetensors").items()}
    assert stored == {
        "acc.weight": [221, 139, 116, 121, 121, 121],
        "y.M": [0, 0, 0, 64],
        "y.S": [36],
        "y.B": [0] * 5 + [0, 0, 0, 0, 8],
    }
    page = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")
    assert f"uint8 {stored['acc.weight']}" in page
    node = json.loads((tmp_path / "m" / "graph.json").read_text())["nodes"][0]
    assert f'"weight": {json.dumps(node["constants"]["weight"])}' in page


def test_the_reader_of_docs_files_reads_what_we_write(exported: Path) -> None:
    """A third party's reader, from the page alone, finds every constant."""
    page = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    reader: dict[str, Any] = {}
    exec(code, reader)
    read = dict(reader["constants"](exported))
    graph = load(exported).graph
    assert read.keys() == graph.constants.keys()
    for name, constant in graph.constants.items():
        np.testing.assert_array_equal(read[name], constant.array)
    for dtype, values in (
        (BIPOLAR, (-1, 1)), (UNIPOLAR, (0, 1)), (TERNARY, (-1, 0, 1)), (int_(4), (-8, 7)), (uint(3), (0, 7)),
        (int_(64), (-128, 5, 127)), (uint(63), (0, 5, 255)),
    ):  # fmt: skip
        codes = np.resize(values, (3, 7))
        for encoding in packing.encodings_for(dtype):
            raw = packing.encode(codes, dtype, encoding).reshape(-1)
            back = reader["unpack"](raw, dtype.name, encoding, codes.shape)
            np.testing.assert_array_equal(back, codes)


# -- replacing a folder


def test_an_older_export_is_replaced_as_a_whole(exported: Path) -> None:
    g = Maker()
    g.node("y", "relayout", (g.input("x", INT8, 2, 3),), INT8, (3, 2))
    save(exported, g.graph("y"))
    assert load(exported).graph.outputs == ("y",)
    assert not (exported / "tokenizer.json").exists()
    assert sorted(p.name for p in exported.parent.iterdir()) == ["model", "tokenizer.json"]


def test_a_failed_save_leaves_the_older_export_and_no_rubbish(exported: Path) -> None:
    broken = every_operator()
    broken.constants["rows.weight"].array[0, 0] = 5  # no ternary code
    with pytest.raises(ValueError, match="TERNARY codes lie in"):
        save(exported, broken)
    assert_same(every_operator(), load(exported).graph)
    assert sorted(p.name for p in exported.parent.iterdir()) == ["model", "tokenizer.json"]


def test_the_older_export_comes_back_if_the_last_step_fails(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.replace

    def replace_but_not_the_new_one(source: Path, target: Path) -> None:
        if Path(source).name.endswith(".tmp"):
            raise OSError("disk on fire")
        really(source, target)

    monkeypatch.setattr(os, "replace", replace_but_not_the_new_one)
    with pytest.raises(OSError, match="on fire"):
        save(exported, every_operator())
    monkeypatch.undo()
    assert load(exported).record
    assert sorted(p.name for p in exported.parent.iterdir()) == ["model", "tokenizer.json"]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    save(tmp_path / "m", every_operator())
    assert load(tmp_path / "m").graph.max_length == 6


def test_what_is_no_export_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=f"{tmp_path}: holds files that are no export"):
        save(tmp_path, every_operator())
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(CheckpointError, match=r"thesis\.tex: must be a folder"):
        save(tmp_path / "thesis.tex", every_operator())


def test_the_working_directory_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=f"{tmp_path}: holds files"):
        save(Path(), every_operator())
