"""Population count of 64-bit words, compiled to the processor's own instruction.

`popcount_u64` is plain Python; numba replaces it by LLVM's `ctpop`, which it also vectorises. With
`NUMBA_DISABLE_JIT=1` the plain function runs, so every kernel can be stepped through in a debugger.

The kernels import this function, and numba's cache does not notice a change of an imported module:
delete `hwsim/kernels/__pycache__` after editing this file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload


def popcount_u64(word: np.uint64) -> int:
    """Count the set bits of a 64-bit word. The result is signed (int64), so it may be subtracted."""
    return int(word).bit_count()


@intrinsic
def _ctpop(typing_context: Any, word: Any) -> Any:
    """int64(uint64): LLVM's ctpop; both types are the same 64-bit register."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@overload(popcount_u64, inline="always")
def _popcount_u64_compiled(word: Any) -> Any:
    def compiled(word: Any) -> Any:
        return _ctpop(np.uint64(word))  # type: ignore[call-arg]

    return compiled
