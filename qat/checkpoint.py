"""Runs on disk: what resumes, fine-tunes and loads again. No pickle; every file's SHA-256 is checked.

    RUN/config.json, model.safetensors, tokenizer or processor files    a Hugging Face folder of the kept step
    RUN/bitwright/run.json                                              configuration, recipe and its hash
    RUN/bitwright/manifest.json                                         SHA-256 of the files above
    RUN/bitwright/state-00000100/, best-00000080/                       an unfinished run's state, each with a manifest
    RUN/train.jsonl, RUN/result.json                                    log and final measurements

`model.safetensors` holds the latent float weights under Hugging Face's names and layout, so that
`AutoModel...from_pretrained` reads them, and the quantisers' tensors beside them. `load` puts both together.
Everything is written aside and renamed: a killed run leaves the old files or the new ones, never half of one.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hwsim.errors import CheckpointError
from qat.config import RunConfig, run_config, sha256
from qat.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from qat.data.task import Task

SCHEMA = "qat/checkpoint/1"
STATE_FOLDER = "bitwright"
RUN_FILE = "run.json"
MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.safetensors"
CHAIN_FILE = "chain.json"


@dataclass
class LoadedRun:
    """A finished run: the prepared model (in eval mode) and what it was made from."""

    folder: Path
    model: PreTrainedModel
    config: RunConfig
    recipe: Recipe
    config_sha256: str

    @cached_property
    def task(self) -> Task:
        """The data set, read on first use. Raises DataError."""
        from qat.data.task import load_task, needs_tokenizer
        from qat.pretrained import load_tokenizer

        spec = self.config.task
        return load_task(spec, load_tokenizer(str(self.folder)) if needs_tokenizer(spec) else None)


# -- files ------------------------------------------------------------------------------------


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON so that the file is there completely or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    temporary.write_text(text + "\n", "utf-8")
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of ours. Raises CheckpointError."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as fault:
        raise CheckpointError(f"{path}: damaged: {fault}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: must be a JSON object, is a {type(values).__name__}")
    return values


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write files into a new folder, add a manifest, and move it to `target` in one step."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    fill(temporary)
    names = sorted(path.name for path in temporary.iterdir())
    write_json(temporary / MANIFEST_FILE, _manifest(temporary, names))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)


def check_folder(folder: Path, manifest: Path | None = None) -> None:
    """Compare a folder's files with its manifest. Raises CheckpointError with every difference."""
    manifest = manifest or folder / MANIFEST_FILE
    values = read_json(manifest)
    if values.get("schema") != SCHEMA or not isinstance(values.get("files"), dict):
        raise CheckpointError(f"{manifest}: schema must be '{SCHEMA}', is '{values.get('schema')}'")
    faults = []
    for name, wanted in values["files"].items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{path}: missing, though the manifest lists it")
        elif file_sha256(path) != wanted:
            faults.append(f"{path}: altered or truncated: its SHA-256 is not the manifest's")
    if faults:
        raise CheckpointError("\n".join(faults))


def _manifest(folder: Path, names: list[str]) -> dict[str, Any]:
    return {"schema": SCHEMA, "files": {name: file_sha256(folder / name) for name in names}}


# -- models -----------------------------------------------------------------------------------


def model_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a prepared model's tensors: Hugging Face's names and layout, then the quantisers' own.

    Tensors that share storage (a tied head) appear once, under the first name.
    """
    from qat.student import restore

    plain = restore(model).state_dict()
    quantizers = {k: v for k, v in model.state_dict().items() if k not in plain}
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in {**plain, **quantizers}.items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.detach().cpu().contiguous().clone()
    return tensors


def write_model(folder: Path, model: PreTrainedModel, recipe: Recipe, processor: Any) -> None:
    """Write the Hugging Face folder of a prepared model: configuration, weights, processor."""
    from safetensors.torch import save_file

    write_config(folder, model, recipe, processor)
    save_file(model_tensors(model), folder / MODEL_FILE, metadata={"format": "pt"})


def write_config(folder: Path, model: PreTrainedModel, recipe: Recipe, processor: Any) -> None:
    """Write all of a prepared model's Hugging Face folder but the weights.

    `processor` is a tokenizer, an image processor or its settings as a mapping, or None.
    """
    from qat.hf.quantizer import BitwrightConfig

    config = restored_config(model)
    config["architectures"] = [type(model).__name__]
    if recipe.quantizes:
        config["quantization_config"] = BitwrightConfig(recipe).to_dict()
    write_json(folder / "config.json", config)
    if isinstance(processor, Mapping):
        write_json(folder / "preprocessor_config.json", processor)
    elif processor is not None:
        processor.save_pretrained(folder)


def input_names(model: PreTrainedModel) -> list[str]:
    """Return the names of a model's inputs."""
    names = inspect.signature(type(model).forward).parameters
    return [name for name in names if name not in ("self", "labels")]


def restored_config(model: PreTrainedModel) -> dict[str, Any]:
    """Return a model's Hugging Face configuration as JSON data, without any trace of the preparation."""
    values: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    # where the starting weights lay is nobody else's business, and would make two equal runs differ
    for key in (
        "quantization_config",
        "_attn_implementation",
        "attn_implementation",
        "_name_or_path",
    ):
        values.pop(key, None)
    return values


def read_model(folder: Path, recipe: Recipe) -> PreTrainedModel:
    """Return the prepared model of a folder that `write_model` wrote. Raises CheckpointError."""
    import transformers
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from qat.student import prepare

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model_class = getattr(transformers, config.architectures[0])
    plain: PreTrainedModel = model_class(config)
    path = folder / MODEL_FILE
    try:
        tensors = load_file(path)
    except SafetensorError as fault:
        raise CheckpointError(f"{path}: damaged: {fault}") from None
    names = set(plain.state_dict())
    load_tensors(plain, {k: v for k, v in tensors.items() if k in names}, path, names)
    model = prepare(plain, recipe)
    load_quantizers(model, {k: v for k, v in tensors.items() if k not in names}, path)
    return model.eval()


def load_quantizers(model: PreTrainedModel, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Load the quantisers' tensors, all of them and no other, into a prepared model. Raises CheckpointError."""
    from qat.student import restore

    own = set(model.state_dict()) - set(restore(model).state_dict())
    load_tensors(model, tensors, source, own)


def load_tensors(
    model: PreTrainedModel, tensors: Mapping[str, Tensor], source: Path, wanted: set[str]
) -> None:
    """Load tensors that must be exactly the `wanted` ones (a tied one may lack). Raises CheckpointError."""
    try:
        _, unexpected = model.load_state_dict(dict(tensors), strict=False)
    except RuntimeError as fault:
        raise CheckpointError(f"{source}: {fault}") from None
    tied = {name for group in _tied_names(model) if group & set(tensors) for name in group}
    faults = [f"{source}: no tensor '{name}'" for name in sorted(wanted - set(tensors) - tied)]
    faults += [f"{source}: tensor '{name}' fits nothing in the model" for name in unexpected]
    if faults:
        raise CheckpointError("\n".join(faults))


def _tied_names(model: PreTrainedModel) -> list[set[str]]:
    groups: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(parameter.data_ptr(), set()).add(name)
    return [names for names in groups.values() if len(names) > 1]


# -- runs -------------------------------------------------------------------------------------


def is_run(folder: Path) -> bool:
    """Say whether a folder was made by `python -m qat train`."""
    return (folder / STATE_FOLDER / RUN_FILE).is_file()


def is_vacant(folder: Path) -> bool:
    """Say whether a folder can take a new run or chain: not there, empty, or left by a start that was killed."""
    if not folder.exists():
        return True
    begun = {f".{CHAIN_FILE}.tmp", STATE_FOLDER}
    state = folder / STATE_FOLDER
    inside = {path.name for path in state.iterdir()} if state.is_dir() else set()
    return {path.name for path in folder.iterdir()} <= begun and inside <= {f".{RUN_FILE}.tmp"}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run is: its configuration, and the hashes of that and of the teacher's weights file."""

    config: RunConfig
    config_sha256: str
    teacher_sha256: str | None


def last_run(folder: Path) -> Path:
    """Return the folder of a chain's last stage (`qat.chain`); any other folder as it is.

    Raises:
        CheckpointError: the chain's file is damaged.
    """
    if not (folder / CHAIN_FILE).is_file():
        return folder
    runs = read_json(folder / CHAIN_FILE).get("runs")
    if not isinstance(runs, list) or not runs:
        raise CheckpointError(
            f"{folder / CHAIN_FILE}: damaged: `runs` must list the stages' folders"
        )
    return folder / str(runs[-1])


def write_run_file(folder: Path, values: Mapping[str, Any], teacher_sha256: str | None) -> None:
    """Write down what a run is, before it starts. `values` is the configuration in full."""
    (folder / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    content = {
        "schema": SCHEMA,
        "config_sha256": sha256(values),
        "teacher_sha256": teacher_sha256,
        "config": values,
    }
    write_json(folder / STATE_FOLDER / RUN_FILE, content)


def read_run_file(folder: Path) -> RunRecord:
    """Return what a run is. Raises CheckpointError for a folder that is no run."""
    path = folder / STATE_FOLDER / RUN_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder}: not a run of `python -m qat train` ({path} is missing)")
    values = read_json(path)
    if values.get("schema") != SCHEMA:
        raise CheckpointError(f"{path}: schema must be '{SCHEMA}', is '{values.get('schema')}'")
    try:
        config = run_config(values["config"])
    except (KeyError, ValidationError) as fault:
        raise CheckpointError(f"{path}: damaged: {fault}") from None
    if sha256(values["config"]) != values.get("config_sha256"):
        raise CheckpointError(f"{path}: altered: the configuration's SHA-256 is not config_sha256")
    return RunRecord(config, values["config_sha256"], values.get("teacher_sha256"))


def write_final_model(folder: Path, model: PreTrainedModel, recipe: Recipe, processor: Any) -> None:
    """Put the kept model's files into the run's folder, the manifest last."""
    staging = folder / STATE_FOLDER / "final"
    write_folder(staging, lambda path: write_model(path, model, recipe, processor))
    (staging / MANIFEST_FILE).unlink()
    names = sorted(path.name for path in staging.iterdir())
    for name in names:
        os.replace(staging / name, folder / name)
    staging.rmdir()
    write_json(folder / STATE_FOLDER / MANIFEST_FILE, _manifest(folder, names))


def load(run_dir: Path | str) -> LoadedRun:
    """Load a finished run; of a chain, its last stage.

    Raises CheckpointError: not a run, not finished, a file missing, truncated or altered.
    """
    folder = last_run(Path(run_dir))
    record = read_run_file(folder)
    config = record.config
    manifest = folder / STATE_FOLDER / MANIFEST_FILE
    if not manifest.is_file():
        raise CheckpointError(f"{folder}: the run is not finished: train it again to resume it")
    check_folder(folder, manifest)
    if isinstance(config.recipe, str):
        raise CheckpointError(f"{folder}: the stored configuration must hold its recipe in full")
    model = read_model(folder, config.recipe)
    return LoadedRun(folder, model, config, config.recipe, record.config_sha256)
