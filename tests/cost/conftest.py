"""What tests of cost share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from graph_maker import GraphMaker, attention_block

from hwsim.graph.ir import QuantGraph


@pytest.fixture(scope="session")
def block() -> Callable[..., QuantGraph]:
    return attention_block


@pytest.fixture
def maker() -> GraphMaker:
    return GraphMaker()
