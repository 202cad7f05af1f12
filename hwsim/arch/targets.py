"""Published figures that a machine is held against: what is asked, and what was published."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwsim.arch.component import FormatName
from hwsim.arch.spec import Scope, Spec

PEAK = "peak"
"""the workload of a figure that holds for full use of an array"""

Metric = Literal["cycles", "ms", "fps", "gops", "uj", "fj_per_op", "tops_w"]
ENERGY_METRICS = ("uj", "fj_per_op", "tops_w")

Part = Literal["array", "vector", "memory", "control", "dma", "dram"]
"""a kind of component in the energy ledger; its leakage and idle clock belong to it"""

_PARTS_OF_SCOPE: dict[str, tuple[str, ...]] = {
    "datapath": ("array", "vector"),
    "core": ("array", "vector", "control", "memory"),
    "macro": ("array", "vector", "control", "memory"),
    "soc": ("array", "vector", "control", "memory", "dma"),
    "board": ("array", "vector", "control", "memory", "dma", "dram"),
}


class ModeSpec(Spec):
    """Formats of both operands."""

    activation: FormatName
    """format of the activation"""
    weight: FormatName
    """format of the weight"""


class QuestionSpec(Spec):
    """What a target asks, without the answer: all that a prediction may see."""

    name: Annotated[str, Field(min_length=1)]
    """short name, the target's identity within its machine"""
    workload: Annotated[str, Field(min_length=1)]
    """`peak`, a shipped workload's name, or a workload file beside the machine's"""
    mode: ModeSpec | None = None
    """formats of a peak"""
    operating_point: str | None = None
    """operating point of the figure; the file's own voltage and clock when not given"""
    engines: list[str] = Field(default_factory=list)
    """one array for each layer of the workload: they work as a pipeline, and the slowest sets the rate"""
    metric: Metric
    """quantity and unit: `ms` is the latency, `fps` inferences a second, `uj` microjoules an inference"""
    scope: Scope
    """what the published figure covers"""
    includes: list[Part] = Field(default_factory=list)
    """components whose energy the figure contains; only for energies"""

    @model_validator(mode="after")
    def _asks_something(self) -> QuestionSpec:
        if (self.mode is not None) != (self.workload == PEAK):
            raise ValueError("must have a mode where the workload is peak, and only there")
        if self.engines and self.metric not in ("cycles", "fps"):
            raise ValueError(
                f"must ask for cycles or fps where engines are given, not {self.metric}"
            )
        if self.metric in ("cycles", "ms", "fps") and self.workload == PEAK:
            raise ValueError(f"must ask for gops or an energy of a peak, not {self.metric}")
        if bool(self.includes) != (self.metric in ENERGY_METRICS):
            raise ValueError(
                "must say what it includes where the metric is an energy, and only there"
            )
        beyond = [p for p in self.includes if p not in _PARTS_OF_SCOPE[self.scope]]
        if beyond:
            raise ValueError(
                f"must have a scope that contains what it includes, not {self.scope} with {beyond[0]}"
            )
        return self


class ValidationTargetSpec(QuestionSpec):
    """A published figure that the model is held against. Never a unit energy."""

    value: Annotated[float, Field(gt=0)]
    """published value, in the metric's unit"""
    source: Annotated[str, Field(min_length=1)]
    """publication"""
    group: str | None = None
    """who published it; targets of one group are no independent evidence. The machine's name when not given"""
    baseline: str | None = None
    """target of this machine whose energy an operation the naive baseline takes"""
    follows_from: str | None = None
    """why the figure follows from the machine's own parameters and so proves nothing"""
    unknown: list[str] = Field(default_factory=list)
    """inputs that no source gives: the target is underdetermined"""
    note: str = ""
    """what to know before comparing"""
