"""The placement of a graph against every possible one, tried one by one."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwsim.config.load import load_machine
from hwsim.engine.energy import Prices
from hwsim.engine.memory_plan import make_program, room
from hwsim.errors import CapacityError
from hwsim.graph.dtype import int_, parse
from hwsim.graph.ir import QuantGraph
from hwsim.mapping import placement
from hwsim.mapping.mapper import Mapper
from hwsim.mapping.objective import Objective
from hwsim.mapping.placement import Placer
from hwsim.mapping.problems import Places, ProblemMaker
from hwsim.mapping.site import DRAM, Site

if TYPE_CHECKING:
    from graph_maker import GraphMaker


SHARED = Path(__file__).parent / "shared_buffer.yaml"


def branches(g: GraphMaker) -> QuantGraph:
    """Two branches from one tensor, and their sum."""
    int8 = parse("INT8")
    g.input("x", int8, 6, 8)
    g.requant("a", "x", int8)
    for name in ("b", "c"):
        g.node(name, "linear", ("a",), int_(32), (6, 8), {"weight": (int8, (8, 8))})
        g.requant(f"{name}q", name, int8)
    constants = {"M": (parse("UINT31"), (2,)), "S": (parse("UINT6"), (2,))}
    g.node("y", "add", ("bq", "cq"), int8, (6, 8), constants)
    g.requant("z", "y", int8)
    return g.build(("x",), ("z",), 0)


def every_placement(maker: ProblemMaker, mapper: Mapper) -> list[tuple[float, float]]:
    """Return the worth of all homes of tensors in which they fit, the simplest way."""
    program, site, worths = maker.program, maker.site, []
    inner = [r for r in program.life if r not in program.external]
    held = sum(program.stores[name].bytes for name in maker.backed)
    for chosen in product((site.activation, *site.levels), repeat=len(inner)):
        homes = dict(zip(inner, chosen, strict=True))
        total = (0.0, 0.0)
        for i, group in enumerate(program.groups):
            alive = [r for r in inner if program.life[r][0] <= i <= program.life[r][1]]
            live = sum(program.sizes[r] for r in alive if homes[r] == site.activation)
            behind = sum(program.sizes[r] for r in alive if homes[r] == "shared")
            if "shared" in site.levels and behind + held > site.capacity_bytes("shared"):
                break
            inputs = tuple(homes.get(program.roots[t], DRAM) for t in group.head.inputs)
            posed = maker.pose(i, Places(inputs, homes.get(group.output, DRAM)))
            free = room(site, posed.transient_bytes, live)
            found = mapper.best(posed.problem, free) if min(free.values()) >= 0 else None
            if found is None:
                break
            total = total[0] + found.worth[0], total[1] + found.worth[1]
        else:
            worths.append(total)
    return worths


@pytest.mark.parametrize("goal", ["cycles", "energy"])
@pytest.mark.parametrize("capacity", [128, 300, 400, 1000])
def test_the_placement_is_the_best_of_all(goal: str, capacity: int, maker: GraphMaker) -> None:
    graph = branches(maker)
    machine = load_machine(
        "toy", [f"memories.buffer.capacity_bytes={capacity}", "memories.buffer.fixed=true"]
    )
    site, prices = Site(machine), Prices(machine)
    mapper = Mapper(site, prices, Objective(goal))  # type: ignore[arg-type]
    posed = ProblemMaker(graph, make_program(graph, 1), site, "steady", frozenset())
    worths = every_placement(posed, mapper)
    if not worths:
        with pytest.raises(CapacityError, match="not even the smallest tile fits"):
            Placer(posed, mapper).place()
        return
    found = Placer(posed, mapper).place()
    assert found is not None
    assert found.worth == pytest.approx(min(worths))
    assert found.gap_frac == 0
    assert len(set(worths)) > 1  # so that the choice matters
    assert Placer(posed, mapper).place(cutoff=found.worth[0]) == found
    assert Placer(posed, mapper).place(cutoff=found.worth[0] * 0.999) is None
    groups = range(len(posed.program.groups))
    assert 0 < sum(map(Placer(posed, mapper).least, groups)) <= found.worth[0]


@pytest.mark.parametrize(
    ("goal", "near", "far"),
    [("cycles", 128, 200), ("cycles", 300, 200), ("cycles", 300, 1000), ("energy", 200, 96)],
)
def test_the_placement_is_the_best_of_all_with_a_memory_behind(
    goal: str, near: int, far: int, maker: GraphMaker
) -> None:
    graph = branches(maker)
    sizes = [f"memories.{m}.capacity_bytes={n}" for m, n in (("buffer", near), ("shared", far))]
    fixed = [f"memories.{m}.fixed=true" for m in ("buffer", "shared")]
    machine = load_machine(SHARED, [*sizes, *fixed])
    site, prices = Site(machine), Prices(machine)
    mapper = Mapper(site, prices, Objective(goal))  # type: ignore[arg-type]
    program = make_program(graph, 1)
    backed = {"b.weight": "shared"} if far > 96 else {}
    posed = ProblemMaker(graph, program, site, "steady", frozenset(), backed)
    worths = every_placement(posed, mapper)
    found = Placer(posed, mapper).place()
    assert found is not None
    assert found.worth == pytest.approx(min(worths))
    assert found.gap_frac == 0 or goal == "energy"
    assert len(set(worths)) > 1
    groups = range(len(program.groups))
    assert 0 < sum(map(Placer(posed, mapper).least, groups)) <= found.worth[0]


def test_where_states_are_left_out_the_gap_is_reported(
    maker: GraphMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = branches(maker)
    machine = load_machine(
        "toy", ["memories.buffer.capacity_bytes=400", "memories.buffer.fixed=true"]
    )
    site = Site(machine)
    mapper = Mapper(site, Prices(machine))
    posed = ProblemMaker(graph, make_program(graph, 1), site, "steady", frozenset())
    exact = Placer(posed, mapper).place()
    monkeypatch.setattr(placement, "STATE_LIMIT", 1)
    hasty = Placer(posed, mapper).place()
    assert exact is not None
    assert hasty is not None
    assert hasty.bound <= exact.worth[0] <= hasty.worth[0]
    assert hasty.gap_frac == (hasty.worth[0] - hasty.bound) / hasty.bound
