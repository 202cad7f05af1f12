import numpy as np
from sklearn.datasets import load_digits as read_digits

from qat.data.digits import PARTS, committed_split, load_digits, make_split


def test_the_committed_split_is_the_one_that_the_seeded_function_draws() -> None:
    assert make_split(read_digits().target.astype(np.int64)) == committed_split()


def test_another_seed_draws_another_split() -> None:
    labels = read_digits().target.astype(np.int64)
    assert make_split(labels, seed=1) != committed_split()


def test_the_parts_have_their_sizes_and_share_no_image() -> None:
    split = committed_split()
    assert {part: len(ids) for part, ids in split.items()} == {"train": 1077, **PARTS}
    assert sorted(i for ids in split.values() for i in ids) == list(range(1797))


def test_each_class_has_its_share_in_each_part() -> None:
    labels = read_digits().target
    for part, ids in committed_split().items():
        shares = np.bincount(labels[ids], minlength=10) / len(ids)
        whole = np.bincount(labels, minlength=10) / 1797
        assert np.abs(shares - whole).max() < 1.0 / len(ids), part


def test_pixels_are_the_images_scaled_to_one() -> None:
    parts = load_digits()
    test = parts["test"]
    raw = read_digits().images
    assert test.pixels.shape == (540, 1, 8, 8)
    assert test.pixels.dtype == np.float32
    np.testing.assert_array_equal(test.pixels[7, 0] * 16, raw[test.ids[7]])
    batch = test.batch([7, 3])
    assert batch["pixel_values"].shape == (2, 1, 8, 8)
    assert batch["labels"].tolist() == test.labels[[7, 3]].tolist()
