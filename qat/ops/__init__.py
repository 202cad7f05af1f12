"""The student's custom operators: PyTorch implementations of `hwsim.graph.ops.STUDENT_OPS`.

Each one stays a single node under `torch.export`. Gradients are derived by hand (docs/methods.md,
section 2): a contraction hands the gradient with respect to the *value* `scale * codes` to the codes
and none to the scales; a quantiser takes it so, passes it straight through inside its range, and
derives the gradient of `alpha` and `shift` from it.

Codes are multiplied first and scaled after: integer sums are exact in float32 up to 2^24, sums of
dequantised products are not, and at 1 bit that turns signs.
"""

from qat.ops.attention import bool_map, softmax, unmasked
from qat.ops.compare import mean_square
from qat.ops.contract import embedding, linear, matmul, patches
from qat.ops.define import SMALLEST_SCALE, mask_like, sign_codes
from qat.ops.quantize import (
    largest_magnitude,
    quantize_dynamic,
    quantize_static,
    quantize_weight,
    snap,
)

__all__ = [
    "SMALLEST_SCALE",
    "bool_map",
    "embedding",
    "largest_magnitude",
    "linear",
    "mask_like",
    "matmul",
    "mean_square",
    "patches",
    "quantize_dynamic",
    "quantize_static",
    "quantize_weight",
    "sign_codes",
    "snap",
    "softmax",
    "unmasked",
]
