"""The kernels run without compilation too (NUMBA_DISABLE_JIT=1), so that a debugger can step in."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import numpy as np
import plain
from kernel_samples import codes
from numba.core import config
from hwsim.kernels import chunked_gemm, gemm, pack, requant, vector

assert config.DISABLE_JIT
a, w = codes("bipolar", (2, 65), 1), codes("bipolar", (3, 65), 2)
expected = plain.matmul(a.tolist(), w.tolist())
out = np.zeros((2, 3), np.int32)
gemm.xnor_popcount_gemm_u64(pack.packed_bipolar(a), pack.packed_bipolar(w), 65, out)
assert out.tolist() == expected
gemm.ternary_gemm_i32(a, *pack.packed_ternary(w), out)
assert out.tolist() == expected
planes = [pack.packed_planes(x, 2) for x in (a, w)]
gemm.bit_serial_gemm_u64(*planes, True, True, out)
assert out.tolist() == expected
wide, fault = np.zeros((2, 3), np.int64), np.zeros(4, np.int64)
chunked_gemm.chunked_gemm_i64(a, w, 16, 32, 0, wide, fault)
assert wide.tolist() == expected and not fault.any()

row = np.array([[-300, 7, 0, 12345]], np.int32)
one = lambda v: np.array([v], np.int64)
codes8 = np.zeros((1, 4), np.int8)
requant.requant_rows_i64(row, one(1 << 30), one(36), one(-5), 3, -128, 127, codes8)
assert codes8[0].tolist() == [
    plain.requant(x, 1 << 30, 36, -5, 3, -128, 127) for x in row[0].tolist()
]
requant.threshold_rows_i64(row, np.array([[0, 8]]), np.array([-1], np.int8), -1, 1, codes8)
assert codes8[0].tolist() == [plain.threshold(x, [0, 8], -1, -1, 1) for x in row[0].tolist()]
g, b = np.full(4, 1 << 24), np.full(4, 1 << 30)
vector.layer_norm_rows_i64(row, g, b, 9, 22, 40, 0, -128, 127, codes8)
assert codes8[0].tolist() == plain.layer_norm(
    row[0].tolist(), g.tolist(), b.tolist(), 9, 22, 40, 0, -128, 127
)
table = [2**20 - i for i in range(128)]
scores = np.array([5, -100, 3, 90], np.int32).reshape(1, 1, 1, 4)
probabilities = np.zeros_like(scores)
lengths = one(3)
vector.softmax_exp2_rows(
    scores, lengths, True, False, np.array([table]), one(1 << 30), one(24), probabilities
)
assert probabilities.ravel().tolist() == plain.softmax_row(
    scores.ravel().tolist(),
    [0, 1, 2],
    lambda v: plain.exponentials_exp2(v, table, 1 << 30, 24),
)
print("equal")
"""


def test_kernels_give_the_same_numbers_without_compilation():
    here = Path(__file__).parent
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(here)},
        cwd=here.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "equal\n"
