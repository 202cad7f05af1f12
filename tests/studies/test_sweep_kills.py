"""A few kills of `kills.py` in the suite; the script runs hundreds."""

from __future__ import annotations

from pathlib import Path

import kills


def test_a_sweep_that_is_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    happened = kills.kill_until_whole(tmp_path, kills=4, trials=20, seed=1)
    assert happened["of_coordinators"] > 0
    assert happened["of_workers"] > 0
    assert happened["of_coordinators"] + happened["of_workers"] == happened["kills"] == 4
    assert happened["attempts"] == happened["nodes"] + happened["failed_attempts"]
