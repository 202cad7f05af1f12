"""The real data sets, as they lie in the folder that BITWRIGHT_DATA names."""

from __future__ import annotations

import os

import pytest

from qat.data.spec import CarveOut, NamedTask
from qat.data.task import load_task
from qat.pretrained import load_tokenizer

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("BITWRIGHT_DATA" not in os.environ, reason="BITWRIGHT_DATA is not set"),
]


# rows without the header; MRPC has a byte-order mark and unbalanced quotes
@pytest.mark.parametrize(
    ("name", "train", "dev", "texts"),
    [("sst2", 67_349, 872, 1), ("mrpc", 3_668, 408, 2), ("rte", 2_490, 277, 2)],
)
def test_every_row_is_read(name: str, train: int, dev: int, texts: int) -> None:
    by_rows = CarveOut(whole=False)
    task = load_task(NamedTask(name=name, validation=by_rows), load_tokenizer("minilm"))
    assert len(task.train) + len(task.validation) == train
    assert len(next(iter(task.tests.values()))) == dev
    assert {len(row) for row in task.train.texts[:100]} == {texts}
    assert set(task.train.labels.tolist()) == {0, 1}
    assert not set(task.train.ids.tolist()) & set(task.validation.ids.tolist())


def test_phrases_of_held_out_sentences_of_sst2_are_not_trained_on() -> None:
    task = load_task(NamedTask(name="sst2"), load_tokenizer("minilm"))
    held_out, train = (
        [" " + " ".join(row[0].lower().split()) + " " for row in part.texts]
        for part in (task.validation, task.train)
    )
    assert len(held_out) == 688  # a tenth of the whole sentences
    assert 60_000 < len(held_out) + len(train) < 67_349
    # what stands in a held-out sentence all the same (a single word, a saying) stands in a trained one too
    for text in train[:: len(train) // 300]:
        if any(text in sentence for sentence in held_out):
            assert any(text in other and text != other for other in train), text


def test_a_batch_is_padded_on_the_right() -> None:
    task = load_task(NamedTask(name="sst2"), load_tokenizer("minilm"))
    dev = next(iter(task.tests.values()))
    batch = dev.batch([0, 1, 2, 3])
    lengths = batch["attention_mask"].sum(1)
    assert batch["input_ids"].shape[1] == int(lengths.max())
    for ids, mask, length in zip(batch["input_ids"], batch["attention_mask"], lengths, strict=True):
        assert mask.tolist() == [1] * int(length) + [0] * (len(mask) - int(length))
        assert (ids[int(length) :] == 0).all()
