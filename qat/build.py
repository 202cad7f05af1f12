"""Models for a run: its teacher, and what its student starts from; new ones from a family's configuration."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hwsim.errors import ConfigError, nearest
from qat import checkpoint
from qat.config import NewModel, PretrainedModel, RunConfig
from qat.data.task import needs_tokenizer
from qat.pretrained import checkpoint_source, load_tokenizer, pretrained_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from qat.data.task import Problem, Task
    from qat.recipe import Recipe

DROPOUT_KEYS: Final = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "embd_pdrop",
    "attn_pdrop",
    "resid_pdrop",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
)


@dataclass(frozen=True, slots=True)
class Family:
    """The Hugging Face classes of one family, and the values that differ from theirs.

    `defaults` is the small model for scikit-learn's digits (vit) or a CPU-sized one. `initializer_range` 0.1
    and not Hugging Face's 0.02: so narrow a model learns several times faster from it. No dropout: a student
    is compared with its teacher tensor by tensor.
    """

    config: str
    models: Mapping[str, str]
    defaults: Mapping[str, Any]


_QUIET: Final = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_SMALL_IMAGES: Final = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 8,
    "patch_size": 2,
    "initializer_range": 0.1,
    **_QUIET,
}
MOST_PATCHES = 4096
"""of an image: one head's scores of two images then take 128 MB; those of 224 x 224 pixels in patches of 2 a hundred times as much"""
_SMALL_TEXTS: Final = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 512,
    "initializer_range": 0.1,
    **_QUIET,
}

FAMILIES: Final[Mapping[str, Family]] = {
    "vit": Family(
        config="ViTConfig",
        models={"classification": "ViTForImageClassification"},
        defaults=_SMALL_IMAGES,
    ),
    "deit": Family(
        config="DeiTConfig",
        models={"classification": "DeiTForImageClassification"},
        defaults=_SMALL_IMAGES,
    ),
    "bert": Family(
        config="BertConfig",
        models={
            "classification": "BertForSequenceClassification",
            "regression": "BertForSequenceClassification",
        },
        defaults=_SMALL_TEXTS,
    ),
    "roberta": Family(
        config="RobertaConfig",
        models={
            "classification": "RobertaForSequenceClassification",
            "regression": "RobertaForSequenceClassification",
        },
        defaults=_SMALL_TEXTS,
    ),
    "distilbert": Family(
        config="DistilBertConfig",
        models={
            "classification": "DistilBertForSequenceClassification",
            "regression": "DistilBertForSequenceClassification",
        },
        defaults={
            "dim": 128,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 512,
            "initializer_range": 0.1,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "seq_classif_dropout": 0.0,
        },
    ),
    "gpt2": Family(
        config="GPT2Config",
        models={"language": "GPT2LMHeadModel"},
        defaults={
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 128,
            "initializer_range": 0.1,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "resid_pdrop": 0.0,
        },
    ),
}


def new_model(spec: NewModel, task: Task) -> PreTrainedModel:
    """Return a model with random weights for this task. Raises ConfigError for an unknown key or a misfit."""
    family = FAMILIES[spec.family]
    if task.problem not in family.models:
        raise ConfigError(
            f"model.family: '{spec.family}' cannot do a {task.problem} task;"
            f" it does {', '.join(family.models)}"
        )
    clashes = [key for key in spec.config if key in task.model_config]
    if clashes:
        faults = [f"model.config.{key}: the task '{task.name}' dictates it" for key in clashes]
        raise ConfigError([*_unknown_keys(spec), *faults])
    text = task.processor is not None and hasattr(task.processor, "pad_token_id")
    vocabulary = _vocabulary(task) if text and "vocab_size" not in task.model_config else {}
    return shaped_model(spec, task.problem, {**vocabulary, **spec.config, **task.model_config})


def shaped_model(
    spec: NewModel, problem: Problem, values: Mapping[str, Any] | None = None
) -> PreTrainedModel:
    """Return a model with random weights, of the family's own sizes but for some `values` (the spec's, for None).

    Raises:
        ConfigError: an unknown key, or values that the family refuses.
    """
    import transformers

    faults = _unknown_keys(spec)
    if faults:
        raise ConfigError(faults)
    family = FAMILIES[spec.family]
    chosen = {**family.defaults, **(spec.config if values is None else values)}
    _check_patches(chosen)
    model_class = getattr(transformers, family.models[problem])
    try:
        model: PreTrainedModel = model_class(getattr(transformers, family.config)(**chosen))
    except ValueError as fault:
        raise ConfigError(f"model.config: {fault}") from None
    return model


def _check_patches(chosen: Mapping[str, Any]) -> None:
    """Refuse an image of very many patches: the families' own are of two pixels, for small images."""
    image, patch = chosen.get("image_size"), chosen.get("patch_size")
    if not isinstance(image, int) or not isinstance(patch, int) or patch < 1:
        return
    patches = (image // patch) ** 2
    if patches > MOST_PATCHES:
        raise ConfigError(
            f"model.config.patch_size: must make {MOST_PATCHES:,} patches at most of an image of {image} x {image}, not"
            f" {patches:,} of {patch} x {patch}; give a larger one (16 is ViT-base's)"
        )


def _unknown_keys(spec: NewModel) -> list[str]:
    """Say which keys of a specification the family's Hugging Face configuration does not know."""
    import transformers

    name = FAMILIES[spec.family].config
    known = list(getattr(transformers, name)().to_dict())
    return [
        f"model.config.{key}: {name} has no such key{nearest(key, known)}"
        for key in spec.config
        if key not in known
    ]


def _vocabulary(task: Task) -> dict[str, Any]:
    return {"vocab_size": len(task.processor), "pad_token_id": task.processor.pad_token_id}


# -- what a run's configuration asks for --------------------------------------------------------


def find_tokenizer(config: RunConfig) -> Any:
    """Return the tokenizer of the run's teacher or model, None where the task has no text.

    Raises ConfigError where neither comes with one.
    """
    if not needs_tokenizer(config.task):
        return None
    if config.teacher is not None:
        return load_tokenizer(config.teacher)
    if isinstance(config.model, PretrainedModel):
        return load_tokenizer(config.model.checkpoint)
    raise ConfigError("model: a text task needs a `checkpoint:` or a `teacher:` with a tokenizer")


def load_teacher(config: RunConfig, task: Task, recipe: Recipe) -> PreTrainedModel | None:
    """Return the run's teacher: the prepared model of a run of ours, or a plain Hugging Face model.

    A plain one without a classifier may lend its other weights; who learns from a teacher needs all of it.
    Raises CheckpointError as `pretrained_model` does.
    """
    if config.teacher is None:
        return None
    source = Path(checkpoint_source(config.teacher))
    if checkpoint.is_run(source):
        return checkpoint.load(source).model
    new_head = recipe.trains and not recipe.needs_teacher
    return pretrained_model(PretrainedModel(checkpoint=config.teacher), task, new_head=new_head)


def starting_model(
    config: RunConfig, task: Task, recipe: Recipe, teacher: PreTrainedModel | None
) -> PreTrainedModel:
    """Return the plain model that becomes the student; without a `model:` a copy of the teacher's weights.

    With `layers:` it has only those of the teacher's layers. Raises ConfigError where they do not fit, or where
    random weights would stay as they are; CheckpointError as `pretrained_model` does.
    """
    from qat.depth import check_layers
    from qat.methods.layer_reduction import depth, keep_layers
    from qat.student import is_prepared, restore

    if isinstance(config.model, NewModel):
        if not recipe.trains:
            raise ConfigError(
                f"model.family: recipe '{recipe.name}' trains nothing, and a new model has random weights:"
                " give a `checkpoint:`"
            )
        model = new_model(config.model, task)
    elif config.model is not None:
        model = pretrained_model(config.model, task, new_head=recipe.trains)
    else:
        assert teacher is not None  # RunConfig asks for one of the two
        model = teacher
    if is_prepared(model):  # a student of an earlier run: its latent weights
        model = restore(model)
    if config.layers is not None:
        assert teacher is not None  # RunConfig
        check_layers(config.layers, depth(teacher))
        if depth(model) != len(config.layers):
            model = keep_layers(model, config.layers)
    rate = config.train.dropout
    return model if rate is None else with_dropout(model, rate)


def with_dropout(model: PreTrainedModel, rate: float) -> PreTrainedModel:
    """Return a plain model with the same weights whose dropout rates, in its configuration too, are `rate`."""
    changed = copy.deepcopy(model.config)
    for key in DROPOUT_KEYS:
        if getattr(changed, key, None) is not None:
            setattr(changed, key, rate)
    new = type(model)(changed)
    new.load_state_dict(model.state_dict())
    return new


def teacher_sha256(config: RunConfig) -> str | None:
    """Return the SHA-256 of the teacher's weights file, None where it lies on the hub or there is none."""
    if config.teacher is None:
        return None
    path = Path(checkpoint_source(config.teacher)) / checkpoint.MODEL_FILE
    return checkpoint.file_sha256(path) if path.is_file() else None
