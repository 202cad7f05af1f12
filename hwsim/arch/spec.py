"""What every machine part's description is made of: strict frozen models and quantities with provenance."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from hwsim.units import parse_capacity_bytes

Provenance = Literal["measured", "post_layout", "post_synth", "model", "assumed"]
Scope = Literal["datapath", "core", "macro", "soc", "board"]

MOST = 10**15
"""No count of a machine is larger, so that sums of a few products of them fit 64 bits."""
Count = Annotated[int, Field(gt=0, le=MOST)]
"""a positive whole number"""
NonNegative = Annotated[int, Field(ge=0, le=MOST)]
"""a whole number, zero allowed"""


def _capacity(value: object) -> int:
    try:
        return parse_capacity_bytes(value)
    except ValueError as error:
        raise PydanticCustomError("capacity", "{text}", {"text": str(error)}) from None


CapacityBytes = Annotated[
    int,
    BeforeValidator(_capacity),
    Field(le=MOST),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "exclusiveMinimum": 0, "maximum": MOST},
                {"type": "string", "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB)$"},
            ],
            "examples": ["64KiB", "2MiB"],
        }
    ),
]
"""bytes; a YAML file may write `64KiB`"""


class Spec(BaseModel):
    """Base of every description read from a file: nothing unknown, nothing converted, nothing changed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Quantity(Spec):
    """A physical number with its bounds and where it comes from. The unit is in the name of its key."""

    model_config = ConfigDict(
        json_schema_extra={
            "required": ["value", "kind", "source"],
            "examples": [{"value": 2.5, "low": 1.25, "high": 7.5, "kind": "assumed", "source": ""}],
        }
    )

    value: float
    """nominal value, in the unit that the key names"""
    low: float
    """lower bound; equals `value` when not given"""
    high: float
    """upper bound; equals `value` when not given"""
    kind: Provenance
    """how the number was obtained"""
    source: Annotated[str, Field(min_length=1)]
    """the publication, table or reasoning it rests on"""
    shared: str | None = None
    """name common to all quantities that are one physical unknown: they get the same draw"""
    scope: Scope = "datapath"
    """what the published figure covers"""
    split: str | None = None
    """how a figure of a wider scope was divided so that nothing is counted twice"""
    calibrated_by: str | None = None
    """the validation target that set this number; that target then proves nothing"""

    @model_validator(mode="before")
    @classmethod
    def _fill_bounds(cls, data: object) -> object:
        if not isinstance(data, dict):
            if isinstance(data, cls):
                return data
            raise PydanticCustomError(
                "provenance",
                "must be a mapping with value, kind and source (a bare number has no provenance),"
                " not {shown}",
                {"shown": repr(data)},
            )
        value = data.get("value")
        is_number = isinstance(value, int | float) and math.isfinite(value)
        # A value that is no number is one fault, not three: the bounds then only keep silent.
        bound = value if is_number else 1.0
        return {"low": bound, "high": bound, **data}

    @model_validator(mode="after")
    def _bounds_enclose_value(self) -> Quantity:
        if not self.low <= self.value <= self.high:
            raise ValueError(
                f"must have low <= value <= high, not {self.low:g}, {self.value:g}, {self.high:g}"
            )
        if self.low < 0 or (self.low == 0 < self.high):
            raise ValueError(
                "must have low > 0, or low = high = 0 (draws are log-uniform),"
                f" not low = {self.low:g}, high = {self.high:g}"
            )
        return self

    def scaled(self, factor: float) -> Quantity:
        """Return the quantity multiplied by an exact known factor: same provenance, same draw.

        Raises:
            ValueError: the factor is not positive and finite.
        """
        if not (factor > 0 and math.isfinite(factor)):
            raise ValueError(f"a scale factor must be positive and finite, not {factor!r}")
        if factor == 1:
            return self
        return self.model_copy(
            update={
                "value": self.value * factor,
                "low": self.low * factor,
                "high": self.high * factor,
            }
        )
