"""What every compute array has in common: its description, and the component built from it.

A component knows capability, cycles and energy, and hands data to the kernels. Rows hold M (tokens),
columns hold N (output channels), lanes hold K (the reduction). docs/machine.md defines beat, pass and
initiation interval.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from hwsim import registry
from hwsim.arch.encoding import Encoding, encoding_of
from hwsim.arch.spec import Count, NonNegative, Quantity, Spec
from hwsim.arch.work import Beat, Fetches, Work, blocks_fetched, ceil_div, cut
from hwsim.errors import GraphError, OverflowRefused
from hwsim.graph import dtype as dt
from hwsim.graph.dtype import DataType
from hwsim.graph.numeric import NumericProfile, Overflow, matmul_bound, weight_bound

__all__ = [
    "OVERFLOW_RULES",
    "ArrayComponent",
    "ArrayEnergySpec",
    "ArrayReference",
    "ArraySpec",
    "Codes",
    "FormatPair",
    "ceil_div",
    "covers",
    "signed_bits",
]

OVERFLOW_RULES: dict[Overflow, int] = {"error": 0, "wrap": 1, "clamp": 2}
"""rule -> its number in the chunked kernels"""

Codes = npt.NDArray[Any]
"""2-D integer codes, [M, K] or [N, K]"""


def _format_name(name: str) -> str:
    try:
        dt.parse(name)
    except ValueError as error:
        raise PydanticCustomError("format", "{text}", {"text": str(error)}) from None
    return name


FormatName = Annotated[
    str,
    AfterValidator(_format_name),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["BIPOLAR", "UNIPOLAR", "TERNARY", "INT2", "INT4", "INT8", "UINT8"]},
                {"type": "string", "pattern": "^(INT[0-9]+N?|UINT[0-9]+)$"},
            ]
        }
    ),
]
"""name of a number type"""


def covers(fmt: DataType, dtype: DataType) -> bool:
    """Tell whether every code of `dtype` is a code of `fmt`: `INT8` covers INT4, UINT7 and TERNARY."""
    inside = fmt.qmin <= dtype.qmin and dtype.qmax <= fmt.qmax
    return fmt == dtype or (inside and fmt.step == 1)


class FormatPair(Spec):
    """A pair of operand formats that an array multiplies. A format stands for all types it covers."""

    activation: FormatName
    """format of the operand in the rows"""
    weight: FormatName
    """format of the operand in the columns"""
    lane_op_fj: Quantity | None = None
    """fJ of one lane operation in this pair, where it differs from the array's own"""

    def covers(self, activation: DataType, weight: DataType) -> bool:
        """Tell whether both operand types are covered."""
        return covers(dt.parse(self.activation), activation) and covers(
            dt.parse(self.weight), weight
        )


class ActivityReference(Spec):
    """How lively the operands were for which an array's unit energies were stated."""

    toggle_rate: Annotated[float, Field(gt=0, le=1)]
    """share of operand bits that flip from beat to beat; 0.5 for random data"""
    fixed_frac: Annotated[float, Field(ge=0, le=1)]
    """share of the energy that no data changes: clock and control"""
    source: Annotated[str, Field(min_length=1)]
    """where both figures come from"""


class ArrayEnergySpec(Spec):
    """Unit energies of an array, none of which includes a memory access."""

    lane_op_fj: Quantity
    """fJ of one lane operation: one multiply (or gate) and its share of the adder tree, in one pass"""
    accumulator_update_fj: Quantity
    """fJ of one addition into an accumulator, its register write included"""
    operand_register_fj_per_bit: Quantity
    """fJ of loading one bit into an operand register"""
    activity: ActivityReference | None = None
    """the activity that the lane and register energies are for; `hwsim activity` prices other data with it"""


class ArrayReference(Spec):
    """The size at which area and leakage were stated; both are proportional to the number of lanes."""

    rows: Count
    """rows at the reference point"""
    cols: Count
    """columns at the reference point"""
    lanes: Count
    """lanes a cell at the reference point"""


class ArraySpec(Spec):
    """Description common to all compute arrays."""

    kind: str
    """which array this is; the registry maps it to a component"""
    rows: Count
    """M positions worked on in one beat"""
    cols: Count
    """N positions worked on in one beat"""
    lanes: Count
    """K positions summed in one beat"""
    initiation_interval_cycles: Count = 1
    """least number of cycles between two beats; narrow ports can make it longer"""
    pipeline_depth_cycles: NonNegative
    """cycles from a compute step's last beat to its visible result"""
    accumulator_bits: Annotated[int, Field(ge=2, le=32)]
    """width of a signed accumulator"""
    overflow: Overflow = "error"
    """what an accumulator does outside its range"""
    activation_port_bits_per_cycle: Count
    """width of the port that feeds the rows"""
    weight_port_bits_per_cycle: Count
    """width of the port that feeds the columns"""
    formats: Annotated[list[FormatPair], Field(min_length=1)]
    """operand formats that the array multiplies"""
    zero_skipping: bool = False
    """a beat whose weights are all zero is skipped; for kinds that can"""
    energy: ArrayEnergySpec
    """unit energies"""
    area_um2: Quantity | None = None
    """silicon area in square micrometres at the reference size"""
    leakage_mw: Quantity | None = None
    """leakage power in milliwatts at the reference size"""
    reference: ArrayReference | None = None
    """size at which area and leakage hold; without it, this array's own size"""
    fixed: bool = False
    """insist that area and leakage hold although rows, cols or lanes were changed"""

    @classmethod
    def model_for(cls, data: object) -> type[ArraySpec] | None:
        """Return the registered description that reads a mapping, or None where its kind is unknown."""
        kind = data.get("kind") if isinstance(data, dict) else None
        if kind not in registry.kinds("array"):
            return None
        component: type[ArrayComponent] = registry.lookup("array", kind)
        return component.spec_class


def signed_bits(value: int) -> int:
    """Count the bits of the narrowest two's-complement number that holds a value.

    >>> signed_bits(127), signed_bits(128), signed_bits(-128)
    (8, 9, 8)
    """
    return (value if value >= 0 else ~value).bit_length() + 1


class ArrayComponent(ABC):
    """A compute array: capability, cycles, and exact products.

    A subclass says which operand formats make sense at all (`check_formats`), how many passes a beat
    takes, how many bits each operand needs a pass, and computes the products with the kernels.
    """

    spec_class: ClassVar[type[ArraySpec]]
    skips_zeros: ClassVar[bool] = False
    """whether `zero_skipping` is understood: beats of one pass, blocks in the order m, n, k"""

    def __init__(self, name: str, spec: ArraySpec) -> None:
        self.name = name
        self.spec = spec

    @classmethod
    @abstractmethod
    def check_formats(cls, activation: DataType, weight: DataType) -> str | None:
        """Return what is wrong with a pair of formats on this kind of array, or None."""

    @abstractmethod
    def _exact(self, a: Codes, w: Codes, a_dtype: DataType, w_dtype: DataType) -> Codes:
        """Return a @ w.T as int32 [M, N], knowing that no accumulator can overflow."""

    def block(self, a: DataType, w: DataType) -> tuple[int, int, int]:
        """Return the M, N and K positions of a full block: what tiles are made of."""
        return self.spec.rows, self.spec.cols, self.spec.lanes

    def profile(self, a: DataType, w: DataType) -> NumericProfile:
        """Return the numeric profile that decides results where the static bound does not fit."""
        depth = self.block(a, w)[2]
        return NumericProfile(
            self.spec.accumulator_bits, self.spec.overflow, depth, bit_serial=False
        )

    def supports(self, a: DataType, w: DataType) -> bool:
        """Tell whether the array multiplies these operand types."""
        return any(pair.covers(a, w) for pair in self.spec.formats)

    def passes(self, a: DataType, w: DataType) -> int:
        """Count the passes over one r x c x l block."""
        return 1

    def operand_bits(self, a: DataType, w: DataType) -> tuple[int, int]:
        """Return how many bits of one activation and of one weight enter in one pass."""
        return a.bits, w.bits

    def encodings(self, a: DataType, w: DataType) -> tuple[Encoding, Encoding]:
        """Return as what bits an activation and a weight enter."""
        return encoding_of(a), encoding_of(w)

    def beats(self, m: int, n: int, k: int, a: DataType, w: DataType) -> int:
        """Count the beats of an m x n x k product: all blocks, times the passes."""
        rows, cols, lanes = self.block(a, w)
        blocks = ceil_div(m, rows) * ceil_div(n, cols) * ceil_div(k, lanes)
        return blocks * self.passes(a, w)

    def initiation_interval(self, a: DataType, w: DataType, r: int, c: int, l: int) -> int:  # noqa: E741
        """Return the cycles between two beats that really use r rows, c columns and l lanes."""
        a_bits, w_bits = self.operand_bits(a, w)
        return max(
            self.spec.initiation_interval_cycles,
            ceil_div(r * l * a_bits, self.spec.activation_port_bits_per_cycle),
            ceil_div(c * l * w_bits, self.spec.weight_port_bits_per_cycle),
        )

    def interval_of(self, m: int, n: int, k: int, a: DataType, w: DataType) -> int:
        """Return the initiation interval of an m x n x k compute step: that of its largest block."""
        rows, cols, lanes = self.block(a, w)
        return self.initiation_interval(a, w, min(rows, m), min(cols, n), min(lanes, k))

    def cycles(self, m: int, n: int, k: int, a: DataType, w: DataType) -> int:
        """Count the cycles that an m x n x k compute step occupies the array (pipeline depth apart)."""
        return self.beats(m, n, k, a, w) * self.interval_of(m, n, k, a, w)

    def planes(self, a: DataType, w: DataType) -> tuple[int, int]:
        """Return in how many planes each operand enters; the weight's are the outer loop.

        All pairs of planes take equally many of the `passes`; between those of one pair nothing new enters.
        """
        a_bits, w_bits = self.operand_bits(a, w)
        return ceil_div(a.bits, a_bits), ceil_div(w.bits, w_bits)

    def work(self, m: int, n: int, k: int, a: DataType, w: DataType) -> Work:
        """Count what an m x n x k compute step does: the sum over `schedule`, in closed form.

        A block is fetched whenever it differs from that of the beat before; the first beat always fetches.
        """
        if 0 in (m, n, k):
            return Work(0, 0, Fetches(), Fetches())
        rows, cols, lanes = self.block(a, w)
        m_blocks, n_blocks, k_blocks = ceil_div(m, rows), ceil_div(n, cols), ceil_div(k, lanes)
        passes, (a_planes, w_planes) = self.passes(a, w), self.planes(a, w)
        a_bits, w_bits = self.operand_bits(a, w)
        a_again = 1 if a_planes == 1 and k_blocks == 1 else n_blocks
        a_again *= a_planes * w_planes if a_planes > 1 else 1
        w_again = 1 if w_planes == 1 and k_blocks == 1 and n_blocks == 1 else m_blocks
        w_again *= w_planes
        return Work(
            lane_ops=m * n * k * passes,
            accumulator_updates=m * n * k_blocks * passes,
            activation=blocks_fetched(m, k, (rows, lanes), a_bits, a_again),
            weight=blocks_fetched(n, k, (cols, lanes), w_bits, w_again),
        )

    def schedule(self, m: int, n: int, k: int, a: DataType, w: DataType) -> Iterator[Beat]:
        """Yield the beats of an m x n x k compute step in order: what the closed forms must sum to.

        Blocks run m, n, k, the last innermost; then weight planes, then activation planes, then the passes of a pair.
        """
        rows, cols, lanes = self.block(a, w)
        a_bits, w_bits = self.operand_bits(a, w)
        a_planes, w_planes = self.planes(a, w)
        pairs = [
            (a_plane, w_plane)
            for w_plane in range(w_planes)
            for a_plane in range(a_planes)
            for _ in range(self.passes(a, w) // (a_planes * w_planes))
        ]
        interval = self.interval_of(m, n, k, a, w)
        a_held: object = None
        w_held: object = None
        blocks = (
            (i, j, x) for i in cut(m, rows) for j in cut(n, cols) for x in cut(k, lanes)
        )  # fmt: skip
        for i, j, x in blocks:
            for a_plane, w_plane in pairs:
                a_size, w_size = len(i) * len(x) * a_bits, len(j) * len(x) * w_bits
                a_new, w_new = a_held != (i, x, a_plane), w_held != (j, x, w_plane)
                a_held, w_held = (i, x, a_plane), (j, x, w_plane)
                work = Work(
                    lane_ops=len(i) * len(j) * len(x),
                    accumulator_updates=len(i) * len(j),
                    activation=Fetches(((a_size, 1),), a_size) if a_new else Fetches(),
                    weight=Fetches(((w_size, 1),), w_size) if w_new else Fetches(),
                )
                yield Beat(i, j, x, interval, work)

    def action_fj(self, action: str) -> Quantity:
        """Return the energy of one action that does not depend on the operand types, fJ.

        Raises:
            KeyError: the array has no such action.
        """
        if action == "accumulator_update":
            return self.spec.energy.accumulator_update_fj
        if action == "operand_register_bit":
            return self.spec.energy.operand_register_fj_per_bit
        raise KeyError(f"{self.spec.kind} array {self.name}: {action}")

    def lane_op_fj(self, a: DataType, w: DataType) -> Quantity:
        """Return the energy of one lane operation in one pass, fJ.

        Raises:
            GraphError: the array does not multiply these types.
        """
        for pair in self.spec.formats:
            if pair.covers(a, w):
                return pair.lane_op_fj or self.spec.energy.lane_op_fj
        raise GraphError(f"array {self.name} does not multiply {a} by {w}")

    def size_factor(self) -> float:
        """Return the array's lanes over those of the point where area and leakage were stated."""
        ref = self.spec.reference
        if ref is None:
            return 1.0
        here = self.spec.rows * self.spec.cols * self.spec.lanes
        return here / (ref.rows * ref.cols * ref.lanes)

    @property
    def area_um2(self) -> Quantity | None:
        """Area in square micrometres at this array's size, where stated."""
        area = self.spec.area_um2
        return None if area is None else area.scaled(self.size_factor())

    @property
    def leakage_mw(self) -> Quantity | None:
        """Leakage power in milliwatts at this array's size, where stated."""
        leakage = self.spec.leakage_mw
        return None if leakage is None else leakage.scaled(self.size_factor())

    def static_bound(self, weight: Codes | None, k: int, a: DataType, w: DataType) -> int:
        """Return a bound of |any intermediate accumulator| that needs no activation data.

        Args:
            weight: codes [N, K] where the operand is constant, or None for two activations.
            k: length of the reduction.
            a: type of the activation.
            w: type of the other operand.
        """
        return matmul_bound(k, a, w) if weight is None else weight_bound(weight, a)

    def gemm(
        self,
        a_codes: Codes,
        w_codes: Codes,
        a_dtype: DataType,
        w_dtype: DataType,
        *,
        where: str = "gemm",
        bound: int | None = None,
    ) -> Codes:
        """Multiply as the array does: exactly, or with its accumulators where they may overflow.

        Args:
            a_codes: [M, K] codes of `a_dtype`.
            w_codes: [N, K] codes of `w_dtype`.
            a_dtype: type of the activation.
            w_dtype: type of the other operand.
            where: the operator's name, for messages.
            bound: the operator's static bound where the caller has it; computed here when None.

        Returns:
            int32 [M, N].

        Raises:
            GraphError: the array does not multiply these types, or the shapes do not match.
            OverflowRefused: an accumulator left its range and the overflow rule is `error`.
        """
        if not self.supports(a_dtype, w_dtype):
            raise GraphError(f"{where}: array {self.name} does not multiply {a_dtype} by {w_dtype}")
        if a_codes.ndim != 2 or w_codes.ndim != 2 or a_codes.shape[1] != w_codes.shape[1]:
            raise GraphError(
                f"{where}: operands must be [M, K] and [N, K],"
                f" not {a_codes.shape} and {w_codes.shape}"
            )
        if bound is None:
            bound = self._tightest_bound(w_codes, a_dtype, w_dtype)
        if self.profile(a_dtype, w_dtype).fits(bound):
            return self._exact(a_codes, w_codes, a_dtype, w_dtype)
        return self._profiled(a_codes, w_codes, a_dtype, w_dtype, where, bound)

    def accumulators(
        self, a: Codes, w: Codes, a_dtype: DataType, w_dtype: DataType, *, where: str
    ) -> Codes:
        """Return what the accumulators hold after all of K, before they are read out: [M, N].

        Arguments and errors as in `gemm`, whose result this is where reading out changes nothing.
        """
        return self.gemm(a, w, a_dtype, w_dtype, where=where)

    def _tightest_bound(self, w_codes: Codes, a: DataType, w: DataType) -> int:
        by_type = self.static_bound(None, w_codes.shape[1], a, w)
        if self.profile(a, w).fits(by_type):
            return by_type
        # The given codes prove at least as much; whichever bound fits, the result is the same.
        return min(by_type, self.static_bound(w_codes, w_codes.shape[1], a, w))

    def _profiled(
        self, a: Codes, w: Codes, a_dtype: DataType, w_dtype: DataType, where: str, bound: int
    ) -> Codes:
        """Multiply chunk by chunk with the accumulator's width and overflow rule: int32 [M, N]."""
        out = np.empty((a.shape[0], w.shape[0]), np.int64)
        fault = np.zeros(4, np.int64)  # flag, m, n, value that was needed
        self._run_profiled(a, w, a_dtype, w_dtype, out, fault)
        if fault[0]:
            self._refuse(fault, where, bound)
        return out.astype(np.int32)

    def _run_profiled(
        self,
        a: Codes,
        w: Codes,
        a_dtype: DataType,
        w_dtype: DataType,
        out: npt.NDArray[np.int64],
        fault: npt.NDArray[np.int64],
    ) -> None:
        """Fill `out` [M, N] and `fault` with the chunked kernel that follows the numeric profile."""
        from hwsim.kernels.chunked_gemm import chunked_gemm_i64

        chunked_gemm_i64(
            np.ascontiguousarray(a, np.int32),
            np.ascontiguousarray(w, np.int32),
            self.block(a_dtype, w_dtype)[2],
            self.spec.accumulator_bits,
            OVERFLOW_RULES[self.spec.overflow],
            out,
            fault,
        )

    def _refuse(self, fault: npt.NDArray[np.int64], where: str, bound: int) -> None:
        _, m, n, value = (int(x) for x in fault)
        have = self.spec.accumulator_bits
        raise OverflowRefused(
            f"{where}: accumulator [{m}, {n}] of array {self.name} must hold {value},"
            f" which needs {signed_bits(value)} bits, {signed_bits(value) - have} more than its"
            f" accumulator_bits {have}; the operator's static bound is {bound}"
            f" ({signed_bits(bound)} bits): widen the accumulator to that,"
            " or choose overflow wrap or clamp"
        )
