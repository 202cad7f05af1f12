"""Recipes: what is quantised how, what the student learns from, and how it is optimised.

Plain frozen data without torch. A recipe is a YAML file (`qat/recipes/NAME.yaml`) or inline in a run's
configuration; unknown keys are errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from hwsim.errors import ConfigError, nearest
from hwsim.graph.dtype import parse

Role = Literal[
    "q", "k", "v", "o", "ffn1", "ffn2", "pooler", "classifier", "patch", "word_embedding"
]
LINEAR_ROLES: tuple[Role, ...] = ("q", "k", "v", "o", "ffn1", "ffn2")
ATTENTION_KEYS = ("query", "key", "value", "probabilities")
Rounding = Literal["half_up", "half_even"]


def _number_type(name: str) -> str:
    return parse(name).name


Format = Annotated[str, AfterValidator(_number_type)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class BitSchedule(_Spec):
    """More bits at first: `start_bits`, and from step `offset` on one bit less after every `period` steps, down to
    those of the weight's format (DeepSpeed's and XTC's `start_bits -> target_bits`).

    Three bits and more are symmetric integers (`absmax`), two on the way to one are ternary (`twn`).
    """

    start_bits: int = Field(ge=2, le=16)
    period: int = Field(ge=1)
    offset: int = Field(0, ge=0)

    def bits(self, step: int, target: int) -> int:
        """Bits during the update number `step` (0-based)."""
        return max(target, self.start_bits - max(0, step - self.offset) // self.period)

    def end(self, target: int) -> int:
        """First step at the weight's own format."""
        return self.offset + (self.start_bits - target) * self.period


class WeightSpec(_Spec):
    """How a weight is quantised; see `qat.quantizers.weight`."""

    format: Format
    method: Literal["twn", "bwn", "bwn_centred", "bwn_row_centred", "absmax", "lsq"]
    granularity: Literal["tensor", "row"] = "tensor"
    threshold: float = Field(0.7, gt=0)
    clip: float = Field(0.0, ge=0)
    schedule: BitSchedule | None = None

    @model_validator(mode="after")
    def _schedule_starts_above_the_format(self) -> Self:
        bits = parse(self.format).bits
        if self.schedule is not None and self.schedule.start_bits <= bits:
            raise ValueError(
                f"schedule.start_bits must be more than the {bits} of {self.format},"
                f" not {self.schedule.start_bits}"
            )
        return self

    @model_validator(mode="after")
    def _format_fits_method(self) -> Self:
        kind = parse(self.format).kind
        wanted = {"twn": "ternary", "absmax": "int", "lsq": "int"}.get(self.method, "bipolar")
        if kind != wanted:
            need = {"ternary": "TERNARY", "int": "INTn"}.get(wanted, "BIPOLAR")
            raise ValueError(f"method {self.method} must have format {need}, not {self.format}")
        plain = self.granularity == "tensor" and self.clip == 0 and self.schedule is None
        if self.method == "lsq" and not plain:
            raise ValueError("method lsq must have granularity 'tensor', no clip and no schedule")
        return self


class ActivationSpec(_Spec):
    """How an activation is quantised; see `qat.quantizers.activation`."""

    format: Format
    range: Literal["dynamic", "learned", "unit"]
    """`unit`: the sign at scale 1, nothing learned"""
    granularity: Literal["tensor", "token"] = "tensor"
    shift: bool = False
    clip: float = Field(0.0, ge=0)
    rounding: Rounding = "half_up"

    @model_validator(mode="after")
    def _range_fits(self) -> Self:
        kind = parse(self.format).kind
        if self.range == "unit":
            if kind != "bipolar" or self.shift or self.clip > 0 or self.granularity == "token":
                raise ValueError(
                    "range 'unit' must have format BIPOLAR, without shift, clip or granularity"
                )
        elif self.range == "dynamic":
            if kind not in ("int", "uint"):
                raise ValueError(
                    f"a dynamic range must have format INTn or UINTn, not {self.format}"
                )
            if self.shift:
                raise ValueError("a shift must have range 'learned', not 'dynamic'")
        else:
            if kind == "ternary":
                raise ValueError(
                    "a learned range must have format BIPOLAR, UNIPOLAR, INTn or UINTn"
                )
            if self.granularity == "token" or self.clip > 0:
                raise ValueError("granularity 'token' and clip must have range 'dynamic'")
        return self


class OperatorSpec(_Spec):
    """A weight matmul: its weight and its input; null leaves that side in float32."""

    weight: WeightSpec | None = None
    input: ActivationSpec | None = None


class _AttentionOperands(_Spec):
    query: ActivationSpec | None = None
    key: ActivationSpec | None = None
    value: ActivationSpec | None = None
    probabilities: ActivationSpec | None = None

    @model_validator(mode="after")
    def _one_scale_along_the_reduction(self) -> Self:
        for name in ("key", "value"):
            spec: ActivationSpec | None = getattr(self, name)
            if spec is not None and spec.granularity == "token":
                raise ValueError(f"{name} must have granularity 'tensor': tokens are reduced over")
        return self


class AttentionSpec(_AttentionOperands):
    """The operands of the two attention matmuls; null leaves one in float32.

    `map: bool` is attention without a softmax (BiBERT's bi-attention): the second product's left operand is 1
    where a score is above 0, else 0.
    """

    map: Literal["softmax", "bool"] = "softmax"

    @model_validator(mode="after")
    def _a_bool_map_is_codes_already(self) -> Self:
        if self.map == "bool" and self.probabilities is not None:
            raise ValueError("probabilities must be null where map is 'bool': its bits are codes")
        return self


class ModuleOverride(_AttentionOperands):
    """Formats of the modules whose name matches a pattern, whatever their role has.

    In `modules`, `*` stands for any text, dots included, `?` for one character, `[01]` for one of these.
    A key that is left out changes nothing, null leaves that operand in float32. `weight` and `input` are those of
    linear layers, the patch projection and (weight only) the word embedding; the others those of attention modules.
    """

    modules: str = Field(min_length=1)
    weight: WeightSpec | None = None
    input: ActivationSpec | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.given:
            keys = ", ".join(("weight", "input", *ATTENTION_KEYS))
            raise ValueError(f"at least one of {keys} must be given")
        return self

    @property
    def given(self) -> dict[str, WeightSpec | ActivationSpec | None]:
        """The keys that the override sets."""
        keys = ("weight", "input", *ATTENTION_KEYS)
        return {key: getattr(self, key) for key in keys if key in self.model_fields_set}

    @model_serializer(mode="wrap")
    def _without_keys_left_out(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in whole(self).items() if key in self.model_fields_set}


class QuantizationSpec(_Spec):
    """Everything that is quantised. `linear` holds for q, k, v, o, ffn1 and ffn2 unless `roles` says else, and
    `overrides` replace both for the modules that they name, later ones what earlier ones say."""

    linear: OperatorSpec = OperatorSpec()
    roles: dict[Role, OperatorSpec] = Field(default_factory=dict)
    attention: AttentionSpec = AttentionSpec()
    word_embedding: WeightSpec | None = None
    overrides: Annotated[tuple[ModuleOverride, ...], Field(strict=False)] = ()
    residual: Format | None = None
    """INTn: the student's residual stream, its branches and layer-norm outputs lie on power-of-two grids of
    this format, as the integer graph's do. null leaves them in float32."""

    @model_validator(mode="after")
    def _embedding_has_its_own_key(self) -> Self:
        if "word_embedding" in self.roles:
            raise ValueError("roles must not hold word_embedding: it has its own key")
        patch = self.roles.get("patch", OperatorSpec())
        if (patch.weight is None) != (patch.input is None):
            raise ValueError("roles.patch must have both weight and input, or neither")
        return self

    @model_validator(mode="after")
    def _residual_is_exact_in_float32(self) -> Self:
        if self.residual is not None:
            dtype = parse(self.residual)
            if dtype.kind != "int" or not 8 <= dtype.bits <= 20:
                raise ValueError(f"residual must have format INT8 to INT20, not {self.residual}")
        return self

    def operator(self, role: Role) -> OperatorSpec:
        """What holds for a role."""
        if role in self.roles:
            return self.roles[role]
        return self.linear if role in LINEAR_ROLES else OperatorSpec()


class LogitLoss(_Spec):
    """Soft cross-entropy against the teacher's logits (mean squared error for regression).

    `reduction` over the classes; over the batch it is always the mean. `sum` is num_classes x `mean`.
    """

    weight: float = Field(1.0, gt=0)
    reduction: Literal["sum", "mean"]
    temperature: float = Field(1.0, gt=0)


class TermLoss(_Spec):
    """One term of the objective, added with this weight."""

    weight: float = Field(1.0, gt=0)


class OutputLoss(TermLoss):
    """Attention output against the teacher's: on the projection's result or after the layer norm."""

    on: Literal["ao", "post_ln"]


class ObjectiveSpec(_Spec):
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


class _Method(_Spec):
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


class OptimizerSpec(_Spec):
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


class Recipe(_Spec):
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
        if self.objective is None and not self.quantizes:
            raise ValueError("a recipe without objective and optimizer must quantise something")
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


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or from a YAML file.

    Args:
        name_or_path: a shipped recipe's name, or a file (which may say `extends: NAME`).
        overrides: texts `a.b.c=value`.

    Raises:
        ConfigError: unknown name (with the nearest one), or anything wrong in the file, with its place.
    """
    from hwsim.config.load import load_spec

    text = str(name_or_path)
    path = recipes_folder() / f"{text}.yaml" if text in recipe_names() else Path(name_or_path)
    if not path.is_file():
        raise ConfigError(
            f"recipe must be a YAML file or one of {', '.join(recipe_names())}, not {text!r}"
            f"{nearest(text, recipe_names())}"
        )
    return load_spec(path, Recipe, overrides, presets=recipes_folder())
