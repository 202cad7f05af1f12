"""An exported model on disk: graph.json, weights.safetensors, samples.safetensors, manifest.json.

Nothing is pickled: loading a stranger's folder runs no code. Constants are packed at their true width
(docs/files.md); the manifest holds the SHA-256 of every file, and the model's identity is the SHA-256 over
graph and weights. The folder appears complete or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hwsim.errors import CheckpointError, GraphError
from hwsim.graph.document import KIND, SCHEMA, PackedDataError, graph_from_json, graph_to_json
from hwsim.graph.ir import QuantGraph
from hwsim.graph.packing import pack
from hwsim.graph.sample_checks import sample_faults

GRAPH_FILE = "graph.json"
WEIGHTS_FILE = "weights.safetensors"
SAMPLES_FILE = "samples.safetensors"
RECORD_FILE = "rungs.json"
MANIFEST_FILE = "manifest.json"
IDENTITY_FILES = (GRAPH_FILE, WEIGHTS_FILE)
MODEL_FILES = (*IDENTITY_FILES, MANIFEST_FILE)
"""what an inference needs"""


@dataclass(frozen=True)
class Samples:
    """Labelled inputs as the host makes them: codes or ids, real lengths, labels."""

    inputs: Mapping[str, npt.NDArray[np.int64]]
    """[N, *shape] per graph input; sequences are padded on the right with 0"""
    labels: npt.NDArray[Any] | None
    """[N] classes or regression targets, or [N, T] next tokens with -100 where none counts; None where unknown"""
    lengths: npt.NDArray[np.int64] | None = None
    """[N] real length of each sequence"""

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def real_ids(self, name: str, sample: int) -> npt.NDArray[np.int64]:
        """Return the token ids [T] of one sample without its padding."""
        ids = self.inputs[name][sample]
        length = len(ids) if self.lengths is None else int(self.lengths[sample])
        real: npt.NDArray[np.int64] = ids[:length]
        return real


@dataclass(frozen=True)
class Model:
    """What an export folder holds."""

    folder: Path
    graph: QuantGraph
    samples: Samples | None
    record: Mapping[str, Any]
    """rungs A1-A3 as `qat export` ran them, bound to this model's hash"""
    sha256: str
    file_bytes: Mapping[str, int] = field(default_factory=dict)
    constant_bytes: Mapping[str, int] = field(default_factory=dict)
    """of each packed constant in weights.safetensors, whose header is the rest of that file"""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name


def save(
    folder: Path,
    graph: QuantGraph,
    samples: Samples | None = None,
    record: Mapping[str, Any] | None = None,
    extra_files: Mapping[str, Path] | None = None,
) -> str:
    """Write an export folder and return the model's SHA-256.

    Args:
        folder: where to; an older export there is replaced once the new one is complete.
        graph: the integer graph.
        samples: labelled samples to run it on.
        record: rungs A1-A3; the model's hash is written into it.
        extra_files: name in the folder -> file to copy (tokenizer, image processor).

    Raises:
        CheckpointError: something that is no export is in the way.
    """
    folder = folder.absolute()
    check_replaceable(folder)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        identity = _write_files(temporary, graph, samples, record, extra_files or {})
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return identity


def check_replaceable(folder: Path) -> None:
    """Make sure that writing an export to a folder destroys nothing but an older export.

    Raises:
        CheckpointError: the place is taken by a file, or by a folder that is no export.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: must be a folder or not exist, is a file")
    if any(folder.iterdir()):
        try:
            schema = str(_read_json(folder / MANIFEST_FILE).get("schema"))
        except CheckpointError:
            schema = ""
        if not schema.startswith(KIND):
            raise CheckpointError(
                f"{folder}: holds files that are no export and will not be replaced; name another folder"
            )


def _swap(complete: Path, folder: Path) -> None:
    """Put a complete folder in the place of an older one, which comes back if that fails."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(complete, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_files(
    folder: Path, graph: QuantGraph, samples: Samples | None, record: Mapping[str, Any] | None,
    extra_files: Mapping[str, Path],
) -> str:  # fmt: skip
    """Write everything, the manifest last; return the model's SHA-256."""
    packed = {c.name: pack(c.array, c.dtype) for c in graph.constants.values()}
    _write_json(folder / GRAPH_FILE, graph_to_json(graph, packed))
    save_file({name: p.data for name, p in packed.items()}, folder / WEIGHTS_FILE)
    identity = _identity({name: _sha256(folder / name) for name in IDENTITY_FILES})
    if samples is not None:
        save_file(_sample_tensors(samples), folder / SAMPLES_FILE)
    if record is not None:
        _write_json(folder / RECORD_FILE, {**record, "model_sha256": identity})
    for name, source in extra_files.items():
        shutil.copyfile(source, folder / name)
    files = {p.name: _sha256(p) for p in sorted(folder.iterdir())}
    _write_json(
        folder / MANIFEST_FILE, {"schema": SCHEMA, "model_sha256": identity, "files": files}
    )
    return identity


def load(folder: Path | str) -> Model:
    """Read an export folder, after checking every file against the manifest.

    Raises:
        CheckpointError: it is no export, or a file is missing, truncated or altered.
    """
    folder = Path(folder)
    if os.path.isfile(folder):  # Path.is_file stops at a name that is too long
        raise CheckpointError(
            f"{folder}: is a file; a model is the folder of an export;"
            " `python -m hwsim random FILE --out DIR` makes one from a workload file"
        )
    manifest = _read_json(folder / MANIFEST_FILE)
    if manifest.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{folder / MANIFEST_FILE}: schema must be '{SCHEMA}', is {manifest.get('schema')!r};"
            " export again with `python -m qat export RUN --out MODEL`"
        )
    identity = _check_files(folder, manifest)
    data = _read_json(folder / GRAPH_FILE)
    arrays = _read_arrays(folder / WEIGHTS_FILE)
    try:
        graph = graph_from_json(data, arrays)
    except PackedDataError as fault:
        raise CheckpointError(f"{folder / WEIGHTS_FILE}: damaged: {fault}") from None
    except (AttributeError, KeyError, TypeError, ValueError, GraphError) as fault:
        text = f"{fault} is missing" if isinstance(fault, KeyError) else f"{fault}"
        raise CheckpointError(f"{folder / GRAPH_FILE}: damaged: {text}") from None
    samples = _read_samples(folder / SAMPLES_FILE, graph)
    record = _read_json(folder / RECORD_FILE) if (folder / RECORD_FILE).exists() else {}
    if record and record.get("model_sha256") != identity:
        raise CheckpointError(f"{folder / RECORD_FILE}: belongs to another model; export again")
    sizes = {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.is_file()}
    constants = {name: array.nbytes for name, array in arrays.items()}
    return Model(folder, graph, samples, record, identity, sizes, constants)


def _sample_tensors(samples: Samples) -> dict[str, npt.NDArray[Any]]:
    tensors = {f"inputs.{name}": np.ascontiguousarray(x) for name, x in samples.inputs.items()}
    if samples.labels is not None:
        tensors["labels"] = np.ascontiguousarray(samples.labels)
    if samples.lengths is not None:
        tensors["lengths"] = np.ascontiguousarray(samples.lengths)
    return tensors


def _read_samples(path: Path, graph: QuantGraph) -> Samples | None:
    if not path.exists():
        return None
    tensors = _read_arrays(path)
    missing = {f"inputs.{name}" for name in graph.inputs} - tensors.keys()
    if missing:
        raise CheckpointError(f"{path}: damaged: {', '.join(sorted(missing))} missing")
    inputs = {name: tensors[f"inputs.{name}"].astype(np.int64) for name in graph.inputs}
    lengths = tensors.get("lengths")
    faults = sample_faults(graph, inputs, lengths)
    if faults:
        raise CheckpointError("\n".join(f"{path}: damaged: {fault}" for fault in faults))
    return Samples(inputs, tensors.get("labels"), lengths)


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        arrays: dict[str, npt.NDArray[Any]] = load_file(path)
    except (SafetensorError, ValueError, KeyError) as fault:
        raise CheckpointError(f"{path}: damaged: {fault}") from None
    return arrays


def _check_files(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Compare every file with the manifest; return the model's SHA-256."""
    files = manifest.get("files")
    if not isinstance(files, dict) or not files.keys() >= set(IDENTITY_FILES):
        raise CheckpointError(
            f"{folder / MANIFEST_FILE}: damaged: `files` must list {' and '.join(IDENTITY_FILES)} with their hashes"
        )
    faults = [
        f"{folder / name}: not in the manifest's list of files; export the model again"
        for name in (SAMPLES_FILE, RECORD_FILE)
        if name not in files and (folder / name).exists()
    ]
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{path}: missing, though the manifest lists it")
        elif _sha256(path) != wanted:
            faults.append(
                f"{path}: altered or truncated: its SHA-256 must be {str(wanted)[:12]}..., is"
                f" {_sha256(path)[:12]}...; export the model again"
            )
    identity = _identity(files)
    if not faults and identity != manifest.get("model_sha256"):
        faults.append(
            f"{folder / MANIFEST_FILE}: its model_sha256 does not fit its own list of files"
        )
    if faults:
        raise CheckpointError("\n".join(faults))
    return identity


def _identity(hashes: Mapping[str, str]) -> str:
    text = "".join(f"{name} {hashes[name]}\n" for name in IDENTITY_FILES)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(
        json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n", encoding="utf-8"
    )


def _inner_model(folder: Path) -> str:
    """Return a hint at the model one folder below, where a study's node has it."""
    inner = sorted(path.parent for path in folder.glob(f"*/{GRAPH_FILE}"))
    return f"; did you mean {inner[0]}?" if inner else ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{path}: no such file; is {path.parent} an exported model?{_inner_model(path.parent)}"
        ) from None
    except (OSError, ValueError, RecursionError) as fault:
        raise CheckpointError(f"{path}: damaged: {fault}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: must be a JSON object, is a {type(data).__name__}")
    return data
