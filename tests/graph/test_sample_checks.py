"""Samples that a graph cannot run are refused with the row and the place."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import attention_block

from hwsim.graph.sample_checks import sample_faults

GRAPH = attention_block("INT8", "INT8", width=16, length=6)  # ids of a table of 50 rows, masked
IDS = np.arange(12).reshape(2, 6)
LENGTHS = np.array([6, 3])


def test_what_fits_has_no_faults() -> None:
    assert sample_faults(GRAPH, {"ids": IDS}, LENGTHS) == []
    assert sample_faults(GRAPH, {"ids": IDS[:, :4]}, np.array([4, 1])) == []


@pytest.mark.parametrize(
    ("ids", "lengths", "text"),
    [
        (np.where(IDS == 9, 50, IDS), LENGTHS, "inputs.ids: row 1 [3]: must be 0 to 49 (the table of emb), is 50"),
        (np.where(IDS == 2, -1, IDS), LENGTHS, "inputs.ids: row 0 [2]: must be 0 to 65535 (UINT16), is -1"),
        (IDS.reshape(2, 2, 3), LENGTHS, "inputs.ids: must be [N, T] with T of 1 to 6, is [2, 2, 3]"),
        (np.zeros((2, 7), np.int64), LENGTHS, "inputs.ids: must be [N, T] with T of 1 to 6, is [2, 7]"),
        (IDS, np.array([6, 0]), "lengths: must be [2] whole numbers of 1 to 6"),
        (IDS, np.array([6, 7]), "lengths: must be [2] whole numbers of 1 to 6"),
        (IDS, np.array([6]), "lengths: must be [2] whole numbers of 1 to 6"),
        (IDS, None, "lengths: the model masks padding and needs the length of each sequence"),
    ],
)  # fmt: skip
def test_a_fault_names_its_row(ids: np.ndarray, lengths: np.ndarray | None, text: str) -> None:
    assert text in sample_faults(GRAPH, {"ids": ids}, lengths)
