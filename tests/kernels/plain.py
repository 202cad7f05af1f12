"""A third implementation of the integer operators, in plain Python integers of unlimited size.

Written from docs/arithmetic.md alone, one short function an operator on lists, without numpy and
without any code of the kernels or the reference. `floor_shift` is spelt with floor division so that
not even `>>` is taken on trust.
"""

from math import isqrt


def floor_shift(x, s):
    return x // 2**s


def rshr(x, s):
    return floor_shift(x + 2 ** (s - 1), s) if s >= 1 else x


def clamp(x, low, high):
    return min(max(x, low), high)


def matmul(a, w):
    """[M][K] x [N][K] -> [M][N]"""
    return [[sum(p * q for p, q in zip(x, y, strict=True)) for y in w] for x in a]


def requant(x, m, s, b, zp, qmin, qmax):
    """One element; 1 <= s <= 62."""
    return clamp(floor_shift(x * m + b + 2 ** (s - 1), s) + zp, qmin, qmax)


def threshold(x, levels, direction, qmin, step):
    reached = sum(1 for t in levels if (t <= x if direction > 0 else x <= t))
    return qmin + step * reached


def add(a, b, m0, s0, m1, s1, qmin, qmax):
    return clamp(rshr(a * m0, s0) + rshr(b * m1, s1), qmin, qmax)


def layer_norm_normal(row, e, f):
    """The normalised values n_i of a row, with f fraction bits."""
    n, total = len(row), sum(row)
    variance = max(1, n * sum(x * x for x in row) - total * total + e)
    assert variance < 2**62
    k = (62 - variance.bit_length()) // 2
    r = isqrt(variance * 4**k)
    assert 2**30 <= r < 2**31
    reciprocal = (2**61 + r // 2) // r
    h = 61 - k - f
    return [floor_shift((n * x - total) * reciprocal + 2 ** (h - 1), h) for x in row]


def layer_norm(row, g, b, e, f, q, zp, qmin, qmax):
    normal = layer_norm_normal(row, e, f)
    return [
        clamp(floor_shift(n * gi + bi + 2 ** (q - 1), q) + zp, qmin, qmax)
        for n, gi, bi in zip(normal, g, b, strict=True)
    ]


def exponentials_direct(scores, table, shift):
    top = max(scores)
    return [table[floor_shift(top - x, shift)] for x in scores]


def exponentials_exp2(scores, table, m, s):
    top = max(scores)
    result = []
    for x in scores:
        octaves, fraction = divmod(min(rshr((top - x) * m, s), 2**17 - 1), 4096)
        product = table[fraction // 64] * table[64 + fraction % 64]
        result.append(rshr(product, 20 + octaves) if octaves <= 21 else 0)
    return result


def visible(keys, query, length, causal):
    """Indices of the keys that count."""
    return [s for s in range(keys) if (length is None or s < length) and (not causal or s <= query)]


def softmax_row(scores, keys, exponentials):
    """Q0.16 of one row; `keys` are the indices that count, `exponentials` maps scores to e."""
    out = [0] * len(scores)
    if keys:
        e = exponentials([scores[s] for s in keys])
        reciprocal = 2**56 // sum(e)
        for s, value in zip(keys, e, strict=True):
            out[s] = rshr(value * reciprocal, 40)
    return out


def softmax_binary_row(scores, keys, exponentials, level):
    out = [0] * len(scores)
    if keys:
        e = exponentials([scores[s] for s in keys])
        for s, value in zip(keys, e, strict=True):
            out[s] = int(value * 2**24 >= level * sum(e))
    return out


def embedding(ids, weight, m, s):
    return [[rshr(code * m[i], s) for code in weight[i]] for i in ids]


def updated(value, acc_bits, rule):
    """The accumulator after an update; raises OverflowError where the rule is `error`."""
    low, high = -(2 ** (acc_bits - 1)), 2 ** (acc_bits - 1) - 1
    if low <= value <= high:
        return value
    if rule == "error":
        raise OverflowError(value)
    if rule == "wrap":
        return (value - low) % 2**acc_bits + low
    return clamp(value, low, high)


def chunks(k, lanes):
    return [range(start, min(start + lanes, k)) for start in range(0, k, lanes)]


def chunked_dot(a, w, lanes, acc_bits, rule):
    acc = 0
    for chunk in chunks(len(a), lanes):
        acc = updated(acc + sum(a[k] * w[k] for k in chunk), acc_bits, rule)
    return acc


def plane(code, i):
    """Bit i of the two's complement of a code."""
    return floor_shift(code, i) % 2


def plane_weight(i, bits, signed):
    return -(2**i) if signed and i == bits - 1 else 2**i


def chunked_bit_serial_dot(a, w, a_bits, w_bits, a_signed, w_signed, lanes, acc_bits, rule):
    acc = 0
    for chunk in chunks(len(a), lanes):
        for j in range(w_bits):
            for i in range(a_bits):
                count = sum(plane(a[k], i) * plane(w[k], j) for k in chunk)
                weight = plane_weight(i, a_bits, a_signed) * plane_weight(j, w_bits, w_signed)
                acc = updated(acc + weight * count, acc_bits, rule)
    return acc


def window(image, top, left, kh, kw):
    """The codes [kh*kw*C] of a window of an image [H][W][C], (kh, kw, channel) order; None outside the image."""
    height, width, channels = len(image), len(image[0]), len(image[0][0])
    return [
        image[top + u][left + v][c] if 0 <= top + u < height and 0 <= left + v < width else None
        for u in range(kh)
        for v in range(kw)
        for c in range(channels)
    ]


def windows(image, kernel, stride, padding):
    """All windows of an image, [H'][W'][kh*kw*C]."""
    tops, lefts = (
        range(-pad, side + pad - k + 1, step)
        for side, k, step, pad in zip(
            (len(image), len(image[0])), kernel, stride, padding, strict=True
        )
    )
    return [[window(image, top, left, *kernel) for left in lefts] for top in tops]


def conv2d(image, weight, kernel, stride, padding):
    """[H][W][C] x [N][kh*kw*C] -> [H'][W'][N]; what is outside the image is in no sum."""
    return [
        [
            [sum(x * y for x, y in zip(codes, w, strict=True) if x is not None) for w in weight]
            for codes in row
        ]
        for row in windows(image, kernel, stride, padding)
    ]


def max_pool(image, kernel, stride):
    """[H][W][C] -> [H'][W'][C]"""
    channels = len(image[0][0])
    return [
        [[max(codes[c::channels]) for c in range(channels)] for codes in row]
        for row in windows(image, kernel, stride, (0, 0))
    ]
