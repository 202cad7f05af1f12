"""Golden vectors, read and recomputed by a program that shares nothing with the one that wrote them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import DEPTH, HEADS, attention, export

from hwsim import reference
from hwsim.config.load import load_machine
from hwsim.engine.execute import numeric_profiles
from hwsim.errors import DataError, GraphError, OverflowRefused
from hwsim.rtl.listing import list_products
from hwsim.rtl.session import Session
from hwsim.rtl.vectors import Vectors, write_vectors

MACHINES = Path(__file__).parents[1] / "machines"
ROOMY = [
    f"memories.{name}.{key}"
    for name in ("buffer", "weights")
    for key in ("capacity_bytes=64KiB", "fixed=true")
]
Case = tuple[str, str, str, list[str], tuple[tuple[int, int, int], str] | None]
CASES: dict[str, Case] = {
    "xnor": ("xnor_edge", "BIPOLAR", "BIPOLAR", [], None),
    "ternary": ("ternary_edge", "INT8", "TERNARY", [], None),
    "ternary_sign": ("ternary_edge", "INT8", "BIPOLAR", [], None),
    "bit_serial_binary": ("bitserial_edge", "BIPOLAR", "BIPOLAR", [], None),
    "bit_serial_mixed": ("bitserial_edge", "INT4", "BIPOLAR", [], ((9, 13, 64), "activation")),
    "bit_serial_ternary": ("bitserial_edge", "BIPOLAR", "TERNARY", [], None),
    "int": ("int8_edge", "INT8", "INT8", [], None),
    "multi_mode": (str(MACHINES / "multi_mode.yaml"), "BIPOLAR", "BIPOLAR", ROOMY, None),
    "int_split": ("toy", "INT8", "INT8", [], ((5, 7, 16), "weight")),
    "int_clamp": (
        "toy", "INT8", "INT8", ["arrays.main.accumulator_bits=15", "arrays.main.overflow=clamp"], ((9, 11, 24), "output"),
    ),
    "int_wrap": (
        "int8_edge", "INT8", "INT8", ["arrays.main.accumulator_bits=9", "arrays.main.overflow=wrap"], None,
    ),
    "bit_serial_clamp": (
        "bitserial_edge", "INT4", "BIPOLAR", ["arrays.main.accumulator_bits=5", "arrays.main.overflow=clamp"], None,
    ),
}  # fmt: skip
"""machine, activation, weight, overrides, and a tile with its order where the mapper would not cut K"""


# -- a reader of our own: text, shifts and Python integers


def read_memh(path: Path) -> list[int]:
    lines = [line.split("//")[0].strip() for line in path.read_text("ascii").splitlines()]
    return [int(line, 16) for line in lines if line]


def signed(word: int, bits: int) -> int:
    return word - (1 << bits) if word >> (bits - 1) else word


def decode(pattern: int, operand: dict[str, Any]) -> int:
    """The code of a whole pattern."""
    match operand["encoding"]:
        case "sign_bit":
            return 1 if pattern else -1
        case "plus_minus":
            return {0: 0, 1: 1, 2: -1}[pattern]
        case "twos_complement":
            return signed(pattern, operand["code_bits"])
    return pattern


def at(word: int, row: int, lane: int, operand: dict[str, Any]) -> int:
    bits = operand["pass_bits"]
    return (word >> ((row * operand["lanes"] + lane) * bits)) & ((1 << bits) - 1)


def plane_sign(plane: int, operand: dict[str, Any]) -> int:
    top = plane == operand["code_bits"] - 1
    return -1 if top and operand["encoding"] == "twos_complement" else 1


def fitted(value: int, bits: int, rule: str) -> int:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if rule == "clamp":
        return min(max(value, low), high)
    return (value - low) % (1 << bits) + low


class Tile:
    """The files of one compute step, and what plain arithmetic makes of them."""

    def __init__(self, folder: Path, manifest: dict[str, Any], tile: dict[str, Any]) -> None:
        self.m, self.tile = manifest, tile
        self.words = {name: read_memh(folder / f["path"]) for name, f in tile["files"].items()}
        self.rows, self.cols, self.depth = (tile[x][1] - tile[x][0] for x in "mnk")

    def beats(self) -> Iterator[dict[str, int]]:
        for word in self.words["beats"]:
            fields, shift = {}, 0
            for field in self.m["beat_fields"]:
                fields[field["name"]] = (word >> shift) & ((1 << field["bits"]) - 1)
                shift += field["bits"]
            yield fields

    def accumulated(self) -> list[int]:
        """Walk beat by beat: every beat adds one chunk to each accumulator that it touches."""
        m, bits = self.m, self.m["accumulator"]["bits"]
        acc = [signed(word, bits) for word in self.words["start"]]
        serial = m["array"]["kind"] == "bit_serial"
        for beat, a_word, w_word in zip(self.beats(), self.words["activation"], self.words["weight"], strict=True):  # fmt: skip
            weight = 1 << (beat["a_plane"] + beat["w_plane"])
            weight *= plane_sign(beat["a_plane"], m["activation"])
            weight *= plane_sign(beat["w_plane"], m["weight"])
            for i in range(beat["rows"]):
                for j in range(beat["cols"]):
                    total = 0
                    for lane in range(beat["lanes"]):
                        a = at(a_word, i, lane, m["activation"])
                        w = at(w_word, j, lane, m["weight"])
                        if serial:
                            total += weight * (a & w)
                        else:
                            total += decode(a, m["activation"]) * decode(w, m["weight"])
                    place = (beat["m"] + i) * self.cols + beat["n"] + j
                    acc[place] = fitted(acc[place] + total, bits, m["accumulator"]["overflow"])
        return acc


def reference_tensors(model: Any, machine: Any, sample: int) -> dict[str, Any]:
    length = int(model.samples.lengths[sample])
    inputs = {"x": model.samples.inputs["x"][sample : sample + 1, :length]}
    lengths = np.array([length])
    profiles = numeric_profiles(model.graph, machine, length)
    return {**inputs, **dict(reference.execute(model.graph, inputs, lengths, profiles))}


Written = Callable[..., tuple[Path, Any, Any]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """`written(case, operator, sample)`: folder, manifest, and the reference's tensors."""
    root = tmp_path_factory.mktemp("vectors")
    sessions: dict[tuple[str, int], tuple[Session, Any, Any]] = {}
    made: dict[tuple[str, str, int], tuple[Path, Any, Any]] = {}

    def session(case: str, sample: int) -> tuple[Session, Any, Any]:
        if (case, sample) not in sessions:
            name, a, w, overrides, _ = CASES[case]
            model = export(root / f"{case}-{sample}", attention(a, w))
            on = Session(model, name, overrides, range(sample, sample + 1))
            tensors = reference_tensors(model, on.machine, sample)
            sessions[case, sample] = on, on.execute(sample), tensors
        return sessions[case, sample]

    def get(case: str, operator: str, sample: int = 0) -> tuple[Path, Any, Any]:
        if (case, operator, sample) not in made:
            on, executed, tensors = session(case, sample)
            product = on.product(operator, on.length)
            cuts = CASES[case][4]
            if cuts is not None:
                product = replace(product, tile=cuts[0], order=cuts[1])
            folder = root / f"{case}-{operator}-{sample}"
            Vectors(on, product, sample, executed).write(folder, list(product.steps()))
            manifest = json.loads((folder / "manifest.json").read_text())
            made[case, operator, sample] = folder, manifest, tensors
        return made[case, operator, sample]

    return get


def operand_codes(name: str, model_tensors: Any, graph: Any) -> tuple[Any, Any]:
    """Both operands of an operator [batch, rows, K], from the reference."""
    node = graph.by_name[name]
    a = model_tensors[node.inputs[0]][0]
    w = graph.constant(node, "weight") if node.op == "linear" else model_tensors[node.inputs[1]][0]
    return (x if x.ndim == 3 else x[None] for x in (a, w))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("operator", ["x.acc", "mix.acc"])
def test_stimuli_give_the_expected_accumulators_and_the_reference(written, case, operator):
    folder, manifest, tensors = written(case, operator)
    graph = attention(*CASES[case][1:3])
    a_codes, w_codes = operand_codes(operator, tensors, graph)
    shape = manifest["product"]
    want = tensors[operator].reshape(shape["batch"], shape["m"], shape["n"])
    done = np.zeros((shape["batch"], shape["m"], shape["n"]), int)
    for entry in manifest["tiles"]:
        tile = Tile(folder, manifest, entry)
        bits = manifest["accumulator"]["bits"]
        have = [signed(word, bits) for word in tile.words["accumulators"]]
        assert tile.accumulated() == have
        # docs/machine.md, section 3: m, n, k, weight plane, activation plane, the last innermost.
        loops = ("m", "n", "k", "w_plane", "a_plane")
        order = [tuple(beat[loop] for loop in loops) for beat in tile.beats()]
        assert order == sorted(set(order))

        batch, (m0, m1), (n0, n1) = entry["batch"], entry["m"], entry["n"]
        if entry["k"][0] == 0:
            assert set(tile.words["start"]) == {0}
        assert entry["completes_k"] == (entry["k"][1] == shape["k"])
        assert ("results" in tile.words) == entry["completes_k"]
        if not entry["completes_k"]:
            continue
        results = np.array([signed(word, 32) for word in tile.words["results"]])
        assert results.tolist() == want[batch, m0:m1, n0:n1].reshape(-1).tolist()
        done[batch, m0:m1, n0:n1] += 1
        # What reading out does: nothing, but for stored bits of +-1 (docs/arithmetic.md, section 2).
        acc = np.array(have).reshape(tile.rows, tile.cols)
        if manifest["array"]["kind"] == "bit_serial":
            a, w = a_codes[batch][m0:m1].astype(int), w_codes[batch][n0:n1].astype(int)
            if manifest["activation"]["encoding"] == "sign_bit":
                stored = (w + 1) // 2 if manifest["weight"]["encoding"] == "sign_bit" else w
                acc = 2 * acc - stored.sum(axis=1)[None]
            if manifest["weight"]["encoding"] == "sign_bit":
                acc = 2 * acc - a.sum(axis=1)[:, None]
        assert acc.reshape(-1).tolist() == results.tolist()
    assert (done == 1).all(), "every element is completed once"


@pytest.mark.parametrize("case", ["xnor", "ternary", "bit_serial_mixed", "int"])
def test_codes_stand_where_the_views_put_them(written, case):
    """P V [head, token, channel] becomes mix [token, head * DEPTH + channel] before its threshold or requant."""
    folder, manifest, tensors = written(case, "mix.acc")
    assert manifest["operator"]["fused"] == ["mix"]
    final, bits = tensors["mix"][0], {"BIPOLAR": 1, "INT4": 4, "INT8": 8}[manifest["codes"]["type"]]
    for entry in manifest["tiles"]:
        words = read_memh(folder / entry["files"]["codes"]["path"])
        want = [
            final[token, entry["batch"] * DEPTH + channel]
            for token in range(*entry["m"])
            for channel in range(*entry["n"])
        ]
        if bits == 1:
            assert words == [(code + 1) // 2 for code in want]
        else:
            assert [signed(word, bits) for word in words] == want
    assert {entry["batch"] for entry in manifest["tiles"]} == set(range(HEADS))


@pytest.mark.parametrize("case", CASES)
def test_beats_cycles_hashes_and_loads(written, case):
    folder, manifest, _ = written(case, "x.acc", sample=1)
    assert (manifest["schema"], manifest["sample"]) == ("hwsim/vectors/1", 1)
    r, c, l = manifest["mapping"]["block"]  # noqa: E741
    for entry in manifest["tiles"]:
        tile = Tile(folder, manifest, entry)
        blocks = ceil(tile.rows / r) * ceil(tile.cols / c) * ceil(tile.depth / l)
        assert entry["beats"] == blocks * manifest["array"]["passes"]
        depth = manifest["array"]["pipeline_depth_cycles"]
        assert entry["done_cycle"] == entry["beats"] * entry["interval_cycles"] + depth
        for file in entry["files"].values():
            data = (folder / file["path"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == file["sha256"]
            words = read_memh(folder / file["path"])
            assert len(words) == file["words"]
            assert max(words) < 1 << file["width_bits"]
        beats = list(tile.beats())
        for port, flag in (("activation", "loads_a"), ("weight", "loads_w")):
            words = tile.words[port]
            assert len(words) == entry["beats"]
            assert beats[0][flag] == 1
            changed = [x != y for x, y in pairwise(words)]
            assert all(b[flag] for b, new in zip(beats[1:], changed, strict=True) if new)
        firsts = [(b["m"], b["n"]) for b in beats if b["first"]]
        assert len(firsts) == len(set(firsts)) == sum(b["last"] for b in beats)
        assert len(firsts) == ceil(tile.rows / r) * ceil(tile.cols / c)


def test_the_cases_have_smaller_last_tiles_and_a_split_k(written):
    """The tests above would prove less if the mapper made one tile of everything."""
    _, manifest, _ = written("int_split", "x.acc")
    assert any(t["k"][0] > 0 for t in manifest["tiles"])
    sizes = {tuple(t[x][1] - t[x][0] for x in "mnk") for t in manifest["tiles"]}
    assert len(sizes) > 1
    folder, manifest, _ = written("int_clamp", "x.acc")
    tile = next(t for t in manifest["tiles"] if t["k"][0] > 0)
    assert set(read_memh(folder / tile["files"]["start"]["path"])) != {0}


def test_a_reader_of_the_other_bit_order_is_found_out(written):
    folder, manifest, _ = written("int", "x.acc")
    tile = Tile(folder, manifest, manifest["tiles"][0])
    right = tile.accumulated()
    width = manifest["activation"]["width_bits"]
    tile.words["activation"] = [
        int(f"{word:0{width}b}"[::-1], 2) for word in tile.words["activation"]
    ]
    assert tile.accumulated() != right


def test_a_clamped_tile_depends_on_the_order_of_beats(written):
    folder, manifest, _ = written("int_clamp", "x.acc")
    wrong = 0
    for entry in manifest["tiles"]:
        tile = Tile(folder, manifest, entry)
        right = tile.accumulated()
        for words in (tile.words["beats"], tile.words["activation"], tile.words["weight"]):
            words.reverse()
        wrong += tile.accumulated() != right
    assert wrong > 0


def test_empty_beats_are_left_out(tmp_path):
    skipping = ["arrays.main.zero_skipping=true"]
    machine = load_machine("ternary_edge", skipping)
    model = export(tmp_path / "model", attention("INT8", "TERNARY", sparse=True))
    files = []
    for name, on in (("skipped", machine), ("all", load_machine("ternary_edge"))):
        write_vectors(model, on, "x.acc", "all", tmp_path / name)
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        beats = 0
        for entry in manifest["tiles"]:
            tile = Tile(tmp_path / name, manifest, entry)
            bits = manifest["accumulator"]["bits"]
            assert tile.accumulated() == [signed(x, bits) for x in tile.words["accumulators"]]
            beats += entry["beats"]
            words = tile.words["weight"]
            assert (0 in words) == (name == "all" and entry["n"][1] > 16)
        files.append(beats)
    assert files[0] < files[1]


def test_operators_are_listed_with_their_tiles(tmp_path):
    model = export(tmp_path / "model", attention("INT8", "TERNARY"))
    found = list_products(model, "ternary_edge", 1).to_json()
    assert [o["name"] for o in found["operators"]] == ["x.acc", "scores.acc", "mix.acc", "y.acc"]
    assert found["operators"][1]["product"] == [2, 5, 5, 11], "a sample of five tokens"
    assert found["refused"] == []


def test_what_cannot_be_written_is_one_message(tmp_path):
    model = export(tmp_path / "model", attention("INT8", "TERNARY"))

    def refused(error: type[Exception], text: str, *, machine: str | Path = "ternary_edge", operator: str = "x.acc",
                tile: Any = 0, sample: int = 0, limit: int = 9, overrides: tuple[str, ...] = ()) -> None:  # fmt: skip
        with pytest.raises(error) as caught:
            write_vectors(
                model, machine, operator, tile, tmp_path / "out", sample, limit, overrides
            )
        assert text in str(caught.value)
        assert not (tmp_path / "out").exists()

    refused(DataError, "did you mean 'scores.acc'?", operator="score.acc")
    refused(DataError, "must be a contraction of the model", operator="mix")
    refused(DataError, "x.acc has tiles 0 to 1, not 2", tile=2)
    refused(DataError, "x.acc has 2 tiles, more than the limit of 1", tile="all", limit=1)
    refused(DataError, "has samples 0 to 2, not 3", sample=3)
    refused(
        GraphError, "must run on an array whose beats", machine=MACHINES / "systolic_output.yaml"
    )
    narrow = ("arrays.main.accumulator_bits=8",)
    refused(OverflowRefused, "more than its accumulator_bits 8", overrides=narrow)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="must be an empty folder"):
        write_vectors(model, "ternary_edge", "x.acc", 0, tmp_path / "kept")
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["notes.txt"]
