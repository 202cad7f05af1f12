"""What several tests of studies share."""

from __future__ import annotations

import pytest


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a report's static figures out: drawing them takes most of its time, and the test is about other things."""
    monkeypatch.setattr("studies.report.study_figures", lambda *_: {})
