"""Students are made once a session, when a test first asks for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lowbit_students import Student, build

GetStudent = Callable[[str, str], Student]


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> GetStudent:
    """`student(family, recipe)`: captured, calibrated, frozen, lowered and saved."""
    made: dict[tuple[str, str], Student] = {}
    root = tmp_path_factory.mktemp("exports")

    def get(family: str, recipe: str) -> Student:
        if (family, recipe) not in made:
            made[family, recipe] = build(family, recipe, root / f"{family}-{recipe}")
        return made[family, recipe]

    return get
