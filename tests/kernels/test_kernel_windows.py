"""Windows and their maxima against plain Python, over shapes that cut the image in every way."""

from __future__ import annotations

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.graph.windows import Windows
from hwsim.kernels.windows import max_pool_rows, window_rows

SETTINGS = settings(derandomize=True, deadline=None, max_examples=50)
PAIR = st.tuples(st.integers(1, 4), st.integers(1, 4))


@st.composite
def slid(draw: st.DrawFn) -> Windows:
    """Windows with stride above the kernel, images below it, and padding up to whole windows outside."""
    kernel, stride = draw(PAIR), draw(PAIR)
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    sides = [draw(st.integers(max(1, k - 2 * p), 6)) for k, p in zip(kernel, padding, strict=True)]
    return Windows((sides[0], sides[1]), kernel, stride, padding)


def codes(windows: Windows, channels: int, seed: int, dtype: type = np.int8) -> np.ndarray:
    limits = np.iinfo(dtype)
    shape = (2, *windows.image, channels)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(dtype)


@SETTINGS
@given(
    windows=slid(),
    channels=st.integers(1, 3),
    seed=st.integers(0, 99),
    outside=st.sampled_from([0, -1]),
)
def test_windows_equal_plain_python(windows, channels, seed, outside):  # fmt: skip
    x = codes(windows, channels, seed)
    depth = windows.kernel[0] * windows.kernel[1] * channels
    out = np.full((2, *windows.positions, depth), 77, np.int8)
    window_rows(x, *windows.kernel, *windows.stride, *windows.padding, outside, out)
    geometry = (windows.kernel, windows.stride, windows.padding)
    for image, rows in zip(x.tolist(), out.tolist(), strict=True):
        expected = plain.windows(image, *geometry)
        assert rows == [[[outside if k is None else k for k in w] for w in row] for row in expected]


@SETTINGS
@given(windows=slid(), seed=st.integers(0, 99))
def test_what_a_window_sees_equals_plain_python(windows, seed):
    """`seen` and `regions` say which of the kernel's positions are inside: exactly those."""
    image = codes(windows, 1, seed)[0].tolist()
    rows, cols = windows.seen(0), windows.seen(1)
    slid_over = plain.windows(image, windows.kernel, windows.stride, windows.padding)
    assert (len(slid_over), len(slid_over[0])) == windows.positions
    covered = set()
    for region in windows.regions():
        for i in region.rows:
            for j in region.cols:
                assert (region.kernel_rows, region.kernel_cols) == (rows[i], cols[j])
                covered.add((i, j))
    for i, row in enumerate(slid_over):
        for j, window in enumerate(row):
            inside = [k for k, code in enumerate(window) if code is not None]
            width = windows.kernel[1]
            assert inside == [u * width + v for u in rows[i] for v in cols[j]]
            assert bool(inside) == ((i, j) in covered)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
@pytest.mark.parametrize(
    ("kernel", "stride"), [((2, 2), (2, 2)), ((3, 1), (1, 2)), ((1, 1), (3, 3)), ((3, 3), (2, 2))]
)
def test_max_pool_equals_plain_python(dtype, kernel, stride):  # fmt: skip
    windows = Windows((5, 6), kernel, stride)
    x = codes(windows, 3, 1, dtype)
    out = np.zeros((2, *windows.positions, 3), dtype)
    max_pool_rows(x, *kernel, *stride, out)
    assert out.tolist() == [plain.max_pool(image, kernel, stride) for image in x.tolist()]
