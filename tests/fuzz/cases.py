"""One mutated input each: what becomes of it. Anything but a valid run or an error of ours is a finding."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mutations import mutate_bytes, mutate_json, mutate_text

from hwsim.config.load import load_machine
from hwsim.engine.cost import cost
from hwsim.engine.execute import execute
from hwsim.errors import BitwrightError, ConfigError
from hwsim.graph.serialize import GRAPH_FILE, MANIFEST_FILE, SAMPLES_FILE, WEIGHTS_FILE, load

if TYPE_CHECKING:
    from hwsim.graph.ir import QuantGraph

PLACE = re.compile(r"^(?P<file>.+?):(?P<line>\d+):(?P<column>\d+): ")


def machine_case(source: Path, graph: QuantGraph, folder: Path, seed: int) -> str:
    """Mutate a machine file, read it, and cost a small graph on it.

    Returns:
        `valid`, `refused` (by the file), `unfit` (the graph by the machine).

    Raises:
        AssertionError: an error says no place, or one that is not there.
    """
    rng = random.Random(seed)
    text, line = mutate_text(source.read_text(encoding="utf-8"), rng)
    shutil.rmtree(folder)  # or `extends` would find an earlier case's file
    folder.mkdir()
    path = folder / source.name
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        machine = load_machine(path)
    except ConfigError as error:
        check_places(error, path, line)
        return "refused"
    try:
        cost(graph, machine)
    except BitwrightError:
        return "unfit"
    return "valid"


def check_places(error: ConfigError, path: Path, changed: int | None) -> None:
    """Hold the places of an error against the file: each fault has one, and it exists.

    Where one scalar alone was changed, some fault must stand on its line, on that of a key around it, or below
    the key that holds it: a value that contradicts another may be reported at either of the two.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    places = []
    for fault in error.faults:
        place = PLACE.match(fault)
        assert place, f"no place: {fault}"
        line, mine = int(place["line"]), Path(place["file"]) == path
        assert not mine or 1 <= line <= len(lines) + 1, f"no such line: {fault}"
        assert int(place["column"]) >= 1, f"no such column: {fault}"
        places.append(line if mine else None)
    if changed is None:
        return
    what = f"line {changed} ({lines[changed - 1][:60]}) was changed: {error}"
    if (
        "is not YAML" in error.faults[0]
    ):  # seen where the text stops making sense, at the change or behind it
        assert places[0] is not None, what
        assert places[0] >= changed, what
        return
    holders = _holders(lines, changed)
    near = {changed, changed + 1, *holders}
    holder = holders[0] if holders else None
    key = lines[changed - 1].partition(":")[0].strip(" -")
    assert any(
        key in fault
        or (
            line is not None and (line in near or holder is None or holder in _holders(lines, line))
        )
        for line, fault in zip(places, error.faults, strict=True)
    ), what


def _holders(lines: list[str], line: int) -> list[int]:
    """Return the lines of the keys that a line is inside of, the nearest first."""
    if line > len(lines):
        return []
    indent, found = len(lines[line - 1]) - len(lines[line - 1].lstrip()), []
    for at in range(line - 1, 0, -1):
        here = len(lines[at - 1]) - len(lines[at - 1].lstrip())
        if lines[at - 1].strip() and here < indent:
            found.append(at)
            indent = here
    return found


def model_case(source: Path, folder: Path, seed: int) -> str:
    """Mutate an export folder, read it, cost it and execute its samples.

    Half of the cases repair the manifest's hashes, so that what is behind them is reached.
    """
    rng = random.Random(seed)
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(source, model)
    victim = model / rng.choice(
        (GRAPH_FILE, GRAPH_FILE, GRAPH_FILE, WEIGHTS_FILE, MANIFEST_FILE, SAMPLES_FILE)
    )
    action = rng.random()
    if action < 0.05:
        victim.unlink()
    elif action < 0.08:
        victim.unlink()
        victim.mkdir()
    elif victim.suffix == ".json" and action < 0.8:
        data = mutate_json(json.loads(victim.read_text(encoding="utf-8")), rng)
        victim.write_text(json.dumps(data), encoding="utf-8")
    else:
        victim.write_bytes(mutate_bytes(victim.read_bytes(), rng))
    if victim.name != MANIFEST_FILE and rng.random() < 0.7:
        repair(model)
    try:
        loaded = load(model)
    except BitwrightError as error:
        if str(model) not in str(error):
            raise AssertionError(f"names no file: {error}") from error
        return "refused"
    machine = load_machine("int8_edge")
    try:
        cost(loaded.graph, machine)
        assert loaded.samples is not None
        inputs = {name: x[:2] for name, x in loaded.samples.inputs.items()}
        lengths = None if loaded.samples.lengths is None else loaded.samples.lengths[:2]
        for _ in execute(loaded.graph, machine, inputs, lengths):
            pass
    except BitwrightError:
        return "unfit"
    return "valid"


def repair(model: Path) -> None:
    """Write the manifest that fits the files as they are."""
    path = model / MANIFEST_FILE
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for name in manifest["files"]:
        if (model / name).is_file():
            manifest["files"][name] = hashlib.sha256((model / name).read_bytes()).hexdigest()
    hashes = "".join(f"{n} {manifest['files'][n]}\n" for n in (GRAPH_FILE, WEIGHTS_FILE))
    manifest["model_sha256"] = hashlib.sha256(hashes.encode()).hexdigest()
    path.write_text(json.dumps(manifest), encoding="utf-8")
