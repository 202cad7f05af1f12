"""Mappings carried over between ZigZag and us.

ZigZag writes a mapping as one order of loops, innermost first; each operand has its own cut of it into
memory levels. Loops are counted in blocks of the array: ZigZag unrolls the block itself spatially.
"""

from __future__ import annotations

from math import prod

from hwsim.arch.machine import Machine
from hwsim.arch.work import ceil_div
from hwsim.mapping.gemm import Tiling
from hwsim.mapping.layout import AXES, ORDERS
from studies.crosstool.ours import Ours
from studies.crosstool.products import Product
from studies.crosstool.zigzag import AXIS_NAMES, Loop, Theirs

RELEVANT = {"I": {"M", "K"}, "W": {"N", "K"}}
"""the dimensions of an input"""


def order_of(product: Product, machine: Machine, mapped: Ours) -> list[Loop] | None:
    """Return the loops of a mapping of ours, innermost first; None where ZigZag has no such loops.

    Its loops of a dimension multiply to the blocks of the whole array that cover it: no tile may be smaller than the
    others by more than its last block. A product of one block has none.
    """
    (array,) = machine.arrays.values()
    inside, tiles = [], []
    for size, part, tile, used in zip(
        (product.m, product.n, product.k),
        (array.spec.rows, array.spec.cols, array.spec.lanes),
        mapped.tile,
        mapped.block,
        strict=True,
    ):
        inside.append(ceil_div(tile, used))
        tiles.append(ceil_div(size, tile))
        if inside[-1] * tiles[-1] != ceil_div(size, part):
            return None
    inner = [(AXIS_NAMES[x], inside[x]) for x in reversed(AXES["output"])]
    outer = [(AXIS_NAMES[x], tiles[x]) for x in reversed(AXES[mapped.order])]
    return [loop for loop in (*inner, *outer) if loop[1] > 1] or None


def tiling_of(product: Product, machine: Machine, theirs: Theirs) -> list[tuple[Tiling, bool]]:
    """Return the mappings of ours that a mapping of ZigZag is: (tiling, whether W stays on chip as a whole).

    The tile is what lies below the lowest cut into the memories next to DRAM; the loops above it must be in
    the sequence of an order. Where they are not the list is empty: such a mapping is not in our space, nor is one
    with partial sums in DRAM, or one that keeps more than a tile of an input for later use (uneven).
    """
    (array,) = machine.arrays.values()
    block = (array.spec.rows, array.spec.cols, array.spec.lanes)
    sizes = (product.m, product.n, product.k)
    on_chip = {
        op: [x for level in levels[:-1] for x in level] for op, levels in theirs.loops.items()
    }
    above_w = {axis for axis, _ in theirs.loops["W"][-1]}
    weights_stay = not above_w & {"N", "K"}
    cuts = [len(loops) for op, loops in on_chip.items() if op != "W" or not weights_stay]
    order = on_chip["O"] + list(theirs.loops["O"][-1])
    inputs = "I" if weights_stay else "IW"
    if "K" in {axis for axis, _ in theirs.loops["O"][-1]} or any(
        _keeps_more(on_chip[op][min(cuts) :], RELEVANT[op]) for op in inputs
    ):
        return []
    below, above = order[: min(cuts)], order[min(cuts) :]
    tm, tn, tk = (
        min(size, part * prod(n for axis, n in below if axis == name))
        for size, part, name in zip(sizes, block, AXIS_NAMES, strict=True)
    )
    sequence = [axis for i, (axis, _) in enumerate(above) if i == 0 or above[i - 1][0] != axis]
    found = []
    for name in ORDERS:
        axes = [AXIS_NAMES[x] for x in reversed(AXES[name])]
        if sequence == [axis for axis in axes if axis in sequence]:
            found.append((Tiling(tm, tn, tk, name, block), weights_stay))
    return found


def _keeps_more(held: list[Loop], relevant: set[str]) -> bool:
    """Tell whether loops above a tile, innermost first, come back to parts of an input that another one replaced."""
    replaced = False
    for axis, _ in held:
        if axis in relevant:
            replaced = True
        elif replaced:
            return True
    return False
