"""The two vocabularies that meet in this project, as data: strings only, no torch.

`STUDENT_OPS` is the seam between a trainer and `hwsim.capture`: the custom operators that a quantised
student must consist of (besides the ATen operators that `hwsim.capture` lists). `qat.ops` implements
them; any other trainer may target them.

`OPERATORS` is the integer graph's own instruction set: what `hwsim.reference` specifies, what the
kernels compute and what a machine must have a unit for.
"""

from __future__ import annotations

from dataclasses import dataclass

STUDENT_NAMESPACE = "bitwright"

# Conventions of the student operators
#   codes   float tensors that hold integers; a scale accompanies them; value = scale * codes.
#   gradient of a codes tensor: the gradient with respect to that *value* (scale * codes). The contractions
#           hand it back so, the quantisers take it so; scales get their gradient in the quantisers alone.
#   fmt     canonical number type (hwsim.graph.dtype).
#   rounding "half_up" is floor(u + 1/2), sign(0) = +1, the rule of the whole project;
#           "half_even" is what the authors' released code does (recipes named as_released).
#   valid   bool [B, T], False at padded positions, or None.
STUDENT_OPS: dict[str, str] = {
    # w [N, K] -> codes [N, K], scale [1] ("tensor") or [N] ("row"). method: "twn" (param: threshold factor),
    # "bwn", "bwn_centred" (the mean over the whole tensor is subtracted before the sign), "bwn_row_centred"
    # (that of each row, before the scale too), "absmax" (symmetric intN).
    # Before anything else w is clipped to +-clip where clip > 0; outside the clip the gradient is zero.
    "quantize_weight": "(Tensor w, str fmt, str method, str granularity, float param, float clip)"
    " -> (Tensor codes, Tensor scale)",
    # codes = clamp(round((x + shift) / alpha), qmin, qmax); BIPOLAR: sign(x + shift). alpha [1]; shift [C] or None,
    # broadcast over the last axis. `valid` and `count` only steer gradients (kappa = 1/sqrt(count * Qp); count 0
    # stands for the valid elements of x itself).
    "quantize_static": "(Tensor x, Tensor alpha, Tensor? shift, Tensor? valid, str fmt, str rounding,"
    " float count) -> Tensor codes",
    # Symmetric range taken from the data: scale = amax / qmax per "tensor" [1] or per "token" [..., 1]. `amax` [1]
    # replaces the tensor's own: the largest of several processes, in training only.
    "quantize_dynamic": "(Tensor x, Tensor? valid, str fmt, str granularity, float clip, str rounding,"
    " Tensor? amax=None)"
    " -> (Tensor codes, Tensor scale)",
    # y = scale * clamp(floor(x / scale + 1/2), qmin, qmax): a value put on a grid. scale [1], a power of two, so that
    # float32 holds every such value, and every sum of two, exactly.
    "snap": "(Tensor x, Tensor scale, str fmt) -> Tensor y",
    # [B, C, H, W] -> [B, P, C*kh*kw]: the patches under a convolution without padding, as rows in the order of
    # its weight [N, C*kh*kw]; codes stay codes.
    "patches": "(Tensor x, int[] kernel, int[] stride) -> Tensor y",
    # y[..., n] = (sum_k a[..., k] * w[n, k]) * (a_scale * w_scale[n]) + bias[n]
    "linear": "(Tensor a, Tensor a_scale, Tensor w, Tensor w_scale, Tensor? bias) -> Tensor y",
    # y = (a @ b, or a @ b^T) * (a_scale * b_scale * factor)
    "matmul": "(Tensor a, Tensor a_scale, Tensor b, Tensor b_scale, bool transpose_b, float factor)"
    " -> Tensor y",
    # y = w[ids] * w_scale (per row where w_scale is [V])
    "embedding": "(Tensor ids, Tensor w, Tensor w_scale) -> Tensor y",
    # Softmax over the last axis; entries with valid[b, s] == False, and s > t where causal, get probability 0.
    "softmax": "(Tensor scores, Tensor? valid, bool causal) -> Tensor p",
    # Attention without a softmax: code 1 (of scale 1) where a score is above 0 and not masked, else 0.
    "bool_map": "(Tensor scores, Tensor? valid, bool causal) -> Tensor codes",
}


@dataclass(frozen=True, slots=True)
class Operator:
    """One instruction of the integer graph.

    `constants` and `attrs` name what a node must carry; `?` marks the optional ones. `unit` says which
    part of a machine runs it: `array` (a contraction), `vector`, or `view` (address generation, free).
    """

    unit: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    attrs: tuple[str, ...]
    meaning: str


OPERATORS: dict[str, Operator] = {
    "linear": Operator(
        "array", ("a",), ("weight",), (), "acc[.., n] = sum_k a[.., k] * weight[n, k]"
    ),
    "matmul": Operator("array", ("a", "b"), (), (), "acc[h, m, n] = sum_k a[h, m, k] * b[h, n, k]"),
    "conv2d": Operator(
        "array",
        ("x",),
        ("weight",),
        ("kernel", "stride", "padding", "padding_positions"),
        "[H, W, C] -> acc [H', W', N] = sum over the window's positions inside the image; weight [N, kh*kw*C] in"
        " (kh, kw, channel) order; one group, dilation 1 (section 13)",
    ),
    "requant": Operator(
        "vector",
        ("x",),
        ("M", "S", "B"),
        (),
        "clamp(((x*M + B + 2^(S-1)) >> S) + zp, qmin, qmax); M, S, B are [1] or [C] over the last axis",
    ),
    "threshold": Operator(
        "vector",
        ("x",),
        ("threshold", "direction"),
        ("causal?", "masked?"),
        "qmin + step * #{i : T_i <= x}; direction -1 counts x <= T_i; threshold [1|C, n], direction [1|C];"
        " with causal and masked (scores [H, T, S]) qmin where a softmax would mask",
    ),
    "add": Operator(
        "vector",
        ("a", "b?"),
        ("addend?", "M", "S"),
        ("first?",),
        "clamp(rshr(a*M0, S0) + rshr(b*M1, S1)); `addend` [T|1, C] stands for b where b is a constant,"
        " its rows from `first` (0) on",
    ),
    "layer_norm": Operator(
        "vector",
        ("x",),
        ("G", "B"),
        ("E", "F", "Q"),
        "integer layer norm over the last axis (docs/arithmetic.md, section 6)",
    ),
    "softmax": Operator(
        "vector",
        ("x",),
        ("table", "M?", "S?"),
        ("mode", "shift", "causal", "masked"),
        "Q0.16 probabilities of int32 scores; mode 'direct' (table of every delta) or 'exp2' (section 7)",
    ),
    "softmax_binary": Operator(
        "vector",
        ("x",),
        ("table", "M?", "S?"),
        ("mode", "shift", "causal", "masked", "level"),
        "1 iff (e << 24) >= level * Z, level = ceil(alpha/2 * 2^24): no division (section 7)",
    ),
    "table": Operator("vector", ("x",), ("table",), (), "table[x - qmin(x)]"),
    "embedding": Operator(
        "vector",
        ("ids",),
        ("weight", "M"),
        ("S",),
        "rshr(weight[ids, c] * M[ids], S)",
    ),
    "concat": Operator(
        "vector", ("a",), ("rows",), (), "constant rows [R, C] in front of a along its first axis"
    ),
    "relayout": Operator(
        "vector", ("x",), (), (), "last two axes swapped: crosses the packing axis"
    ),
    "im2col": Operator(
        "vector",
        ("x",),
        (),
        ("kernel", "stride"),
        "[C, H, W] -> [P, C*kh*kw], patches in row order, elements in (channel, kh, kw) order",
    ),
    "max_pool": Operator(
        "vector",
        ("x",),
        (),
        ("kernel", "stride"),
        "[H, W, C] -> [H', W', C], the largest code of each window in each channel",
    ),
    "reshape": Operator(
        "view", ("x",), (), ("shape",), "same elements in row-major order, new per-sample shape"
    ),
    "permute": Operator(
        "view", ("x",), (), ("axes",), "axes of the sample, the last one stays last"
    ),
    "slice": Operator(
        "view", ("x",), (), ("axis", "start", "stop"), "x[start:stop] along an axis of the sample"
    ),
    "append": Operator(
        "view",
        ("cache", "x"),
        (),
        ("axis",),
        "x behind the cache along an axis of the sample, in the cache's own memory (hwsim.graph.decode_view)",
    ),
}
