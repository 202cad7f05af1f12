"""The cyclic collector is held back while a study is read, and is afterwards as it was."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from hwsim.errors import BitwrightError
from studies.collector import collector_paused
from studies.report import build_report


def test_it_is_on_again_after_an_error(tmp_path: Path) -> None:
    assert gc.isenabled()
    with pytest.raises(BitwrightError):
        build_report(tmp_path)
    assert gc.isenabled()


def test_within_it_is_off_and_a_second_pause_does_not_end_the_first() -> None:
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_one_that_is_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
