"""Run quantised transformers, bit for bit, on accelerators that a YAML file describes.

>>> import hwsim
>>> model = hwsim.load("MODEL")                      # doctest: +SKIP
>>> hwsim.verify(model, machine="xnor_edge").ok      # doctest: +SKIP
True
>>> hwsim.run(model, machine="xnor_edge").to_json()  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsim.api import decode, energy_ratio, run, verify
    from hwsim.graph.serialize import load
    from hwsim.random_weights import random_model
    from hwsim.search import cost, vary
    from hwsim.workload import cost_workload

__all__ = [
    "cost",
    "cost_workload",
    "decode",
    "energy_ratio",
    "load",
    "random_model",
    "run",
    "vary",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import on first use: listing machines must not wait for numba and torch."""
    if name in ("decode", "energy_ratio", "run", "verify"):
        from hwsim import api

        return getattr(api, name)
    if name in ("cost", "vary"):
        from hwsim import search

        return getattr(search, name)
    if name == "cost_workload":
        from hwsim.workload import cost_workload

        return cost_workload
    if name == "random_model":
        from hwsim.random_weights import random_model

        return random_model
    if name == "load":
        from hwsim.graph.serialize import load

        return load
    raise AttributeError(f"module 'hwsim' has no attribute {name!r}")
