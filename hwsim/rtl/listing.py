"""The contractions of a model as a machine maps them: what vectors can be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.arch.machine import Machine
from hwsim.errors import GraphError
from hwsim.graph.serialize import Model
from hwsim.report.plain import say
from hwsim.rtl.product import MappedProduct
from hwsim.rtl.session import Session

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Listing:
    """The contractions of a model that vectors can be made of."""

    products: tuple[MappedProduct, ...]
    refused: tuple[str, ...]
    """why the others cannot"""

    def to_json(self) -> dict[str, Any]:
        """Return the list as plain data."""
        return {
            "operators": [
                {
                    "name": p.node.name,
                    "op": p.node.op,
                    "array": p.array.name,
                    "types": [t.name for t in p.types],
                    "product": list(p.shape),
                    "tile": list(p.tile),
                    "order": p.order,
                    "block": list(p.block),
                    "tiles": p.tiles,
                }
                for p in self.products
            ],
            "refused": list(self.refused),
        }

    def render(self, console: Console) -> None:
        """Print a line an operator."""
        width = max((len(p.node.name) for p in self.products), default=0)
        for p in self.products:
            a, w = p.types
            shape, tile, block = (" x ".join(map(str, x)) for x in (p.shape, p.tile, p.block))
            say(
                console,
                f"{p.node.name:<{width}}  {p.array.name}: {a} x {w}, batch x M x N x K = {shape}, tile {tile},"
                f" beat {block}, {p.tiles} tile{'s' if p.tiles > 1 else ''}",
            )
        for line in self.refused:
            say(console, line)


def list_products(
    model: Model | Path | str,
    machine: Machine | str,
    sample: int = 0,
    overrides: Sequence[str] = (),
) -> Listing:
    """Return the contractions of a model as they are mapped for one of its samples.

    Args:
        model: an export folder, or one that is loaded.
        machine: a shipped machine's name, a YAML file, or a loaded machine.
        sample: number of a stored sample, whose length the mapping is for.
        overrides: `key=value` changes of the machine.
    """
    session = Session(model, machine, overrides, range(sample, sample + 1))
    products, refused = [], []
    for name in session.rows:
        try:
            products.append(session.product(name, session.length))
        except GraphError as error:
            refused.append(str(error))
    return Listing(tuple(products), tuple(refused))
