"""Recipes: what is quantised how, what the student learns from, and how it is optimised.

Plain frozen data without torch. A recipe is a YAML file (`qat/recipes/NAME.yaml`) or inline in a run's
configuration; unknown keys are errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from hwsim.errors import ConfigError, nearest
from qat.formats import ATTENTION_KEYS, QuantizationSpec
from qat.spec import Strict


class LogitLoss(Strict):
    """Soft cross-entropy against the teacher's logits (mean squared error for regression).

    `reduction` over the classes; over the batch it is always the mean. `sum` is num_classes x `mean`.
    """

    weight: float = Field(1.0, gt=0)
    reduction: Literal["sum", "mean"]
    temperature: float = Field(1.0, gt=0)


class TermLoss(Strict):
    """One term of the objective, added with this weight."""

    weight: float = Field(1.0, gt=0)


class OutputLoss(TermLoss):
    """Attention output against the teacher's: on the projection's result or after the layer norm."""

    on: Literal["ao", "post_ln"]


class ObjectiveSpec(Strict):
    """Terms of the loss; null leaves one out. Hidden states, scores and outputs: sum over layers of the
    mean squared error over elements."""

    labels: TermLoss | None = None
    logits: LogitLoss | None = None
    hidden: TermLoss | None = None
    scores: TermLoss | None = None
    output: OutputLoss | None = None
    similarity: TermLoss | None = None
    padding: Literal["excluded", "counted"] = "excluded"
    """`counted` averages over padded positions too (masked scores as zeros), as the released codes do."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not self.labels and not self.needs_teacher:
            raise ValueError(
                "at least one of labels, logits, hidden, scores, output, similarity must be given"
            )
        return self

    @property
    def needs_teacher(self) -> bool:
        """Whether a term compares with a teacher."""
        return any((self.logits, self.hidden, self.scores, self.output, self.similarity))


class _Method(Strict):
    @classmethod
    def model_for(cls, data: object) -> type[_Method] | None:
        """Return the method that a mapping names: its keys are the ones that a message lists."""
        name = data.get("name") if isinstance(data, dict) else None
        methods = _Method.__subclasses__()
        return next(
            (m for m in methods if name in get_args(m.model_fields["name"].annotation)), None
        )


class TeacherIntervention(_Method):
    """Two-step training: `length` of all steps with the teacher injected, then plain distillation.

    Optimiser and learning-rate schedule restart between the steps. Mode `none` restarts but injects
    nothing: the control that every comparison needs.
    """

    name: Literal["teacher_intervention"]
    mode: Literal["output", "context", "map", "gradual", "inverted", "stochastic", "none"] = (
        "gradual"
    )
    steps: int | None = Field(None, gt=0)
    fraction: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.fraction is None):
            raise ValueError("exactly one of steps and fraction must be given")
        return self


class SmoothQuant(_Method):
    """Frozen weights behind channel scales in closed form (`qat.methods.smoothquant`); learned ranges train.

    `migration` is the share of the activations' range that moves into the weights, the lambda of its formula.
    """

    name: Literal["smoothquant"]
    migration: float = Field(0.5, ge=0, le=1)

    @property
    def smoothing(self) -> float | None:
        """Migration of the first channel scales, None where they start at 1."""
        return self.migration


class Quadapter(_Method):
    """Frozen weights behind learned channel scales (`qat.methods.quadapter`), in two phases.

    Phase one, `blockwise_steps` steps or `blockwise_fraction` of all, calibrates each block by itself on the float
    model's input of that block; phase two trains the recipe's objective end to end. Optimiser and learning-rate
    schedule restart between them. 0 leaves phase one out, a fraction of 1 phase two.
    `migration` belongs to `init: smoothquant`; with `ones` the student starts as the plainly quantised model.
    """

    name: Literal["quadapter"]
    init: Literal["ones", "smoothquant"] = "ones"
    migration: float = Field(0.5, ge=0, le=1)
    blockwise_steps: int | None = Field(None, ge=0)
    blockwise_fraction: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.blockwise_steps is None) == (self.blockwise_fraction is None):
            raise ValueError("exactly one of blockwise_steps and blockwise_fraction must be given")
        return self

    @property
    def smoothing(self) -> float | None:
        """Migration of the first channel scales, None where they start at 1."""
        return self.migration if self.init == "smoothquant" else None


MethodSpec = Annotated[TeacherIntervention | Quadapter | SmoothQuant, Field(discriminator="name")]


class OptimizerSpec(Strict):
    """Optimiser and learning-rate rules.

    Parameters named `*.alpha` form their own group (`alpha_learning_rate`, no decay); biases, layer
    norms, shifts and channel scales have no decay. The rate rises linearly over `warmup_fraction` of the steps and
    falls linearly to 0.
    """

    name: Literal["adamw", "bert_adam"]
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    alpha_learning_rate: float | None = Field(None, gt=0)


class Recipe(Strict):
    """One way to train a student (or, with nothing quantised, a teacher)."""

    schema_: Literal["qat/recipe/1"] = Field(alias="schema")
    name: str
    description: str
    quantization: QuantizationSpec = QuantizationSpec()
    activation_function: Literal["relu"] | None = None
    """Replaces the feed-forward activation; null keeps the model's own."""
    objective: ObjectiveSpec | None = None
    method: MethodSpec | None = None
    optimizer: OptimizerSpec | None = None
    """Objective and optimiser, or neither: then nothing is trained (`qat.post_training`)."""
    freeze_ranges: float = Field(0.2, ge=0, lt=1)
    """Dynamic ranges become constants for this last share of the steps; 0 never freezes them."""
    teacher_mode: Literal["eval", "train"] = "eval"
    """`train` leaves the teacher's dropout on, as one released code does."""

    @model_validator(mode="after")
    def _trains_or_not(self) -> Self:
        if (self.objective is None) != (self.optimizer is None):
            raise ValueError("both of objective and optimizer must be given, or neither")
        if self.objective is None and not isinstance(self.method, SmoothQuant | None):
            raise ValueError(f"method {self.method.name} needs objective and optimizer")
        return self

    @model_validator(mode="after")
    def _method_fits(self) -> Self:
        output = None if self.objective is None else self.objective.output
        if self.channel_scaling is not None and output is not None and output.on == "post_ln":
            raise ValueError(
                "objective.output.on must be 'ao', not 'post_ln': channel scales change what layer norms yield"
            )
        bits = self.quantization.attention.map == "bool"
        if bits and isinstance(self.method, TeacherIntervention):
            raise ValueError("teacher intervention must have attention.map 'softmax', not 'bool'")
        return self

    @property
    def trains(self) -> bool:
        """Whether there is anything to learn."""
        return self.objective is not None

    @property
    def channel_scaling(self) -> Quadapter | SmoothQuant | None:
        """The method, where it is one that scales channels in front of frozen weights."""
        return self.method if isinstance(self.method, Quadapter | SmoothQuant) else None

    @property
    def needs_teacher(self) -> bool:
        """Whether objective or method need a teacher's tensors."""
        terms = self.objective is not None and self.objective.needs_teacher
        return terms or isinstance(self.method, TeacherIntervention | Quadapter)

    @property
    def quantizes(self) -> bool:
        """Whether anything is quantised at all."""
        quantization = self.quantization
        return quantization != QuantizationSpec()

    @property
    def batch_dependent(self) -> bool:
        """Whether outputs depend on the batch's composition: some range is dynamic per tensor."""
        q = self.quantization
        specs = [q.linear.input, *(r.input for r in q.roles.values())]
        specs += [getattr(a, key) for a in (q.attention, *q.overrides) for key in ATTENTION_KEYS]
        specs += [override.input for override in q.overrides]
        return any(
            s is not None and s.range == "dynamic" and s.granularity == "tensor" for s in specs
        )


def recipes_folder() -> Path:
    """The folder of the recipes that come with the package."""
    return Path(str(files("qat") / "recipes"))


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in recipes_folder().glob("*.yaml"))


def find_recipe(name_or_path: str | Path) -> Path:
    """Return the file of a recipe given by a shipped recipe's name or by a path.

    Raises:
        ConfigError: neither; the nearest name is suggested.
    """
    text = str(name_or_path)
    path = recipes_folder() / f"{text}.yaml" if text in recipe_names() else Path(name_or_path)
    if not path.is_file():
        raise ConfigError(
            f"recipe must be a YAML file or one of {', '.join(recipe_names())}, not {text!r}"
            f"{nearest(text, recipe_names())}"
        )
    return path


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or from a YAML file.

    Args:
        name_or_path: a shipped recipe's name, or a file (which may say `extends: NAME`).
        overrides: texts `a.b.c=value`.

    Raises:
        ConfigError: unknown name (with the nearest one), or anything wrong in the file, with its place.
    """
    from hwsim.config.load import load_spec

    return load_spec(find_recipe(name_or_path), Recipe, overrides, presets=recipes_folder())
