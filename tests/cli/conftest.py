"""One tiny export for all commands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bitexact"))


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A W2A8 text classifier with 12 padded sentences."""
    from lowbit_students import build

    folder = tmp_path_factory.mktemp("cli") / "sentences"
    build("bert", "kd_w2a8", folder)
    return folder
