"""Exports on disk: the round trip, true packed sizes, and every way in which a folder can be wrong."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
from safetensors.numpy import load_file, save_file

from hwsim import reference
from hwsim.errors import CheckpointError
from hwsim.graph import packing, serialize
from hwsim.graph.dtype import BIPOLAR, TERNARY, UNIPOLAR, DataType, int_, uint
from hwsim.graph.ir import Constant, QuantGraph
from hwsim.graph.serialize import Samples, check_replaceable, load, save

RECORD = {"samples": 3, "holds": True, "failures": []}


def samples() -> Samples:
    inputs, lengths = inputs_of_every_operator()
    return Samples(inputs, np.array([0, 1, 1]), lengths)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The folder of an export with samples, a record and a tokenizer file."""
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    folder = tmp_path / "model"
    save(folder, every_operator(), samples(), RECORD, {"tokenizer.json": tokenizer})
    return folder


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


def rewrite(folder: Path, name: str, change: Callable[[Path], None]) -> None:
    """Change a file and make the manifest's hashes fit again, as a careful forger would."""
    change(folder / name)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = serialize._sha256(folder / name)
    manifest["model_sha256"] = serialize._identity(manifest["files"])
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edit_json(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return edit


def edit_arrays(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        arrays = {name: array.copy() for name, array in load_file(path).items()}
        change(arrays)
        save_file(arrays, path)

    return edit


def overwrite(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load(folder)
    return str(error.value)


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


# -- folders that are wrong


def test_a_folder_that_is_no_export(tmp_path: Path) -> None:
    assert "manifest.json: no such file; is" in refusal(tmp_path)
    assert "manifest.json: no such file; is" in refusal(tmp_path / "nowhere")


def test_a_manifest_of_another_kind(exported: Path) -> None:
    (exported / "manifest.json").write_text('{"schema": "someone/else"}')
    text = refusal(exported)
    assert "manifest.json: schema must be 'hwsim/model/3', is 'someone/else'" in text
    assert "python -m qat export" in text


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"x"', "[" * 100_000, "\xff"], ids=["empty", "open", "list", "text", "deep", "latin"]
)  # fmt: skip
def test_a_manifest_that_is_no_json_object(exported: Path, text: str) -> None:
    (exported / "manifest.json").write_bytes(text.encode("latin-1"))
    assert "manifest.json: " in refusal(exported)


@pytest.mark.parametrize("files", [None, [], {}, {"graph.json": "00"}])
def test_a_manifest_without_its_list_of_files(exported: Path, files: object) -> None:
    edit_json(lambda m: m.update(files=files))(exported / "manifest.json")
    assert "manifest.json: damaged: `files` must list" in refusal(exported)


def test_a_manifest_with_another_identity(exported: Path) -> None:
    edit_json(lambda m: m.update(model_sha256="0" * 64))(exported / "manifest.json")
    assert "manifest.json: its model_sha256 does not fit" in refusal(exported)


@pytest.mark.parametrize(
    "name", ["graph.json", "weights.safetensors", "samples.safetensors", "rungs.json", "tokenizer.json"]
)  # fmt: skip
@pytest.mark.parametrize("fault", ["missing", "truncated", "altered", "longer"])
def test_every_file_is_checked_against_its_hash(exported: Path, name: str, fault: str) -> None:
    path = exported / name
    data = path.read_bytes()
    match fault:
        case "missing":
            path.unlink()
        case "truncated":
            path.write_bytes(data[:-1])
        case "altered":
            middle = len(data) // 2
            path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        case "longer":
            path.write_bytes(data + b"\n")
    text = refusal(exported)
    assert text.startswith(f"{path}: ")
    assert (
        "missing" if fault == "missing" else "altered or truncated: its SHA-256 must be"
    ) in text


def test_all_wrong_files_are_named_at_once(exported: Path) -> None:
    (exported / "graph.json").unlink()
    (exported / "weights.safetensors").write_bytes(b"")
    assert len(refusal(exported).splitlines()) == 2


@pytest.mark.parametrize("name", ["samples.safetensors", "rungs.json"])
def test_a_file_that_the_manifest_does_not_list_is_not_read(exported: Path, name: str) -> None:
    edit_json(lambda m: m["files"].pop(name))(exported / "manifest.json")
    assert f"{exported / name}: not in the manifest's list of files" in refusal(exported)


def test_the_record_of_another_model(exported: Path) -> None:
    rewrite(exported, "rungs.json", edit_json(lambda r: r.update(model_sha256="0" * 64)))
    assert refusal(exported) == f"{exported / 'rungs.json'}: belongs to another model; export again"


# -- files whose hashes fit, but whose content is wrong


def set_last_bit(name: str) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name][-1] |= 0x80

    return change


def set_byte(name: str, value: int) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name][1] = value

    return change


def wide(name: str) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name] = arrays[name].astype(np.int64)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.pop("rows.M"), "constant rows.M is missing"),
        (set_byte("rows.weight", 243), "constant rows.weight: a byte of five trits is at most 242"),
        # 8 trits a row: byte 1 holds three of them and two pad digits; 242 = 22222 in base 3
        (set_byte("rows.weight", 242), "constant rows.weight: a pad trit behind the last element"),
        (lambda a: a.update({"wide.M": a["wide.M"][:-1]}), "constant wide.M: UINT31 [1] as bytes4 takes 4 bytes, found 3"),
        (lambda a: a.update({"codes.M": np.array([7] * 5, np.uint8)}), "constant codes.M: UINT31 [1] as bytes1 takes 1 bytes, found 5"),
        (wide("hidden.weight"), "constant hidden.weight: encoded data must be uint8"),
        (set_byte("hidden.weight", 0x80), "constant hidden.weight: INT8N codes lie in -127..127, found -128"),
    ],
)  # fmt: skip
def test_packed_data_is_checked_when_it_is_unpacked(
    exported: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    rewrite(exported, "weights.safetensors", edit_arrays(change))
    text = refusal(exported)
    assert text.startswith(f"{exported / 'weights.safetensors'}: damaged: ")
    assert says in text


def test_a_pad_bit_that_is_not_zero(tmp_path: Path) -> None:
    g = Maker()
    x = g.input("x", INT8, 13)
    g.node("acc", "linear", (x,), INT32, (2,), {"weight": (BIPOLAR, np.ones((2, 13)))})
    save(tmp_path / "m", g.graph("acc"))
    rewrite(tmp_path / "m", "weights.safetensors", edit_arrays(set_last_bit("acc.weight")))
    text = refusal(tmp_path / "m")
    assert "weights.safetensors: damaged: constant acc.weight: a pad bit" in text


def test_weights_that_are_no_safetensors_file(exported: Path) -> None:
    rewrite(exported, "weights.safetensors", overwrite(b"\x00" * 64))
    assert f"{exported / 'weights.safetensors'}: damaged: " in refusal(exported)


def test_an_export_of_an_older_version_is_refused_and_may_be_replaced(exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    (exported / "manifest.json").write_text(json.dumps(manifest | {"schema": "hwsim/model/1"}))
    assert "is 'hwsim/model/1'; export again with `python -m qat export" in refusal(exported)
    check_replaceable(exported)


def of_constant(name: str, /, **values: object) -> Callable[[dict[str, Any]], None]:
    """Change what graph.json says of a constant."""

    def change(data: dict[str, Any]) -> None:
        node, _, role = name.rpartition(".")
        next(n for n in data["nodes"] if n["name"] == node)["constants"][role].update(values)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (of_constant("codes.M", stored=[5]), "codes.M: UINT31 [5] as bytes1 takes 5 bytes, found 1"),
        (of_constant("codes.M", shape=[2, 3]), "codes.M: [1] cannot be repeated to [2, 3]"),
        (of_constant("codes.B", stored=[5], shape=[6]), "codes.B: [5] cannot be repeated to [6]"),
        (of_constant("codes.B", encoding="bytes9"), "INT64 is encoded as bytes8 or"),
        (of_constant("codes.B", encoding="zip"), "not 'zip'"),
        (of_constant("codes.B", name="gone"), "constant gone is missing"),
    ],
)  # fmt: skip
def test_constants_that_the_graph_describes_wrongly(
    exported: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    rewrite(exported, "graph.json", edit_json(change))
    text = refusal(exported)
    assert text.startswith(f"{exported / 'weights.safetensors'}: damaged: ")
    assert says in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("nodes"), "'nodes' is missing"),
        (lambda d: d.update(rounding="half_even"), "rounding must be 'half_up', is 'half_even'"),
        (lambda d: d.update(schema="hwsim/model/1"), "schema must be 'hwsim/model/3'"),
        (lambda d: d["inputs"][0].update(type="FLOAT32"), "not 'FLOAT32'"),
        (lambda d: d["nodes"][0].update(op="exec"), "unknown operator 'exec'"),
        (lambda d: d["nodes"][0].update(attrs=[]), "object has no attribute"),
        (lambda d: d.update(inputs=3), "must be an iterable"),
        (lambda d: d["nodes"][0].pop("type"), "'type' is missing"),
        (lambda d: d["nodes"][0].update(constants=[]), "no attribute"),
    ],
)
def test_a_graph_that_makes_no_sense(
    exported: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    rewrite(exported, "graph.json", edit_json(change))
    text = refusal(exported)
    assert text.startswith(f"{exported / 'graph.json'}: damaged: ")
    assert says in text


def test_samples_without_an_input(exported: Path) -> None:
    rewrite(exported, "samples.safetensors", edit_arrays(lambda a: a.pop("inputs.ids")))
    text = refusal(exported)
    assert text == f"{exported / 'samples.safetensors'}: damaged: inputs.ids missing"


def test_samples_may_have_no_labels(exported: Path) -> None:
    rewrite(exported, "samples.safetensors", edit_arrays(lambda a: a.pop("labels")))
    found = load(exported).samples
    assert found is not None
    assert found.labels is None
    assert len(found) == len(samples())


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


@pytest.mark.parametrize("name", ["weights.safetensors", "samples.safetensors", "graph.json"])
def test_loading_never_unpickles(exported: Path, name: str) -> None:
    went_off = exported.parent / "went_off"
    bomb = pickle.dumps(Bomb(str(went_off)))
    shutil.copy(exported / name, exported / "copy")
    rewrite(exported, name, overwrite(bomb))
    assert f"{exported / name}: damaged: " in refusal(exported)
    assert not went_off.exists()
    pickle.loads(bomb).close()
    assert went_off.exists()  # the bomb itself works
