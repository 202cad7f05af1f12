"""Formats: what a recipe quantises and how. Plain frozen data without torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from hwsim.graph.dtype import parse
from qat.spec import Strict

Role = Literal[
    "q", "k", "v", "o", "ffn1", "ffn2", "pooler", "classifier", "patch", "word_embedding"
]
LINEAR_ROLES: tuple[Role, ...] = ("q", "k", "v", "o", "ffn1", "ffn2")
ATTENTION_KEYS = ("query", "key", "value", "probabilities")
Rounding = Literal["half_up", "half_even"]


def _number_type(name: str) -> str:
    return parse(name).name


Format = Annotated[str, AfterValidator(_number_type)]


class BitSchedule(Strict):
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


class WeightSpec(Strict):
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


class ActivationSpec(Strict):
    """How an activation is quantised; see `qat.quantizers.activation`."""

    format: Format
    range: Literal["dynamic", "learned", "unit"]
    """`unit`: the sign at scale 1, nothing learned"""
    granularity: Literal["tensor", "token"] = "tensor"
    shift: bool = False
    clip: float = Field(0.0, ge=0)
    rounding: Rounding = "half_up"
    start: Literal["lsq", "mean"] = "lsq"
    """first alpha of a learned range: LSQ's, twice as far, or (1 bit only) the mean that fits best"""

    @model_validator(mode="after")
    def _start_fits(self) -> Self:
        dtype = parse(self.format)
        if self.start == "mean" and (self.range != "learned" or dtype.bits > 1):
            raise ValueError(
                "start 'mean' must have range 'learned' and format BIPOLAR or UNIPOLAR"
            )
        return self

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


class OperatorSpec(Strict):
    """A weight matmul: its weight and its input; null leaves that side in float32."""

    weight: WeightSpec | None = None
    input: ActivationSpec | None = None


class _AttentionOperands(Strict):
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


class QuantizationSpec(Strict):
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
    def _a_bool_map_stays_bits(self) -> Self:
        given = any(o.given.get("probabilities") is not None for o in self.overrides)
        if self.attention.map == "bool" and given:
            raise ValueError("overrides must give no probabilities where attention.map is 'bool'")
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
