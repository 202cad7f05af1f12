"""Task metrics as fractions (1.0 is perfect) and the interval that belongs to an accuracy.

scipy and scikit-learn compute them; here is only the choice of predictions and of what a degenerate input gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hwsim.errors import DataError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray


def accuracy(predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the share of equal entries."""
    return float(np.mean(predictions == labels))


def f1(predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the F1 of class 1 where there are two classes (GLUE's), else the unweighted mean over classes."""
    from sklearn.metrics import f1_score

    binary = max(int(predictions.max()), int(labels.max())) <= 1
    average = "binary" if binary else "macro"
    return float(f1_score(labels, predictions, average=average, zero_division=0.0))


def matthews(predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the Matthews correlation, 0 where the predictions are constant."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


def pearson(predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the linear correlation, 0 where one side is constant (it explains nothing)."""
    from scipy.stats import pearsonr

    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(pearsonr(predictions, labels).statistic)


def spearman(predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the rank correlation, 0 where one side is constant."""
    from scipy.stats import spearmanr

    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(spearmanr(predictions, labels).statistic)


def token_nll(logits: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Return the negative log-likelihood of each of `labels` [N] under `logits` [N, V], in nats."""
    from scipy.special import logsumexp

    scores = logits.astype(np.float64)
    nll: NDArray[np.float64] = logsumexp(scores, axis=1) - scores[np.arange(len(labels)), labels]
    return nll


def perplexity(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return exp of the mean negative log-likelihood a token of `labels` [N] under `logits` [N, V]."""
    return math.exp(float(np.mean(token_nll(logits, labels))))


METRICS: Final[dict[str, Callable[[NDArray[Any], NDArray[Any]], float]]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
    "perplexity": perplexity,
}
CLASS_METRICS: Final = ("accuracy", "f1", "matthews")
REGRESSION_METRICS: Final = ("pearson", "spearman")
LOWER_IS_BETTER: Final = ("perplexity",)


def compute(names: Sequence[str], logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    """Return each named metric of logits [N, C] and labels [N].

    Class metrics judge the argmax (the lowest id at a tie, as the integer graph does), correlations the only column.
    Raises DataError for an unknown metric or for logits that are not finite.
    """
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        known = list(METRICS)
        raise DataError(
            f"metric '{unknown[0]}' is unknown; known: {', '.join(known)}{nearest(unknown[0], known)}"
        )
    if not np.isfinite(logits).all():
        raise DataError("the model's outputs are not finite: its metrics would mean nothing")
    values: dict[str, float] = {}
    for name in names:
        if name in REGRESSION_METRICS:
            values[name] = METRICS[name](logits[:, 0].astype(np.float64), labels.astype(np.float64))
        else:
            predictions = logits.argmax(axis=1) if name in CLASS_METRICS else logits
            values[name] = METRICS[name](predictions, labels)
    return values


def better(metric: str, new: float, old: float | None) -> bool:
    """Say whether `new` beats `old` (strictly: the earlier step wins a tie)."""
    if old is None:
        return True
    return new < old if metric in LOWER_IS_BETTER else new > old


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def pack_right(right: NDArray[np.bool_]) -> str:
    """Return which rows [N] a model got right as text: hexadecimal, the first row in the highest bit of the first byte."""
    return np.packbits(right).tobytes().hex()


def unpack_right(text: str, rows: int) -> NDArray[np.bool_]:
    """Return what `pack_right` packed of so many rows.

    Raises:
        DataError: the text is not that of so many rows.
    """
    packed = np.frombuffer(bytes.fromhex(text), np.uint8)
    if len(packed) != -(-rows // 8):
        raise DataError(f"{len(packed)} bytes of right and wrong answers do not hold {rows} rows")
    return np.unpackbits(packed, count=rows).astype(np.bool_)


def without_answers(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was measured without which rows were right: logs and records have no use for them."""
    return {key: value for key, value in measured.items() if key != "right"}
