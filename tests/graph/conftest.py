"""A finished export, for tests that load, replace or damage it."""

from __future__ import annotations

from pathlib import Path

import pytest
from exports import RECORD, samples
from hand_made import (
    every_operator,
)

from hwsim.graph.serialize import save


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The folder of an export with samples, a record and a tokenizer file."""
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    folder = tmp_path / "model"
    save(folder, every_operator(), samples(), RECORD, {"tokenizer.json": tokenizer})
    return folder
