"""An operand register of an array, and what each of its bits does while compute steps pass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hwsim.arch.encoding import Patterns
from hwsim.kernels.activity import operand_switching
from hwsim.rtl.product import MappedProduct, Operand


class Register:
    """An operand register: [rows, lanes] positions of `bits` bits, and what each bit did."""

    def __init__(self, rows: int, lanes: int, bits: int) -> None:
        self.held = np.zeros((rows, lanes), np.uint32)
        self._since = np.zeros((rows, lanes), np.int64)
        self._high = np.zeros((rows, lanes, bits), np.int64)
        self.toggles = np.zeros((rows, lanes, bits), np.int64)

    def run(
        self, product: MappedProduct, operand: Operand, patterns: Patterns, other_rows: int, occupied: npt.NDArray[np.bool_],
        interval: int, now: int, sums: npt.NDArray[np.int64],
    ) -> int:  # fmt: skip
        """Let one operand of a compute step pass, and return the cycle at which the step ends.

        Args:
            product: the contraction.
            operand: which operand.
            patterns: its bits in the step, [rows, K].
            other_rows: rows of the other operand in the step.
            occupied: [n blocks, k blocks] that take a beat.
            interval: cycles of a beat.
            now: cycle at which the step starts.
            sums: [6], added to (`hwsim.kernels.activity.SUMS`).
        """
        rows, cols, lanes = product.part.block(*product.types)
        is_weight = operand.port == "weight"
        own, other = (cols, rows) if is_weight else (rows, cols)
        end: int = operand_switching(
            np.ascontiguousarray(patterns),
            is_weight,
            (own, lanes),
            -(-other_rows // other),
            operand.pass_bits,
            (product.operands[0].planes, product.operands[1].planes),
            occupied,
            interval,
            now,
            self.held,
            self._since,
            self._high,
            self.toggles,
            sums,
        )
        return end

    def high(self, now: int) -> npt.NDArray[np.int64]:
        """Return the cycles for which each bit was 1 until now, [rows, lanes, bits]."""
        bits = (self.held[..., None] >> np.arange(self.toggles.shape[2], dtype=np.uint32)) & 1
        return np.asarray(self._high + bits * (now - self._since)[..., None], np.int64)
