"""Every way in which the folder of an export can be wrong, and what is said of it."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import samples
from hand_made import (
    INT8,
    INT32,
    Maker,
)
from safetensors.numpy import load_file, save_file

from hwsim.errors import CheckpointError
from hwsim.graph import serialize
from hwsim.graph.dtype import BIPOLAR
from hwsim.graph.serialize import check_replaceable, load, save


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


def test_a_folder_that_is_no_export(tmp_path: Path) -> None:
    assert "manifest.json: no such file; is" in refusal(tmp_path)
    assert "manifest.json: no such file; is" in refusal(tmp_path / "nowhere")


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "net.yaml"
    file.touch()
    text = f"{file}: is a file; a model is the folder of an export; `python -m hwsim random FILE --out DIR` makes one"
    assert refusal(file).startswith(text)
    assert "net.yaml/model/manifest.json: no such file; is" in refusal(file / "model")


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
