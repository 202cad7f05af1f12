"""What the exports of these tests hold beside the graph."""

from __future__ import annotations

import numpy as np
from hand_made import (
    inputs_of_every_operator,
)

from hwsim.graph.serialize import Samples

RECORD = {"samples": 3, "holds": True, "failures": []}


def samples() -> Samples:
    inputs, lengths = inputs_of_every_operator()
    return Samples(inputs, np.array([0, 1, 1]), lengths)
