"""From real parameters to the stored integers: M, S, B, thresholds, tables (docs/arithmetic.md, sections 3-8).

Every function here runs once, at export. Thresholds are computed in rational arithmetic on the exact
values of the stored floats: evaluating them in floating point fails on near-ties.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from hwsim.errors import GraphError
from hwsim.graph.dtype import DataType

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

MULTIPLIER_BITS = 31
MAX_SHIFT = 62
LAYER_NORM_FRACTION = 27
LAYER_NORM_NORMAL_BITS = 33
"""normalised values stay within 2^33: rows longer than 4096 leave fewer bits to the fraction"""
LAYER_NORM_G_BITS = 28
"""|G| <= 2^28 and |B| < 2^62, so n*G + B + 2^(Q-1) cannot leave int64"""
DIRECT_FRACTION_BITS = 24
DIRECT_MAX_ENTRIES = 4097
EXP2_TABLE_BITS = 20
LEVEL_BITS = 24
"""(2^24 + 1) * Z stays below 2^63 for a row of 2^14 exponentials of 2^24"""


def _round_half_up(value: Fraction | float) -> int:
    return math.floor(Fraction(value) + Fraction(1, 2))


def _ceil_log2(value: float) -> int:
    """Exact ceil(log2(value)) of a positive float: frexp, never a float logarithm."""
    mantissa, exponent = math.frexp(value)
    return exponent - 1 if mantissa == 0.5 else exponent


def multiplier(ratio: float, where: str, bits: int = MULTIPLIER_BITS) -> tuple[int, int]:
    """Return (M, S) with M / 2^S nearest to a ratio >= 0, 2^(bits-1) <= M < 2^bits where S allows.

    Raises:
        GraphError: the ratio is negative, not finite, or outside what 1 <= S <= 62 can hold.
    """
    if not (math.isfinite(ratio) and ratio >= 0):
        raise GraphError(f"{where}: a scale ratio must be finite and not negative, not {ratio!r}")
    if ratio == 0:
        return 0, 1
    fraction, exponent = math.frexp(ratio)
    m, s = _round_half_up(fraction * 2.0**bits), bits - exponent
    if m == 1 << bits:
        m, s = m >> 1, s - 1
    if s > MAX_SHIFT:
        m, s = _round_half_up(Fraction(m, 1 << (s - MAX_SHIFT))), MAX_SHIFT
    if m == 0 or s < 1:
        raise GraphError(f"{where}: the scale ratio {ratio!r} does not fit a {bits}-bit multiplier")
    return m, s


@dataclass(frozen=True)
class Affine:
    """real = scale[c] * code + bias[c] along the last axis; both are [1] or [C] float64."""

    scale: FloatArray
    bias: FloatArray

    def channel(self, c: int) -> tuple[Fraction, Fraction]:
        """Exact rational scale and bias of a channel."""
        return (
            Fraction(float(self.scale[c if self.scale.size > 1 else 0])),
            Fraction(float(self.bias[c if self.bias.size > 1 else 0])),
        )

    @property
    def channels(self) -> int:
        """Number of channels with parameters of their own."""
        return max(self.scale.size, self.bias.size)


def requant_constants(
    affine: Affine, out_scale: float, bound: int, where: str
) -> tuple[IntArray, IntArray, IntArray]:
    """M, S, B of `requant` ([1] or [C]) and the static proof that nothing leaves int64.

    Raises:
        GraphError: a ratio cannot be held, or max|acc| * M + |B| + 2^(S-1) could reach 2^63.
    """
    rows = []
    for c in range(affine.channels):
        scale, bias = affine.channel(c)
        m, s = multiplier(float(scale) / out_scale, where)
        b = _round_half_up(bias / Fraction(out_scale) * (1 << s))
        if bound * m + abs(b) + (1 << (s - 1)) >= 1 << 63:
            raise GraphError(
                f"{where}: requant could leave int64 (|acc| <= {bound}, M = {m}, S = {s}, B = {b});"
                " the output scale is too small for this accumulator"
            )
        rows.append((m, s, b))
    m_s_b = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return m_s_b[:, 0].copy(), m_s_b[:, 1].copy(), m_s_b[:, 2].copy()


def threshold_constants(
    affine: Affine,
    alpha: float,
    shift: FloatArray,
    relu: bool,
    dtype: DataType,
    bound: int,
) -> tuple[IntArray, IntArray]:
    """Thresholds [1|C, n] and directions [1|C] of clamp(floor((f(y) + shift)/alpha + 1/2)), y = affine(acc).

    T_i is the least integer of [-bound, bound] that reaches level i, bound + 1 where none does. A negative
    scale reverses the comparison (direction -1: T_i is then the greatest integer that reaches level i);
    a scale of 0 makes the channel constant. f is the ReLU where `relu`, else the identity.
    """
    channels = max(affine.channels, shift.size)
    count = (dtype.qmax - dtype.qmin) // dtype.step
    levels = np.empty((channels, count), dtype=np.int64)
    direction = np.ones(channels, dtype=np.int64)
    exact_alpha = Fraction(alpha)
    for c in range(channels):
        scale, bias = affine.channel(min(c, affine.channels - 1))
        moved = Fraction(float(shift[c if shift.size > 1 else 0]))
        direction[c] = -1 if scale < 0 else 1
        for i in range(count):
            code = dtype.qmin + dtype.step * (i + 1)
            # bipolar: sign(y + shift) changes at 0; others: the code is reached at (code - 1/2) * alpha
            edge = Fraction(0) if dtype.kind == "bipolar" else (code - Fraction(1, 2)) * exact_alpha
            need = edge - moved  # f(y) >= need
            always = relu and need <= 0
            levels[c, i] = _least_reaching(need - bias, scale, always, bound)
    if channels > 1 and (levels == levels[:1]).all() and (direction == direction[0]).all():
        return levels[:1].copy(), direction[:1].copy()
    return levels, direction


def _least_reaching(need: Fraction, scale: Fraction, always: bool, bound: int) -> int:
    """Least acc with scale*acc >= need (greatest one where scale < 0), clamped into the static range."""
    if always:
        return -bound if scale >= 0 else bound
    if scale == 0:
        return -bound if need <= 0 else bound + 1
    if scale > 0:
        return max(-bound, min(bound + 1, math.ceil(need / scale)))
    return min(bound, max(-bound - 1, math.floor(need / scale)))


def add_factors(scales: Sequence[float], out_scale: float, where: str) -> tuple[IntArray, IntArray]:
    """M and S [2] of `add`; a ratio of exactly 1 becomes (1, 0)."""
    pairs = [(1, 0) if s == out_scale else multiplier(s / out_scale, where) for s in scales]
    return (
        np.array([p[0] for p in pairs], dtype=np.int64),
        np.array([p[1] for p in pairs], dtype=np.int64),
    )


@dataclass(frozen=True)
class LayerNormConstants:
    """G and B [N]; E, F, Q as in docs/arithmetic.md, section 6."""

    g: IntArray
    b: IntArray
    e: int
    f: int
    q: int


def layer_norm_fraction(channels: int) -> int:
    """F of rows of N channels: |n| < sqrt(N) 2^F stays within LAYER_NORM_NORMAL_BITS."""
    return min(LAYER_NORM_FRACTION, LAYER_NORM_NORMAL_BITS - (_ceil_log2(channels) + 1) // 2)


def layer_norm_constants(
    gamma: FloatArray, beta: FloatArray, eps: float, dtype: DataType, in_scale: float, out_scale: float,
    where: str,
) -> LayerNormConstants:  # fmt: skip
    """Derive the constants of an integer layer norm over rows of N codes of `dtype`.

    Raises:
        GraphError: a parameter is not finite, the row is too long for the input's width, or a constant
            leaves its range.
    """
    n = gamma.size
    if not (np.isfinite(gamma).all() and np.isfinite(beta).all()):
        raise GraphError(f"{where}: a layer norm's gamma and beta must be finite")
    fraction = layer_norm_fraction(n)
    e = _round_half_up(Fraction(n * n) * Fraction(eps) / Fraction(in_scale) ** 2)
    if n * n * (1 << (2 * (dtype.bits - 1))) + e >= 1 << 62 or n << (dtype.bits + 31) >= 1 << 63:
        raise GraphError(
            f"{where}: a layer norm over {n} channels of {dtype} codes does not fit 64-bit integers;"
            " use a narrower residual format"
        )
    top_g, top_b = (float(np.abs(v).max()) / out_scale for v in (gamma, beta))
    q = fraction + LAYER_NORM_G_BITS - (_ceil_log2(top_g) if top_g > 0 else 0)
    if top_b > 0:  # a beta far above gamma takes bits from G
        q = min(q, 61 - _ceil_log2(top_b))
    q = max(1, min(62, q))
    g = [_round_half_up(Fraction(float(v)) / Fraction(out_scale) * Fraction(2) ** (q - fraction)) for v in gamma]  # fmt: skip
    b = [_round_half_up(Fraction(float(v)) / Fraction(out_scale) * (1 << q)) for v in beta]
    for name, values, limit in (("gamma", g, (1 << LAYER_NORM_G_BITS) + 1), ("beta", b, 1 << 62)):
        if max(abs(v) for v in values) >= limit:
            raise GraphError(
                f"{where}: the layer norm's {name} does not fit; its output scale {out_scale!r} is too small"
            )
    return LayerNormConstants(
        np.array(g, dtype=np.int64), np.array(b, dtype=np.int64), e, fraction, q
    )


def softmax_direct_table(scale: float, largest_delta: int, shift: int) -> IntArray:
    """T[i] = floor(2^24 * exp(-(i << shift) * scale) + 1/2) for every delta of the row, as [1, n]."""
    index = np.arange((largest_delta >> shift) + 1, dtype=np.float64) * (1 << shift)
    table = np.floor(2.0**DIRECT_FRACTION_BITS * np.exp(-index * scale) + 0.5)
    return table.astype(np.int64)[None, :]


def softmax_exp2_table() -> IntArray:
    """floor(2^(20 - i/64) + 1/2) for i < 64, then floor(2^(20 - i/4096) + 1/2), as [1, 128].

    The product of an entry of each is 2^-f to 12 bits of f. One table of as many bits would have 4,096 entries;
    one of 256 (8 bits of f) moved probabilities by up to 26 of 65,536 and a prediction in ninety of a
    byte-level GPT-2.
    """
    index = np.arange(64, dtype=np.float64)
    exponents = np.concatenate([index / 64, index / 4096])
    return np.floor(2.0 ** (EXP2_TABLE_BITS - exponents) + 0.5).astype(np.int64)[None, :]


def binary_softmax_level(alpha: float) -> int:
    """ceil(alpha/2 * 2^24): the probability from which a {0,1} attention map is 1.

    24 bits, as many as the exponentials have: with 20, probabilities within 1e-6 of alpha/2 fell on the other
    side, and fewer SST-2 sentences kept all their 1-bit codes (87 instead of 90 % on a W1A1 MiniLM).

    No probability exceeds 1, so from alpha = 2 on larger levels all mean "never"; they are one number,
    which keeps level * Z in int64 for any row.
    """
    return min((1 << LEVEL_BITS) + 1, math.ceil(Fraction(alpha) / 2 * (1 << LEVEL_BITS)))


def unary_table(
    function: Callable[[FloatArray], FloatArray], source: DataType, in_scale: float,
    target: DataType, out_scale: float,
) -> IntArray:  # fmt: skip
    """The exact output code of every input code: clamp(floor(f(s_in * code)/s_out + 1/2)), or its sign."""
    codes = np.arange(source.qmin, source.qmax + 1, dtype=np.float64)
    values = function(codes * in_scale)
    if target.kind == "bipolar":
        return np.where(values >= 0, 1, -1)
    out = np.floor(values / out_scale + 0.5)
    return np.clip(out, target.qmin, target.qmax).astype(np.int64)


def embedding_factors(row_scales: FloatArray, out_scale: float, where: str) -> tuple[IntArray, int]:
    """M [V] and the one S of an embedding table: M_i = floor(scale_i/s_out * 2^S + 1/2) < 2^31."""
    largest = float(row_scales.max()) / out_scale
    _, s = multiplier(largest, where)
    m = np.floor(row_scales / out_scale * 2.0**s + 0.5).astype(np.int64)
    return m, s
