"""The description of a whole machine."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    SerializeAsAny,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from hwsim import registry
from hwsim.arch import (  # noqa: F401  (importing a built-in array registers it)
    bit_serial_array,
    int_array,
    lut_array,
    multi_mode_array,
    stationary_array,
    systolic_array,
    ternary_array,
    unrolled_array,
    xnor_array,
)
from hwsim.arch.component import ArrayComponent, ArraySpec
from hwsim.arch.dram import DmaSpec, DramSpec
from hwsim.arch.machine_checks import Fault, find_faults
from hwsim.arch.memory import MemorySpec
from hwsim.arch.spec import Count, Quantity, Spec
from hwsim.arch.targets import ValidationTargetSpec
from hwsim.arch.vector_unit import VectorUnitSpec

SCHEMA = "hwsim/accelerator/1"
Positive = Annotated[float, Field(gt=0)]


def array_class(kind: object) -> type[ArrayComponent]:
    """Return the array component registered for a kind.

    Raises:
        KeyError: no such kind; the message lists the known ones.
    """
    return cast("type[ArrayComponent]", registry.lookup("array", str(kind)))


class _RegisteredArrays:
    """Annotation: the JSON Schema of an array is that of any registered kind."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        specs = [array_class(kind).spec_class for kind in registry.kinds("array")]
        return {"oneOf": [handler(spec.__pydantic_core_schema__) for spec in specs]}


def _read_array(value: object) -> object:
    if not isinstance(value, dict):
        return value  # the model itself reports what it wants
    if "kind" not in value:
        known = ", ".join(registry.kinds("array"))
        raise PydanticCustomError(
            "array_kind", "needs the key 'kind', one of {known}", {"known": known}
        )
    try:
        spec_class = array_class(value["kind"]).spec_class
    except KeyError as error:
        raise ValidationError.from_exception_data(
            "array",
            [
                InitErrorDetails(
                    type=PydanticCustomError("array_kind", "{text}", {"text": error.args[0]}),
                    loc=("kind",),
                    input=value["kind"],
                )
            ],
        ) from None
    return spec_class.model_validate(value)


AnyArraySpec = Annotated[SerializeAsAny[ArraySpec], BeforeValidator(_read_array), _RegisteredArrays]


class TechnologySpec(Spec):
    """The process that all numbers of the file refer to."""

    node_nm: Positive
    """process node in nanometres"""
    voltage_v: Positive
    """supply voltage in volts"""


class RolesSpec(Spec):
    """Which on-chip memory feeds which operand."""

    activation: str
    """memory that feeds the rows of the arrays and the vector unit"""
    weight: str
    """memory that feeds the columns of the arrays"""
    output: str
    """memory that takes results"""


class IdleSpec(Spec):
    """What a cycle costs although nothing useful happens in it."""

    clock_pj_per_cycle: Quantity
    """pJ of the clock tree in each cycle of an ungated component that waits"""


class OperatingPointSpec(Spec):
    """A voltage and clock at which the machine can be run. Voltage is never scaled silently."""

    name: str
    """name to select it by"""
    voltage_v: Positive
    """supply voltage in volts"""
    clock_hz: Count
    """core clock in hertz"""
    dynamic_scale: Positive
    """factor on every dynamic energy"""
    leakage_scale: Positive
    """factor on every leakage power"""


StageOperator = Literal["requant", "threshold", "table", "max_pool"]
"""each needs one result of a product, or those of one window"""


class MachineSpec(Spec):
    """Description of a machine."""

    schema_: Literal["hwsim/accelerator/1"] = Field(alias="schema")
    """version of this layout"""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    """name in results"""
    description: Annotated[str, Field(min_length=1)]
    """one line for `hwsim list`"""
    technology: TechnologySpec
    """process node and supply voltage"""
    clock_hz: Count
    """core clock in hertz"""
    arrays: Annotated[
        dict[str, AnyArraySpec],
        Field(min_length=1),
    ]
    """compute arrays; a product runs on the first that supports its formats"""
    vector_unit: VectorUnitSpec | None = None
    """everything that is not a contraction"""
    output_stage: list[StageOperator] = Field(default_factory=list)
    """operators that an array applies to its own results before it stores them"""
    memories: Annotated[dict[str, MemorySpec], Field(min_length=1)]
    """on-chip memories"""
    dram: DramSpec
    """off-chip memory"""
    dma: DmaSpec
    """DMA engine"""
    roles: RolesSpec
    """which memory feeds which operand"""
    control_pj_per_step: Quantity | None = None
    """pJ to issue one load, compute or store step"""
    idle: IdleSpec | None = None
    """cost of waiting; without it the report says that the machine has no idle term"""
    not_modelled: list[str]
    """what the numbers leave out; printed in every report"""
    validation: list[ValidationTargetSpec] = Field(default_factory=list)
    """published figures to hold the model against"""
    operating_points: list[OperatingPointSpec] = Field(default_factory=list)
    """other voltages and clocks"""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> MachineSpec:
        faults = find_faults(self)
        if faults:
            raise ValidationError.from_exception_data("machine", [_detail(f) for f in faults])
        return self


def _detail(fault: Fault) -> InitErrorDetails:
    error = PydanticCustomError("machine", "{text}", {"text": fault.text, "of_key": fault.of_key})
    return InitErrorDetails(type=error, loc=fault.path, input=None)
