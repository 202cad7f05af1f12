"""Joint draws of what points are judged by: energies over the unknowns that machines share, accuracies over seeds.

Draw d is one world. In it every unit energy has one value, on all machines, and every seed has pushed all students
that were trained with it the same way; so what two points share cancels when they are compared draw by draw.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from hwsim.engine.energy import Ledger

Draws = npt.NDArray[np.float64]
EnergyTerm = tuple[str, float, float]
"""(name of a physical unknown, its high / low, pJ that rest on it at its low)"""

ROWS_AT_ONCE = 2048
"""of a test set; their weights in all draws take 16 MB"""
KNOWN = ""
"""the name under which all pJ stand that rest on no spread"""


def energy_terms(ledger: Ledger) -> list[EnergyTerm]:
    """Return what an energy rests on, one term an unknown and spread: all that its draws need.

    In the world where an unknown lies at position u of its range the energy is the sum over terms of
    pj * spread ** u. The nominal energy is no part of it.
    """
    found: dict[tuple[str, float], list[float]] = {}
    for _, count in ledger.entries:
        price = ledger.prices.price(count.component, count.action)
        q = price.quantity
        key = (KNOWN, 1.0) if q.low == q.high else (price.name, q.high / q.low)
        found.setdefault(key, []).append(count.count * q.low * price.to_pj)
    return [(*key, math.fsum(found[key])) for key in sorted(found) if any(found[key])]


def mean_terms(rows: Sequence[Sequence[EnergyTerm]]) -> list[EnergyTerm]:
    """Return the terms of the mean of several energies: their draws are the mean of the draws."""
    found: dict[tuple[str, float], list[float]] = {}
    for name, spread, pj in (term for terms in rows for term in terms):
        found.setdefault((name, spread), []).append(pj / len(rows))
    return [(*key, math.fsum(found[key])) for key in sorted(found)]


def energy_draws(points: Sequence[Sequence[Sequence[EnergyTerm]]]) -> Draws:
    """Draw the energy of every point, its mean over its rows, in the same worlds.

    Args:
        points: of each point the `energy_terms` of each of its rows.

    Returns:
        [points, draws] pJ, those of `hwsim.engine.energy.Ledger.draws` up to the rounding of a sum.
    """
    from hwsim.engine.draws import DRAWS

    result = np.zeros((len(points), DRAWS))
    for index, rows in enumerate(points):
        for name, spread, pj in mean_terms(rows):
            result[index] += pj if name == KNOWN else pj * _growth(name, spread)
    return result


@lru_cache(maxsize=4096)  # 32 MB; a study's variants of a machine share theirs
def _growth(name: str, spread: float) -> Draws:
    """Return how many times its low each draw of an unknown is: [draws], read-only."""
    from hwsim.engine.draws import draw_position

    growth: Draws = spread ** draw_position(name)
    growth.setflags(write=False)
    return growth


def mean_draws(points: Sequence[Mapping[int, float]]) -> Draws:
    """Draw the mean of every point's values over its seeds, so that seeds stay paired.

    A mean's draws are m + t, with t = sum_s (x_s - m) z_s / sqrt(n (n - 1)) * sqrt((n - 1) / c): one standard normal
    z_s a seed and one chi-square c of n - 1 degrees of freedom, for all points alike. So each mean has Student's t
    distribution that `mean_interval` reports, and the difference of any two points with the same seeds has the one of
    `paired_effect`. A bootstrap of three seeds would have ten different resamples and a third too little variance.

    Args:
        points: of each point the value by seed.

    Returns:
        [points, draws]; not cut to what a mean can be, which would turn differences into ties. A point of one seed
        has the same value in all draws: nothing is known of its spread.
    """
    from scipy.stats import chi2, norm

    from hwsim.engine.draws import DRAWS, draw_position

    push = {s: norm.ppf(draw_position(f"study: seed {s}")) for s in set().union(*points)}
    position = draw_position("study: spread over seeds")
    widths = {n: np.sqrt(n * chi2.ppf(position, n - 1)) for n in {len(p) for p in points} - {1}}
    result = np.empty((len(points), DRAWS))
    for index, values in enumerate(points):
        count = len(values)
        mean = math.fsum(values.values()) / count
        result[index] = mean
        if count > 1:
            pushed = sum((v - mean) * push[s] for s, v in values.items())
            result[index] += pushed / widths[count]
    return result


def share_draws(name: str, correct: int, total: int) -> Draws:
    """Draw the share of a test set of any size of which `correct` of `total` samples were seen: [draws].

    From the posterior under Jeffreys' prior, Beta(correct + 1/2, total - correct + 1/2). The same name gives the same
    draws, other names independent ones: of models that met the same samples that overstates the doubt which is better
    (`answer_draws`).
    """
    from hwsim.engine.draws import DRAWS

    return _stream(name).beta(correct + 0.5, total - correct + 0.5, DRAWS)


def answer_draws(right: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, Draws]:
    """Draw the shares of models that answered the same samples: `share_draws` of each alone, paired between them.

    In each world every sample stands for so many like it, the same for all models (the Bayesian bootstrap: Rubin 1981, "The
    Bayesian bootstrap"), so that what two models answer alike cancels. Each model has half a right and half a wrong answer
    of its own beside them, which makes its own draws those of Beta(right + 1/2, wrong + 1/2).

    Args:
        right: by the model's name, which samples it got right: [samples], of one test set.

    Returns:
        [draws] by name.
    """
    from hwsim.engine.draws import DRAWS

    answers = np.array(list(right.values()), dtype=np.float64)
    own = np.array([_stream(name).standard_gamma(0.5, (2, DRAWS)) for name in right])
    hits, sums = own[:, 0].copy(), own.sum(axis=1)
    stream = _stream("test rows")
    for start in range(0, answers.shape[1], ROWS_AT_ONCE):
        part = answers[:, start : start + ROWS_AT_ONCE]
        weights = stream.standard_exponential((part.shape[1], DRAWS))
        hits += part @ weights
        sums += weights.sum(axis=0)
    return dict(zip(right, hits / sums, strict=True))


def _stream(name: str) -> np.random.Generator:
    from hwsim.engine.draws import SEED

    digest = hashlib.sha256(f"{SEED}/study: test set, {name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
