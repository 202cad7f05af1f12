"""What every tool is asked: matrix products, and machines that two tools can describe alike."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from hwsim.arch.machine import Machine
from hwsim.config.load import load_machine


@dataclass(frozen=True, slots=True)
class Product:
    """An int8 product: acc[m, n] = sum_k a[m, k] * w[n, k]."""

    name: str
    m: int
    n: int
    k: int


SMALL = (
    Product("16", 16, 16, 16),
    Product("token", 1, 64, 64),
    Product("odd", 17, 33, 50),
    Product("oblong", 48, 40, 24),
    Product("64", 64, 64, 64),
)
"""All operands fit every buffer; `odd` and `oblong` are no multiples of an array."""

BERT = (
    Product("attention", 128, 768, 768),
    Product("ffn1", 128, 3072, 768),
    Product("ffn2", 128, 768, 3072),
)
"""The products with weights of a layer of BERT-base at 128 tokens; four of them are `attention`."""


def own_machine(name: str) -> Machine:
    """Return one of the machines beside this file: `dot`, `systolic_output` or `systolic_weight`."""
    return load_machine(Path(str(files("studies.crosstool"))) / "machines" / f"{name}.yaml")
