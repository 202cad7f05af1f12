"""What tests of cost share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from graph_maker import GraphMaker, attention_block
from view_cases import Case, make_cases

from hwsim.graph.ir import QuantGraph


@pytest.fixture(scope="session")
def block() -> Callable[..., QuantGraph]:
    return attention_block


@pytest.fixture(scope="session")
def cases(block: Callable[..., QuantGraph]) -> dict[str, Case]:
    """Costed graphs for the tests of the views."""
    return make_cases(block)


@pytest.fixture
def maker() -> GraphMaker:
    return GraphMaker()
