from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.data.batches import BucketedBatches, in_order

lengths = st.lists(st.integers(1, 64), min_size=1, max_size=300)


@settings(derandomize=True, deadline=None)
@given(lengths, st.integers(1, 40), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_sees_no_row_twice_and_all_batches_are_full(
    rows: list[int], size: int, seed: int, epoch: int
) -> None:
    batches = BucketedBatches(np.array(rows), size, seed)
    seen = batches.epoch(epoch)
    assert len(seen) == batches.per_epoch
    flat = np.concatenate(seen)
    assert len(set(flat.tolist())) == len(flat)
    assert len(flat) == (len(rows) // size * size or len(rows))


@settings(derandomize=True, deadline=None)
@given(lengths, st.integers(1, 40), st.integers(0, 60))
def test_a_resumed_position_goes_on_as_if_never_stopped(
    rows: list[int], size: int, start: int
) -> None:
    batches = BucketedBatches(np.array(rows), size, seed=3)
    whole = list(islice(batches.start_at(0), start + 5))
    resumed = list(islice(batches.start_at(start), 5))
    for a, b in zip(whole[start:], resumed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_epochs_and_seeds_differ() -> None:
    rows = np.ones(64, np.int64)
    first = BucketedBatches(rows, 8, 0)
    assert not (np.concatenate(first.epoch(0)) == np.concatenate(first.epoch(1))).all()
    other = BucketedBatches(rows, 8, 1)
    assert not (np.concatenate(first.epoch(0)) == np.concatenate(other.epoch(0))).all()


def test_rows_of_a_batch_have_similar_lengths_and_batches_are_not_sorted() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(4, 128, 4000)
    batches = BucketedBatches(rows, 32, 0).epoch(0)
    padded = sum(int(rows[b].max()) * len(b) for b in batches)
    real = sum(int(rows[b].sum()) for b in batches)
    assert padded / real < 1.05
    means = np.array([rows[b].mean() for b in batches])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_evaluation_sees_every_row_once() -> None:
    rows = np.array([5, 1, 9, 2, 2])
    batches = in_order(rows, 2)
    assert [b.tolist() for b in batches] == [[1, 3], [4, 0], [2]]
