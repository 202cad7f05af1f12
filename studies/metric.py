"""The metric of a task as a study needs it: which way is better, in what numbers it is written, what a difference is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hwsim.metrics import LOWER_IS_BETTER
from studies.statistics import Estimate, mean_interval

SCORE = "score"
"""what a model is judged by beside its costs: its value of the task's metric"""


@dataclass(frozen=True, slots=True)
class Metric:
    """One of `hwsim.metrics`, by which the models of a study are judged."""

    key: str
    name: str
    """in the middle of a sentence"""
    bounds: tuple[float, float]
    """smallest and largest possible score"""
    factor: float = 100.0
    """from a score to the number that people read"""
    decimals: int = 1
    unit: str = ""
    """of that number"""
    relative: bool = False
    """whether scores are compared by their ratio, as those that grow exponentially with the loss are"""

    @property
    def more_is_better(self) -> bool:
        """Whether the larger score is the better one."""
        return self.key not in LOWER_IS_BETTER

    @property
    def title(self) -> str:
        """At the head of a column."""
        return self.name[0].upper() + self.name[1:]

    def head(self, of: str = "") -> str:
        """Return the head of a column or axis of bare numbers, with their unit.

        >>> METRICS["accuracy"].head("on the test set"), METRICS["perplexity"].head()
        ('Accuracy on the test set (%)', 'Perplexity')
        """
        words = f"{self.title} {of}".rstrip()
        return f"{words} ({self.unit})" if self.unit else words

    @property
    def best(self) -> str:
        """What the best score is called."""
        return "highest" if self.more_is_better else "lowest"

    @property
    def difference_unit(self) -> str:
        """Unit of `difference`."""
        return "%" if self.relative else "points"

    @property
    def difference_words(self) -> str:
        """The same in the words of a table's text."""
        return f"per cent of the {self.name}" if self.relative else "percentage points"

    def number(self, score: float) -> str:
        """Write a score without its unit."""
        return f"{self.factor * score:.{self.decimals}f}"

    def text(self, score: float) -> str:
        """Write a score.

        >>> METRICS["accuracy"].text(0.5).replace("\\N{NO-BREAK SPACE}", " "), METRICS["perplexity"].text(3.14159)
        ('50.0 %', '3.14')
        """
        return self.number(score) + (f"\N{NO-BREAK SPACE}{self.unit}" if self.unit else "")

    def range_text(self, low: float, high: float) -> str:
        """Write an interval of scores."""
        return f"{self.number(low)}–{self.text(high)}"

    def mean(self, scores: Iterable[float]) -> Estimate:
        """Return the mean of scores with its 95 % t interval."""
        return mean_interval(list(scores), bounds=self.bounds)

    def gain(self, score: float) -> float:
        """Return what differences are taken of, the more the better: the score, or minus the logarithm of a perplexity.

        The latter is minus the loss in nats, so equal gains are equal shares of a perplexity whatever its size.
        """
        worth = math.log(score) if self.relative else score
        return worth if self.more_is_better else -worth

    def score(self, gain: float) -> float:
        """Return the score of a gain.

        >>> round(METRICS["perplexity"].score(METRICS["perplexity"].gain(12.5)), 9)
        12.5
        """
        worth = gain if self.more_is_better else -gain
        return math.exp(worth) if self.relative else worth

    def gains(self, scores: Mapping[int, float]) -> dict[int, float]:
        """Return the gain of each seed's score."""
        return {seed: self.gain(score) for seed, score in scores.items()}

    def difference(self, gain: float) -> str:
        """Write a difference of gains as one of scores: in points, or in per cent of a perplexity.

        >>> METRICS["accuracy"].difference(0.012), METRICS["perplexity"].difference(0.01)
        ('+1.2', '-1.0')
        """
        if self.relative:
            return f"{100 * math.expm1(gain if self.more_is_better else -gain):+.1f}"
        return f"{100 * (gain if self.more_is_better else -gain):+.1f}"

    def difference_ends(self, low: float, high: float) -> tuple[str, str]:
        """Write an interval of gains as one of scores, the smaller end first."""
        ends = (low, high) if self.more_is_better else (high, low)
        return self.difference(ends[0]), self.difference(ends[1])


_SHARE, _CORRELATION = (0.0, 1.0), (-1.0, 1.0)

METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("accuracy", "accuracy", _SHARE, unit="%"),
        Metric("f1", "F1", _SHARE, unit="%"),
        # the tables of GLUE give a hundred times a correlation
        Metric("matthews", "Matthews correlation × 100", _CORRELATION),
        Metric("pearson", "Pearson correlation × 100", _CORRELATION),
        Metric("spearman", "Spearman correlation × 100", _CORRELATION),
        Metric("perplexity", "perplexity", (1.0, math.inf), factor=1.0, decimals=2, relative=True),
    )
}
"""all of `hwsim.metrics.METRICS`"""
