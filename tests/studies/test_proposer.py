"""Ranges, spaces and samplers: what is proposed, that it depends on answers alone, and that it pays."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
from pydantic import ValidationError

from hwsim.errors import MissingExtra
from studies.axes import Range
from studies.front import hypervolume
from studies.proposed import REFUSED
from studies.proposer import Answer, Proposer
from studies.search_space import Axis, Key, Space
from studies.search_spec import Search

STEPS = 32
GRID = Space(Axis("machine", {"one": {f"key{i}": tuple(range(STEPS)) for i in range(4)}}))


def zdt1(key: Key) -> tuple[float, float]:
    """Two objectives whose front is reached where all keys but the first are 0 (Zitzler, Deb and Thiele 2000)."""
    x, *others = (value / (STEPS - 1) for value in key[0][1:])
    g = 1 + 9 * math.fsum(others) / len(others)
    return x, g * (1 - math.sqrt(x / g))


def propose(
    sampler: str, seed: int, trials: int, answer: Callable[[Key], Answer], late_first: bool = False
) -> list[Key]:
    search = Search.model_validate({"sampler": sampler, "trials": trials, "batch": 8})
    proposer = Proposer(GRID, search, seed, 2)
    found: list[Key] = []
    for _ in range(trials // 8):
        keys = proposer.propose(8)
        told = reversed(keys) if late_first else keys
        proposer.tell({key: answer(key) for key in told})
        found += keys
    return found


def volume(keys: list[Key]) -> float:
    return hypervolume(np.array([zdt1(key) for key in keys]), np.array([1.1, 11.0]))


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 40), ("nsga2", 96)])
def test_a_sampler_that_learns_beats_random_points(sampler: str, trials: int) -> None:
    def answer(key: Key) -> Answer:
        return Answer("measured", zdt1(key))

    learned = [volume(propose(sampler, seed, trials, answer)) for seed in range(5)]
    chance = [volume(propose("random", seed, trials, answer)) for seed in range(5)]
    better = sum(a > b for a, b in zip(learned, chance, strict=True))
    assert better >= 4
    assert np.mean(learned) > np.mean(chance) + 0.2

    # and only because of what it is told: with the objectives turned round it does worse than chance
    def turned(key: Key) -> Answer:
        return Answer("measured", tuple(-value for value in zdt1(key)))

    assert np.mean([volume(propose(sampler, seed, trials, turned)) for seed in range(1)]) < np.mean(chance)  # fmt: skip


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "random", "qmc"])
def test_proposals_follow_from_seed_and_answers_and_none_comes_twice(sampler: str) -> None:
    def answer(key: Key) -> Answer:
        return Answer("measured", zdt1(key))

    first = propose(sampler, 0, 48, answer)
    assert propose(sampler, 0, 48, answer) == first
    assert propose(sampler, 0, 48, answer, late_first=True) == first
    assert len(set(first)) == 48
    assert propose(sampler, 1, 48, answer) != first


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_points_that_break_constraints_or_are_refused_are_left_behind(sampler: str) -> None:
    def answer(key: Key) -> Answer:
        _, a, b, *_ = key[0]
        if a >= STEPS // 2:
            return Answer("measured", (0.0, 0.0), REFUSED)  # the best values, if they counted
        return Answer("measured", zdt1(key), max(0.0, (b - 8) / 8))

    def able(keys: list[Key]) -> float:
        return sum(answer(key).broken == 0 for key in keys) / len(keys)

    late = able(propose(sampler, 0, 80, answer)[40:])
    by_chance = 0.5 * 9 / STEPS
    assert late > 2 * by_chance


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_points_without_values_are_no_obstacle(state: str) -> None:
    def answer(key: Key) -> Answer:
        return Answer(state) if sum(key[0]) % 2 else Answer("measured", zdt1(key))  # type: ignore[arg-type]

    for sampler in ("tpe", "nsga2"):
        assert len(set(propose(sampler, 0, 48, answer))) == 48


def test_a_space_counts_its_points_and_reads_them_back() -> None:
    space = Space(
        Axis("model", {"a": {}, "b": {}}),
        Axis("machine", {"x": {"rows": (4, 8, 16), "name": ("p", "q")}, "y": {"rows": (1, 2)}}),
    )
    keys = list(space.all_keys())
    assert space.size == len(keys) == len(set(keys)) == 2 * (3 * 2 + 2)
    assert all(
        space.key({p.name: 0 for p in space.parameters} | space.chosen(k)) == k for k in keys
    )
    assert space.axes[1].settings((0, 2, 1)) == (("rows", 16), ("name", "q"))
    assert space.axes[1].label((1, 1)) == "y rows=2"
    assert {p.name: (p.count, p.ordered) for p in space.parameters} == {
        "model": (2, False),
        "machine": (2, False),
        "machine x: rows": (3, True),
        "machine x: name": (2, False),
        "machine y: rows": (2, True),
    }
    sizes = Axis("m", {"m": {"bytes": ("32KiB", "64KiB", "1MiB"), "down": (2, 1), "yes": (False, True)}})  # fmt: skip
    assert [p.ordered for p in sizes.parameters[1:]] == [True, False, False]


def test_a_space_is_proposed_whole() -> None:
    space = Space(Axis("machine", {"x": {"rows": (1, 2, 3)}, "y": {}}))
    for sampler in ("tpe", "nsga2", "qmc"):
        search = Search.model_validate({"sampler": sampler, "trials": 50})
        proposer = Proposer(space, search, 0, 2, first=[((0, 2),)])
        keys = proposer.propose(8)
        assert keys[0] == ((0, 2),)
        assert sorted(keys) == sorted(space.all_keys())
        assert proposer.exhausted
        proposer.tell({key: Answer("measured", (1.0, 1.0)) for key in keys})
        assert proposer.propose(8) == []


def test_ranges_go_in_steps_or_by_doubling() -> None:
    def values(**given: object) -> tuple[int | float, ...]:
        return Range.model_validate(given).values

    assert values(**{"from": 4, "to": 64, "step": 20}) == (4, 24, 44, 64)
    assert values(**{"from": 4, "to": 63, "step": 20}) == (4, 24, 44)
    assert values(**{"from": "1KiB", "to": "8KiB", "log2": True}) == (1024, 2048, 4096, 8192)
    assert values(**{"from": 3, "to": 13, "log2": True}) == (3, 6, 12)
    assert values(**{"from": 0.1, "to": 0.7, "step": 0.2}) == (0.1, 0.3, 0.5, 0.7)
    assert values(**{"from": 0, "to": 1, "step": 0.5}) == (0.0, 0.5, 1.0)
    assert all(isinstance(v, int) for v in values(**{"from": "1KiB", "to": "1MiB", "log2": True}))
    for wrong in ({"step": 0}, {"step": -1}, {}, {"step": 1, "log2": True}):
        with pytest.raises(ValidationError, match="step"):
            values(**{"from": 1, "to": 8, **wrong})
    with pytest.raises(ValidationError, match="from must be greater than 0 with log2"):
        values(**{"from": 0, "to": 8, "log2": True})


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"pip install 'bitwright\[search\]'"):
        Proposer(GRID, Search(trials=1), 0, 2)
