"""Our side: the mapper's choice for a product, or the price of a given mapping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hwsim.arch.machine import Machine
from hwsim.engine.cost import cost
from hwsim.engine.energy import Prices
from hwsim.graph.dtype import parse
from hwsim.mapping.gemm import GemmProblem, Tiling, buffer_bytes
from hwsim.mapping.layout import Order
from hwsim.mapping.mapper import Mapper, Mapping, missing
from hwsim.mapping.objective import Objective
from hwsim.mapping.site import Site
from hwsim.mapping.tile import stored_bytes
from hwsim.workload import Workload, WorkloadSpec
from studies.crosstool.products import Product

Goal = Literal["cycles", "energy"]
ResultFormat = Literal["INT8", "INT32"]
OPERAND = "INT8"


@dataclass(frozen=True, slots=True)
class Ours:
    """What a product costs on our machine: `bus_cycles` is how long the link to DRAM is held."""

    tile: tuple[int, int, int]
    order: Order
    block: tuple[int, int, int]
    cycles: int
    compute_cycles: int
    bus_cycles: int
    energy_pj: float


def best(product: Product, machine: Machine, goal: Goal, result: ResultFormat) -> Ours:
    """Return the mapper's choice: operands begin in DRAM, the result ends there."""
    layer = {
        "name": product.name,
        "gemm": {"m": product.m, "n": product.n, "k": product.k},
        "activation": OPERAND,
        "weight": OPERAND,
        "result": result,
    }
    workload = Workload(
        WorkloadSpec.model_validate(
            {
                "schema": "hwsim/workload/1",
                "name": "product",
                "description": "one product",
                "source": "none",
                "energy_includes": "nothing",
                "layers": [layer],
            }
        )
    )
    cold = cost(workload.graph(), machine, objective=Objective(goal)).cold
    mapping = cold.operators[0].mapping
    if mapping is None:
        raise AssertionError("a product has a mapping")
    return _ours(mapping, cold.ledger.total.nominal)


def price(
    product: Product, machine: Machine, tiling: Tiling, *, weights_stay: bool, result: ResultFormat
) -> Ours | None:
    """Return what a given mapping costs, None where its buffers do not fit.

    Args:
        product: the product.
        machine: the machine.
        tiling: tile, order and block.
        weights_stay: W is loaded once into a place of its own instead of tile by tile.
        result: format of the stored result.
    """
    a, w = parse(OPERAND), parse(OPERAND)
    site = Site(machine)
    problem = GemmProblem(
        array=machine.array_for(a, w).name,
        batch=1,
        m=product.m,
        n=product.n,
        k=product.k,
        a=a,
        w=w,
        out=parse(result),
        out_row=product.n,
        a_place="stream",
        w_place="fill" if weights_stay else "stream",
        w_memory=site.weight,
        out_streams=True,
        epilogue=(),
        constant_bits=(),
        constant_fetch_bits=0,
    )
    free = {memory: site.capacity_bytes(memory) for memory in machine.memories}
    if weights_stay:
        free[site.weight] -= stored_bytes(w, (product.n, product.k))
    taken = buffer_bytes(problem, tiling, machine.arrays[problem.array], site)
    if min(free.values()) < 0 or missing(taken, free):
        return None
    mapping = Mapper(site, Prices(machine)).gemm_at(problem, tiling)
    return _ours(mapping, mapping.worth[1])


def _ours(mapping: Mapping, energy_pj: float) -> Ours:
    (tm, tn, tk), (r, c, l) = mapping.tile, mapping.block  # noqa: E741
    t = mapping.timeline
    order: Order = mapping.order  # type: ignore[assignment]
    return Ours((tm, tn, tk), order, (r, c, l), t.cycles, t.array_busy, t.bus_busy, energy_pj)
