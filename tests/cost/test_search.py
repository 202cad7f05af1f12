"""`hwsim.cost`: every row is that of one machine by itself, to the last bit, and what cannot differ is searched once."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_maker import two_products

import hwsim
from hwsim.config.load import load_machine
from hwsim.engine.cost import CostReport, cost
from hwsim.engine.energy import Prices
from hwsim.errors import ConfigError, GraphError
from hwsim.graph.dtype import int_
from hwsim.graph.ir import QuantGraph
from hwsim.mapping.gemm import GemmProblem
from hwsim.mapping.mapper import Mapper
from hwsim.mapping.memo import Memo, RememberingMapper
from hwsim.mapping.objective import Objective
from hwsim.mapping.site import Site
from hwsim.search import Costs, Variant

SHARED = str(Path(__file__).parent / "shared_buffer.yaml")
WIDE = {"width": 16, "heads": 2, "length": 8}


def quantity(value: float) -> dict[str, Any]:
    return {"value": value, "low": value / 2, "high": 2 * value, "kind": "assumed", "source": "x"}


SPACE: dict[str, list[Any]] = {
    "clock_hz": [100_000_000, 300_000_000],
    "arrays.main.rows": [2, 4],
    "arrays.main.lanes": [8, 16],
    "arrays.main.weight_port_bits_per_cycle": [32, 512],
    "arrays.main.pipeline_depth_cycles": [0, 6],
    "arrays.main.energy.lane_op_fj": [quantity(1), quantity(500)],
    "memories.weight_sram.capacity_bytes": [16384, 65536],
    "memories.activation_sram.capacity_bytes": [16384, 65536],
    "dma.energy_pj_per_bit": [quantity(0.1), quantity(10)],
    "memories.activation_sram.buffering": ["single", "double"],
    "dram.bandwidth_bytes_per_s": [200_000_000, 3_200_000_000],
    "dma.channels": [1, 2],
    "dma.overhead_cycles": [4, 16],
    "vector_unit.lanes": [4, 16],
    "vector_unit.operators.requant.cycles_per_row": [0, 3],
    "control_pj_per_step": [quantity(1), quantity(100)],
    "idle.clock_pj_per_cycle": [quantity(0.1), quantity(50)],
}


def points(count: int, seed: int) -> list[dict[str, Any]]:
    """Return parameter vectors, each two keys away from the one before, as a search makes them."""
    draw = random.Random(seed)
    point = {key: values[0] for key, values in SPACE.items()}
    found = []
    for _ in range(count):
        for key in draw.sample(list(SPACE), 2):
            point = {**point, key: draw.choice(SPACE[key])}
        found.append(point)
    return found


def by_itself(graph: QuantGraph, v: Variant, objective: Objective = Objective()) -> CostReport:
    texts = []
    for key, value in v.settings:
        flow = value
        if isinstance(value, dict):
            flow = "{" + ", ".join(f"{k}: {x}" for k, x in value.items()) + "}"
        texts.append(f"{key}={flow}")
    return cost(graph, load_machine(v.machine, texts), objective=objective)


def assert_same(costs: Costs, i: int, alone: CostReport) -> None:
    assert costs.refusal[i] == ""
    assert costs.cycles_cold[i] == alone.latency_cycles["cold"]
    assert costs.cycles_steady[i] == alone.latency_cycles["steady"]
    assert costs.clock_hz[i] == alone.clock_hz
    band = alone.energy_pj
    found = (costs.energy_low_pj[i], costs.energy_pj[i], costs.energy_high_pj[i])
    assert found == (band.low, band.nominal, band.high)
    assert costs.energy_cold_pj[i] == alone.cold.ledger.total.nominal
    for name in ("weight_bytes", "resident_bytes", "peak_activation_bytes"):
        assert getattr(costs, name)[i] == alone.memory[name]


def test_rows_are_those_of_machines_by_themselves(block: Callable[..., QuantGraph]) -> None:
    graph = block("INT8", "TERNARY", **WIDE)
    machines = hwsim.vary("ternary_edge", points(3, 7))
    costs = hwsim.cost(graph, machines)
    assert len(costs) == len(machines)
    for i, v in enumerate(machines):
        assert_same(costs, i, by_itself(graph, v))


@pytest.mark.parametrize(("objective", "count"), [("cycles", 12), ("energy", 1)])
def test_rows_of_many_parameter_vectors(objective: Any, count: int) -> None:
    graph = two_products()
    machines = hwsim.vary("ternary_edge", points(count, 11))
    costs = hwsim.cost(graph, machines, objective)
    assert count == 1 or len({int(x) for x in costs.cycles_steady}) > 4
    for i, v in enumerate(machines):
        assert_same(costs, i, by_itself(graph, v, Objective(objective)))


def test_rooms_widths_and_shared_memories() -> None:
    graph = two_products()
    machines = hwsim.vary(
        SHARED,
        [
            {f"memories.{name}.{key}": v for key, v in (("capacity_bytes", size), ("fixed", True))}
            | {f"memories.{name}.read_width_bits": width}
            for name in load_machine(SHARED).memories
            for size, width in ((4096, 64), (1536, 64), (65536, 64), (65536, 32))
        ],
    )
    costs = hwsim.cost(graph, machines)
    for i, v in enumerate(machines):
        assert_same(costs, i, by_itself(graph, v))


def test_prices_and_ample_room_search_nothing_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = two_products()
    searched: list[object] = []
    plain = Mapper.fastest

    def counted(self: Mapper, p: Any, free: Any) -> Any:
        searched.append(p)
        return plain(self, p, free)

    monkeypatch.setattr(Mapper, "fastest", counted)
    hwsim.cost(graph, ["ternary_edge"])
    once = len(searched)
    assert once > 0
    same: dict[str, list[Any]] = {
        "dram.energy_pj_per_bit": [quantity(1), quantity(9)],
        "memories.weight_sram.capacity_bytes": [65536, 131072],
    }
    searched.clear()
    hwsim.cost(graph, ["ternary_edge", *hwsim.vary("ternary_edge", same)])
    assert len(searched) == once
    searched.clear()
    hwsim.cost(
        graph, ["ternary_edge", *hwsim.vary("ternary_edge", {"dma.width_bits_per_cycle": [8]})]
    )
    assert once < len(searched) < 2 * once  # products that move something


def test_equal_cycles_are_told_apart_by_each_machines_own_prices() -> None:
    """The memory must not keep the cheapest of the first machine."""
    memo = Memo()
    chosen = []
    for read, write in ((1.0, 1000.0), (1000.0, 1.0)):
        unit_pj = {"buffer.read": read, "buffer.write": write, "weights.read": write}
        sets = [
            f"memories.{k}_pj={{value: {v}, kind: assumed, source: x}}" for k, v in unit_pj.items()
        ]
        fixed = ["memories.buffer.fixed=true", "memories.weights.fixed=true"]
        machine = load_machine("toy", [*fixed, *sets])
        site, prices = Site(machine), Prices(machine)
        mappers = (
            RememberingMapper(site, prices, Objective(), memo),
            Mapper(site, prices, Objective()),
        )
        p = GemmProblem(
            "main", 1, 24, 40, 36, int_(8), int_(8), int_(32), 40, "stream", "chip", "weights",
            False, (), (0,), 0,
        )  # fmt: skip
        free = {m: site.capacity_bytes(m) for m in machine.memories}
        remembered, plain = (m.best(p, free) for m in mappers)
        assert remembered == plain
        chosen.append(plain)
    assert chosen[0] is not None
    assert len({(m.tile, m.order, m.block) for m in chosen if m is not None}) == 2


def test_machines_that_cannot_run_are_rows() -> None:
    graph = two_products()
    bad = [
        {"arrays.main.rows": 0},
        {"arrays.main.rowz": 4},
        {},
        {"memories.weight_sram.capacity_bytes": 3 * 2**40},
    ]
    costs = hwsim.cost(
        graph, [*hwsim.vary("ternary_edge", bad), "xnorbin", load_machine("ternary_edge")]
    )
    assert costs.ok.tolist() == [False, False, True, False, False, True]
    assert "arrays.main.rows=0: arrays.main.rows: must" in costs.refusal[0]
    assert "did you mean 'rows'" in costs.refusal[1]
    assert "cannot run this graph" in costs.refusal[4]
    assert costs.cycles_steady[0] == -1
    assert np.isnan(costs.energy_pj[0])
    assert costs.cycles_steady[2] == costs.cycles_steady[5] > 0
    table = costs.to_dict()
    assert table["cycles_cold"][0] is None
    assert table["settings"][0] == {"arrays.main.rows": 0}
    rows = costs.rows()
    assert [r["energy_pj"] for r in rows] == table["energy_pj"]
    assert [r["machine"] for r in costs.at(costs.ok).rows()] == ["ternary_edge", "ternary_edge"]


def test_processes_give_the_same_rows() -> None:
    graph = two_products()
    machines: list[Any] = [
        *hwsim.vary("ternary_edge", {"dma.channels": [1, 2, 0]}),
        load_machine("int8_edge"),
    ]
    one, two = hwsim.cost(graph, machines), hwsim.cost(graph, machines, workers=2)
    assert one.to_dict() == two.to_dict()
    assert one.ok.tolist() == [True, True, False, True]


def test_what_is_no_machines_fault_is_raised(block: Callable[..., QuantGraph]) -> None:
    graph = block("INT8", "TERNARY", **WIDE)
    with pytest.raises(ConfigError, match="did you mean 'ternary_edge'"):
        hwsim.cost(graph, ["ternary_edg"])
    with pytest.raises(GraphError, match="sequence length must be 1 to 8, not 9"):
        hwsim.cost(graph, ["ternary_edge"], length=9)
    with pytest.raises(ConfigError, match="must be a list of values, not 4"):
        hwsim.vary("ternary_edge", {"arrays.main.rows": 4})  # type: ignore[arg-type]
    assert len(hwsim.cost(graph, [])) == 0


def test_area_is_that_of_all_parts() -> None:
    graph = two_products()
    costs = hwsim.cost(graph, [*hwsim.vary("ternary_edge", {"arrays.main.rows": [4, 8]}), "toy"])
    main = load_machine("ternary_edge").areas_um2["array:main"]
    assert main is not None
    assert costs.area_um2[1] - costs.area_um2[0] == pytest.approx(main, rel=1e-12)
    assert np.isnan(costs.area_um2[2])
    assert costs.to_dict()["area_um2"][2] is None
