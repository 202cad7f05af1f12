"""Points that Optuna proposes. What is proposed depends on the space, the seed and the answers in the order of proposal."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from hwsim.errors import MissingExtra
from studies.search_space import Key, Space
from studies.search_spec import Search

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.samplers import BaseSampler

REPEATS = 20
"""after so many points in a row that are known already, the next is drawn evenly from those that are not"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sampler is told of a point."""

    state: Literal["measured", "stopped", "failed"]
    """stopped: it was behind others before it was measured; failed: nothing is known of it"""
    values: tuple[float, ...] = ()
    """of each objective, to be made small; what a point holds that broke a constraint does not matter"""
    broken: float = 0.0
    """by how much constraints are broken; 0: all are kept"""


class Proposer:
    """Proposes every point of a space at most once.

    A sampler that proposes a known point again is told at once what is known of it, and asked again.

    Args:
        space: what it chooses from.
        search: the sampler and how large its generations are.
        seed: of the sampler.
        objectives: how many values an answer has.
        first: points to begin with.

    Raises:
        MissingExtra: Optuna is not installed.
    """

    def __init__(
        self, space: Space, search: Search, seed: int, objectives: int, first: Sequence[Key] = ()
    ) -> None:
        try:
            import optuna
        except ImportError:
            raise MissingExtra("optuna", "search") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self._study = optuna.create_study(
            directions=["minimize"] * objectives, sampler=_sampler(search, seed)
        )
        for key in first:
            self._study.enqueue_trial(space.chosen(key))
        self._rest = np.random.default_rng(seed)
        self._pending: list[tuple[Trial, Key]] = []
        self._answers: dict[Key, Answer] = {}
        self._proposed: set[Key] = set()

    @property
    def exhausted(self) -> bool:
        """Whether every point was proposed."""
        return len(self._proposed) == self.space.size

    def propose(self, count: int) -> list[Key]:
        """Return new points in the order of proposal; fewer where the space has no more."""
        found: list[Key] = []
        repeats = 0
        while len(found) < count and not self.exhausted:
            if repeats >= REPEATS:
                self._study.enqueue_trial(self.space.chosen(self._unknown()))
            trial = self._study.ask()
            key = self.space.key(self._choose(trial))
            repeats += 1
            if key in self._answers:
                self._tell(trial, self._answers[key])
                continue
            self._pending.append((trial, key))
            if key not in self._proposed:
                self._proposed.add(key)
                found.append(key)
                repeats = 0
        return found

    def tell(self, answers: Mapping[Key, Answer]) -> None:
        """Take answers. The sampler hears them in the order of proposal, whatever their order here."""
        self._answers.update(answers)
        for trial, key in self._pending:
            if key in answers:
                self._tell(trial, answers[key])
        self._pending = [(trial, key) for trial, key in self._pending if key not in answers]

    def _choose(self, trial: Trial) -> dict[str, int]:
        chosen = {}
        for p in self.space.parameters:
            if p.count == 1:
                chosen[p.name] = 0
            elif p.ordered:
                chosen[p.name] = trial.suggest_int(p.name, 0, p.count - 1)
            else:
                chosen[p.name] = int(trial.suggest_categorical(p.name, range(p.count)))
        return chosen

    def _tell(self, trial: Trial, answer: Answer) -> None:
        from optuna.trial import TrialState

        if answer.state == "failed":
            self._study.tell(trial, state=TrialState.FAIL)
        elif answer.state == "stopped":
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_constraint("constraints", answer.broken)
            self._study.tell(trial, answer.values)

    def _unknown(self) -> Key:
        """Draw a point that was not proposed yet."""
        if 2 * len(self._proposed) < self.space.size:
            while True:
                chosen = {p.name: int(self._rest.integers(p.count)) for p in self.space.parameters}
                key = self.space.key(chosen)
                if key not in self._proposed:
                    return key
        left = [key for key in self.space.all_keys() if key not in self._proposed]
        return left[int(self._rest.integers(len(left)))]


def _sampler(search: Search, seed: int) -> BaseSampler:
    from optuna import samplers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its Sobol sampler experimental
        match search.sampler:
            case "tpe":
                return samplers.TPESampler(seed=seed)
            case "nsga2":
                return samplers.NSGAIISampler(seed=seed, population_size=search.generation)
            case "nsga3":
                return samplers.NSGAIIISampler(seed=seed, population_size=search.generation)
            case "random":
                return samplers.RandomSampler(seed=seed)
            case "qmc":
                return samplers.QMCSampler(seed=seed, scramble=True)
