import numpy as np
import pytest

from hwsim import metrics
from hwsim.errors import DataError


def test_metrics_of_a_small_confusion_matrix_by_hand() -> None:
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    predictions = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 0])  # tp 3, fn 1, fp 1, tn 5
    logits = np.eye(2, dtype=np.float32)[predictions]
    values = metrics.compute(("accuracy", "f1", "matthews"), logits, labels)
    assert values["accuracy"] == pytest.approx(0.8)
    assert values["f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert values["matthews"] == pytest.approx((3 * 5 - 1 * 1) / np.sqrt(4 * 4 * 6 * 6))


def test_correlations_of_a_monotone_curve() -> None:
    x = np.linspace(0, 1, 20)
    values = metrics.compute(("pearson", "spearman"), (x**3)[:, None].astype(np.float32), x)
    assert values["spearman"] == pytest.approx(1.0)
    assert values["pearson"] == pytest.approx(np.corrcoef(x**3, x)[0, 1], abs=1e-6)


def test_constant_outputs_correlate_with_nothing() -> None:
    logits = np.ones((4, 1), np.float32)
    labels = np.arange(4.0)
    assert metrics.compute(("pearson", "spearman"), logits, labels) == {
        "pearson": 0.0,
        "spearman": 0.0,
    }
    same = np.tile(np.float32([0, 1]), (4, 1))
    assert metrics.compute(("matthews",), same, np.array([0, 1, 0, 1]))["matthews"] == 0.0


def test_perplexity_of_a_uniform_guess_is_the_vocabulary() -> None:
    assert metrics.perplexity(np.zeros((3, 256)), np.array([0, 7, 255])) == pytest.approx(256.0)


def test_wilson_interval_against_its_formula() -> None:
    z, n, p = 1.959963984540054, 10, 0.8
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert metrics.wilson_interval(8, 10) == pytest.approx((centre - half, centre + half))
    assert metrics.wilson_interval(10, 10)[1] == pytest.approx(1.0)


def test_a_tie_goes_to_the_lowest_class() -> None:
    assert (
        metrics.compute(("accuracy",), np.zeros((2, 3), np.float32), np.array([0, 1]))["accuracy"]
        == 0.5
    )


def test_outputs_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        metrics.compute(("accuracy",), np.array([[np.nan, 0.0]]), np.array([0]))


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"metric 'mathews' is unknown; .*did you mean 'matthews'"):
        metrics.compute(("mathews",), np.zeros((1, 2)), np.array([0]))


def test_perplexity_is_better_when_lower() -> None:
    assert metrics.better("perplexity", 10.0, 11.0)
    assert metrics.better("accuracy", 0.9, 0.8)
    assert not metrics.better("accuracy", 0.8, 0.8)
    assert metrics.better("accuracy", 0.1, None)
