"""Where the elements of an output tile stand once the operators behind the array have run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.graph.ir import Node
from hwsim.rtl.product import Array, MappedProduct


def positions_behind(product: MappedProduct, tensors: Mapping[str, Array]) -> npt.NDArray[np.int64]:
    """Return for every element of the last fused operator which element of the accumulators it is: flat.

    The operators work element by element; views between them move elements.

    Args:
        product: the contraction.
        tensors: every tensor of one sample, [1, *shape].
    """
    nodes = product.graph.by_name
    before = product.node.name
    shape = tensors[before].shape
    place = np.arange(tensors[before].size).reshape(shape)
    for name in product.fused:
        for view in _views_between(nodes, before, nodes[name]):
            if view.op == "permute":
                axes: Any = view.attrs["axes"]
                place = place.transpose(0, *(int(axis) + 1 for axis in axes))
            place = place.reshape(tensors[view.name].shape)
        before = name
    return np.ascontiguousarray(place).reshape(-1)


def _views_between(nodes: Mapping[str, Node], before: str, reader: Node) -> list[Node]:
    """Return the views that stand between a tensor and its reader, in order."""
    views: list[Node] = []
    name = reader.inputs[0]
    while name != before:
        views.insert(0, nodes[name])
        name = nodes[name].inputs[0]
    return views
