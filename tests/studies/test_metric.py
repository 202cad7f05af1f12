"""The metrics of tasks: every one is known, and differences say which side is better."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim import metrics
from studies.metric import METRICS

PERPLEXITY, ACCURACY = METRICS["perplexity"], METRICS["accuracy"]


def test_every_metric_of_a_task_is_known() -> None:
    assert METRICS.keys() == metrics.METRICS.keys()
    for key, metric in METRICS.items():
        assert metric.key == key
        assert metric.more_is_better == metrics.better(key, 3.0, 2.0)
        assert metric.title[0].isupper()


@given(st.sampled_from(sorted(METRICS)), st.floats(1.0, 100.0), st.floats(1.0, 100.0))
def test_the_better_score_has_the_larger_gain(key: str, a: float, b: float) -> None:
    metric = METRICS[key]
    if metrics.better(key, a, b):
        assert metric.gain(a) >= metric.gain(b)
        assert metric.gain(a) > metric.gain(b) or math.isclose(a, b)
    assert metric.score(metric.gain(a)) == pytest.approx(a)


def test_a_difference_of_perplexities_is_a_share_whatever_their_size() -> None:
    for small, large in ((4.0, 5.0), (400.0, 500.0)):
        worse = PERPLEXITY.gain(large) - PERPLEXITY.gain(small)
        assert worse < 0
        assert PERPLEXITY.difference(worse) == "+25.0"
        assert PERPLEXITY.difference(-worse) == "-20.0"
    assert PERPLEXITY.difference_ends(-0.02, 0.01) == ("-1.0", "+2.0")
    assert ACCURACY.difference_ends(-0.02, 0.01) == ("-2.0", "+1.0")


def test_scores_are_written_as_their_field_writes_them() -> None:
    assert ACCURACY.range_text(0.5, 0.6).replace("\N{NO-BREAK SPACE}", " ") == "50.0–60.0 %"
    assert PERPLEXITY.range_text(3.0, 3.5) == "3.00–3.50"
    assert METRICS["matthews"].text(-0.057) == "-5.7"
    # an interval ends where the metric does
    assert PERPLEXITY.mean([1.1, 9.0]).low == 1.0
    assert METRICS["matthews"].mean([-0.9, 0.9]).low == -1.0
