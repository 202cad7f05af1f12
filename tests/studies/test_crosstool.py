"""Comparison with other tools: their inputs, their outputs as they were recorded, and the page. Neither is installed."""

from __future__ import annotations

import configparser
import copy
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hwsim.arch.machine import Machine
from hwsim.config.load import load_machine
from hwsim.errors import CheckpointError, ConfigError, DataError
from hwsim.graph.dtype import parse
from hwsim.mapping.gemm import Tiling
from studies.crosstool import loops, ours, scalesim, tools, zigzag
from studies.crosstool.page import BEGIN, page_with_tables
from studies.crosstool.products import BERT, SMALL, Product, own_machine
from studies.crosstool.reasons import (
    UNEXPLAINED,
    part_reasons,
    reasons,
    systolic_reasons,
    word_reasons,
)

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "studies" / "results" / "crosstool.json"
PAGE = ROOT / "docs" / "crosstool.md"
BY_NAME = {p.name: p for p in (*SMALL, *BERT)}
DOT = Path(tools.__file__).parent / "machines" / "dot.yaml"


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def dot() -> Machine:
    return own_machine("dot")


# -- what the tools are given


def test_zigzag_gets_sizes_ports_and_energies_of_our_file() -> None:
    changes = [
        "memories.weights.capacity_bytes=4096",
        "arrays.main.energy.lane_op_fj.value=50.0",
        "arrays.main.rows=4",
        "arrays.main.activation_port_bits_per_cycle=256",
        "memories.activations.read_width_bits=256",
        "memories.sums.read_width_bits=1024",
        "memories.sums.write_width_bits=1024",
    ]
    fixed = [f"memories.{name}.fixed=true" for name in ("activations", "weights", "sums")]
    given = zigzag.accelerator(load_machine(DOT, [*changes, *fixed]))
    memories = given["memories"]
    assert list(memories) == ["accumulators", "activations", "weights", "sums", "dram"]
    assert (memories["weights"]["size"], memories["activations"]["size"]) == (32768, 524288)
    assert memories["activations"]["ports"] == [
        {"name": "r_port_1", "type": "read", "bandwidth_min": 256, "bandwidth_max": 256, "allocation": ["I1, tl"]},
        {"name": "w_port_1", "type": "write", "bandwidth_min": 64, "bandwidth_max": 64, "allocation": ["I1, fh"]},
    ]  # fmt: skip
    assert {port["bandwidth_max"] for port in memories["sums"]["ports"]} == {1024}
    assert all(memories[name]["force_double_buffering"] for name in ("activations", "sums"))
    assert (memories["accumulators"]["r_cost"], memories["accumulators"]["w_cost"]) == (0.0, 4.0)
    assert memories["dram"]["r_cost"] == memories["dram"]["w_cost"] == 64 * 31.25
    (port,) = memories["dram"]["ports"]
    assert (port["bandwidth_max"], len(port["allocation"])) == (64, 8)
    assert given["operational_array"]["sizes"] == [4, 8, 8]
    assert given["operational_array"]["unit_energy"] == pytest.approx(0.05)


def test_a_machine_with_parts_that_zigzag_has_no_word_for_is_refused_with_all_of_them() -> None:
    changes = ["dram.latency_cycles=7", "arrays.main.pipeline_depth_cycles=2"]
    with pytest.raises(ConfigError) as refused:
        zigzag.accelerator(load_machine(DOT, [*changes, "memories.sums.buffering=single"]))
    assert refused.value.faults == (
        "crosstool_dot: arrays.main.pipeline_depth_cycles must be 0",
        "crosstool_dot: dram.latency_cycles must be 0",
        "crosstool_dot: memories.sums.buffering must be double",
    )
    with pytest.raises(ConfigError, match="kind int"):
        zigzag.accelerator(own_machine("systolic_output"))


def test_zigzag_gets_the_product_and_the_loops(dot: Machine) -> None:
    (layer,) = zigzag.workload(BY_NAME["odd"], 32)
    assert dict(zip(layer["loop_dims"], layer["loop_sizes"], strict=True)) == {
        "M": 17,
        "N": 33,
        "K": 50,
    }
    assert layer["operand_precision"] == {"O": 32, "O_final": 32, "W": 8, "I": 8}
    (free,) = zigzag.mapping(dot)
    assert free["spatial_mapping"] == {"D1": ["M, 8"], "D2": ["N, 8"], "D3": ["K, 8"]}
    assert "temporal_ordering" not in free
    (given,) = zigzag.mapping(dot, [("K", 6), ("M", 2)])
    assert given["temporal_ordering"] == [["K", 6], ["M", 2]]


def test_scalesim_gets_array_buffers_and_bandwidth_of_our_file() -> None:
    machine = own_machine("systolic_weight")
    parser = configparser.ConfigParser()
    parser.read_string(scalesim.config(machine, "a_run"))
    array = parser["architecture_presets"]
    assert (array["ArrayHeight"], array["ArrayWidth"], array["Dataflow"]) == ("16", "16", "ws")
    assert [array[f"{x}sramszkB"] for x in ("ifmap", "filter", "ofmap")] == ["64"] * 3
    assert array["Bandwidth"] == parser["layout"]["IfmapSRAMBankBandwidth"] == "8"
    assert parser["run_presets"]["InterfaceBandwidth"] == "USER"
    assert scalesim.topology(SMALL[2:3]) == "Layer,M,N,K,\nodd,17,33,50,\n"


def test_a_machine_that_scalesim_does_not_know_is_refused(dot: Machine) -> None:
    with pytest.raises(ConfigError) as refused:
        scalesim.config(dot, "a_run")
    assert refused.value.faults == (
        "crosstool_dot: arrays.main must be of kind systolic_output or systolic_weight",
        "crosstool_dot: arrays.main.lanes must be 1",
    )
    changes = ["dram.latency_cycles=3", "arrays.main.weight_port_bits_per_cycle=64"]
    with pytest.raises(ConfigError) as slow:
        scalesim.config(load_machine(DOT.with_name("systolic_weight.yaml"), changes), "a_run")
    assert slow.value.faults == (
        "crosstool_systolic_weight: arrays.main: ports must feed a step a cycle",
        "crosstool_systolic_weight: dram.latency_cycles must be 0",
    )


# -- what comes back

ZIGZAG_ANSWER = {
    "wall_s": 0.3, "latency": 161.0, "ideal": 8.0, "stall": 0, "onload": 32.0, "offload": 121.0,
    "energy_pj": 393386.24,
    "accesses": {
        "O": [{"rd_out_to_low": 512, "wr_in_by_low": 512, "rd_out_to_high": 256, "wr_in_by_high": 0},
              {"rd_out_to_low": 0, "wr_in_by_low": 4, "rd_out_to_high": 4, "wr_in_by_high": 0},
              {"rd_out_to_low": 0, "wr_in_by_low": 128, "rd_out_to_high": 0, "wr_in_by_high": 0}],
        "I": [{"rd_out_to_low": 8, "wr_in_by_low": 0, "rd_out_to_high": 0, "wr_in_by_high": 32},
              {"rd_out_to_low": 32, "wr_in_by_low": 0, "rd_out_to_high": 0, "wr_in_by_high": 0}],
        "W": [{"rd_out_to_low": 8, "wr_in_by_low": 0, "rd_out_to_high": 0, "wr_in_by_high": 32},
              {"rd_out_to_low": 32, "wr_in_by_low": 0, "rd_out_to_high": 0, "wr_in_by_high": 0}],
    },
    "loops": {
        "I": [[["K", 2], ["N", 2], ["M", 2]], []],
        "O": [[["K", 2]], [["N", 2], ["M", 2]], []],
        "W": [[["K", 2], ["N", 2], ["M", 2]], []],
    },
}  # fmt: skip
"""ZigZag 3.9.1 on 16 x 16 x 16"""

COMPUTE_REPORT = """\
LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %, Mapping Efficiency %, Compute Util %,
0, 124, 61, 0, 26.229508196721312, 100.0, 20.77922077922078,
1, 1335, 755, 0, 14.512624172185431, 53.7109375, 11.706229967948719,
"""
ACCESS_REPORT = """\
LayerID, SRAM IFMAP Start Cycle, SRAM IFMAP Stop Cycle, SRAM IFMAP Reads, SRAM Filter Start Cycle, SRAM Filter Stop Cycle, \
SRAM Filter Reads, SRAM OFMAP Start Cycle, SRAM OFMAP Stop Cycle, SRAM OFMAP Writes,
0, 17.0, 47.0, 256, 1.0, 16.0, 256, 31.0, 61.0, 256,
1, 17.0, 727.0, 2550, 1.0, 709.0, 1650, 31.0, 740.0, 2244,
"""
"""SCALE-Sim 3.0.0, weights stay, `16` and `odd`"""


def test_an_answer_of_zigzag_is_read(dot: Machine) -> None:
    found = zigzag.read_answer(ZIGZAG_ANSWER)
    assert found.cycles == found.ideal + found.stall + found.onload + found.offload == 161
    assert found.bus_cycles == 128 + 32 + 32
    # the whole product on chip: one tile, in any order of loops, and W stays
    choices = loops.tiling_of(BY_NAME["16"], dot, found)
    assert {(t.tm, t.tn, t.tk, stays) for t, stays in choices} == {(16, 16, 16, True)}


def test_reports_of_scalesim_are_read_and_follow_its_closed_form() -> None:
    products = [BY_NAME["16"], BY_NAME["odd"]]
    found = scalesim.read_reports(COMPUTE_REPORT, ACCESS_REPORT, products)
    assert found[1] == scalesim.Report(755, 0, 1335, 2550, 1650, 2244)
    assert found == [scalesim.expected(p, own_machine("systolic_weight")) for p in products]
    with pytest.raises(DataError, match="must have 1 rows, has 2"):
        scalesim.read_reports(COMPUTE_REPORT, ACCESS_REPORT, products[:1])
    with pytest.raises(DataError, match="no column 'Stall Cycles'"):
        scalesim.read_reports(COMPUTE_REPORT.replace("Stall", "Idle"), ACCESS_REPORT, products)


# -- mappings carried over


def test_our_mapping_becomes_loops_and_comes_back(dot: Machine) -> None:
    product = BY_NAME["attention"]
    mine = ours.Ours((8, 64, 384), "weight", (8, 8, 8), 0, 0, 0, 0.0)
    order = loops.order_of(product, dot, mine)
    assert order == [("K", 48), ("N", 8), ("M", 16), ("K", 2), ("N", 12)]
    cut = {
        "I": [order[:2], order[2:]],
        "W": [order[:3], order[3:]],
        "O": [order[:1], order[1:4], order[4:]],
    }
    theirs = zigzag.Theirs(0, 0, 0, 0, 0, 0, 0.0, cut)
    assert loops.tiling_of(product, dot, theirs) == [
        (Tiling(8, 64, 384, "weight", (8, 8, 8)), False)
    ]
    # N outside of M outside of K is an order that we do not have
    cut = {op: [order[:2], [("K", 2), ("M", 16), ("N", 12)]] for op in "IW"}
    cut["O"] = [order[:1], order[1:2], [("K", 2), ("M", 16), ("N", 12)]]
    assert loops.tiling_of(product, dot, zigzag.Theirs(0, 0, 0, 0, 0, 0, 0.0, cut)) == []


def test_uneven_mappings_and_partial_sums_in_dram_are_not_in_our_space(dot: Machine) -> None:
    # ZigZag's choice for ffn1: all of K of 32 rows of A stays for every N, W and sums do not
    order = [("K", 16), ("N", 24), ("M", 4), ("K", 6), ("N", 16), ("M", 4)]
    uneven = {"I": [order[:5], order[5:]], "W": [order[:3], order[3:]]}
    uneven["O"] = [order[:1], order[1:4], order[4:]]
    product = BY_NAME["ffn1"]
    assert loops.tiling_of(product, dot, zigzag.Theirs(0, 0, 0, 0, 0, 0, 0.0, uneven)) == []
    even = uneven | {"I": [order[:3], order[3:]]}
    (found,) = loops.tiling_of(product, dot, zigzag.Theirs(0, 0, 0, 0, 0, 0, 0.0, even))
    assert found == (Tiling(32, 192, 128, "output", (8, 8, 8)), False)
    partial = even | {"O": [order[:1], order[1:3], order[3:]]}
    assert loops.tiling_of(product, dot, zigzag.Theirs(0, 0, 0, 0, 0, 0, 0.0, partial)) == []


def test_tiles_that_are_no_loops_are_not_carried_over(dot: Machine) -> None:
    # 7 rows a tile are 3 tiles of one block; 18 columns would be 2 tiles of 3 blocks, and the whole has 5
    uneven = ours.Ours((7, 18, 50), "activation", (8, 8, 8), 0, 0, 0, 0.0)
    assert loops.order_of(BY_NAME["odd"], dot, uneven) is None


def test_a_given_mapping_costs_what_the_mapper_says_of_its_choice(dot: Machine) -> None:
    product = Product("stripes", 64, 512, 512)
    mine = ours.best(product, dot, "cycles", "INT32")
    again = ours.price(
        product, dot, Tiling(*mine.tile, mine.order, mine.block), weights_stay=False, result="INT32"
    )
    assert again is not None
    assert again == mine
    too_large = Tiling(64, 512, 512, "output", (8, 8, 8))
    assert ours.price(product, dot, too_large, weights_stay=False, result="INT32") is None


# -- environments


def test_an_environment_is_made_once_and_again_for_other_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def pretend(command: list[str], folder: Path, limit_s: float) -> str:
        commands.append(command)
        if command[1:3] == ["-m", "venv"]:
            Path(command[-1]).mkdir(exist_ok=True)
        return ""

    monkeypatch.setattr(tools, "call", pretend)
    one = tools.Tool("thing", ("thing==1",))
    python = tools.environment(one, tmp_path, 5)
    assert commands[0] == [sys.executable, "-m", "venv", "--clear", str(tmp_path / "thing")]
    assert commands[1] == [str(python), "-m", "pip", "install", "--quiet", "thing==1"]
    assert tools.environment(one, tmp_path, 5) == python
    assert len(commands) == 2
    tools.environment(tools.Tool("thing", ("thing==2",)), tmp_path, 5)
    assert commands[3][-1] == "thing==2"


def test_environments_are_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert tools.default_folder() == Path("/somewhere/bitwright/crosstool")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert tools.default_folder() == Path.home() / ".cache" / "bitwright" / "crosstool"


def test_every_requirement_is_pinned() -> None:
    for tool in (tools.ZIGZAG, tools.SCALESIM):
        assert all("==" in requirement for requirement in tool.requirements)


def test_a_tool_sees_none_of_our_packages_and_its_failure_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = [sys.executable, "-c"]
    assert (
        tools.call([*run, "import os; print(os.environ.get('PYTHONPATH'))"], tmp_path, 60)
        == "None\n"
    )
    with pytest.raises(ConfigError, match=r"failed: ValueError: no$"):
        tools.call([*run, "raise ValueError('no')"], tmp_path, 60)
    with pytest.raises(ConfigError, match="must end within 0 s; give it more with --limit"):
        tools.call([*run, "import time; time.sleep(30)"], tmp_path, 0.3)


def test_the_driver_gets_files_and_its_answers_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pretend(command: list[str], folder: Path, limit_s: float) -> str:
        assert command[:2] == ["python", "-P"]  # or our zigzag.py would stand in front of theirs
        (job,) = json.loads((folder / "jobs.json").read_text())
        assert json.loads(Path(job["workload"]).read_text())[0]["loop_sizes"] == [16, 16, 16]
        (folder / "answers.json").write_text(json.dumps([ZIGZAG_ANSWER]))
        return ""

    monkeypatch.setattr(tools, "call", pretend)
    job = {"accelerator": {}, "workload": zigzag.workload(BY_NAME["16"], 32), "mapping": [], "opt": "latency", "lpf_limit": 6}  # fmt: skip
    assert tools.run_zigzag(Path("python"), tmp_path, [job], 5) == [ZIGZAG_ANSWER]


# -- the record and the page


def test_the_page_is_what_the_record_says(record: dict[str, Any]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == page_with_tables(page, record), (
        "rewrite it with `python -m studies.crosstool tables`"
    )
    with pytest.raises(CheckpointError, match="must have the lines"):
        page_with_tables(page.replace(BEGIN, ""), record)


def test_every_difference_has_a_reason_that_the_page_gives(record: dict[str, Any]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    letters = {
        x for row in record["zigzag"] for goal in ("cycles", "energy") for x in reasons(row, goal)
    }
    letters |= {
        x
        for m in record["scalesim"].values()
        for row in m["rows"]
        for x in (*systolic_reasons(row), *word_reasons(row))
    }
    letters |= {x for row in record["zigzag"] for x in part_reasons(row)}
    assert UNEXPLAINED not in letters
    assert f"| {UNEXPLAINED} |" not in page
    assert letters == set("ABCDEFGH")
    assert all(f"**{letter}." in page for letter in letters)


def test_a_difference_without_its_arithmetic_is_not_explained(record: dict[str, Any]) -> None:
    row = copy.deepcopy(next(r for r in record["zigzag"] if r["product"]["name"] == "64"))
    assert reasons(row, "cycles") == ["A", "C"]
    assert reasons(row, "energy") == []
    row["goals"]["cycles"]["theirs"]["cycles"] += 1
    row["goals"]["energy"]["theirs"]["energy_pj"] *= 1.06
    assert UNEXPLAINED in reasons(row, "cycles")
    assert UNEXPLAINED in reasons(row, "energy")
    for name, letter in (("token", "H"), ("odd", "B"), ("attention", "D")):
        part = copy.deepcopy(next(r for r in record["zigzag"] if r["product"]["name"] == name))
        assert part_reasons(part) == [letter]
        part["goals"]["cycles"]["ours"]["compute_cycles" if letter == "H" else "bus_cycles"] *= 2
        assert part_reasons(part)[-1] == UNEXPLAINED
    fold = copy.deepcopy(record["scalesim"]["systolic_output"]["rows"][0])
    assert systolic_reasons(fold) == ["E", "F"]
    fold["theirs"]["compute"] += 1
    assert systolic_reasons(fold) == [UNEXPLAINED, "F"]


def test_the_record_is_of_the_machines_beside_it_and_of_all_products(
    record: dict[str, Any], dot: Machine
) -> None:
    assert record["inputs"]["zigzag"] == zigzag.accelerator(dot)
    for name, text in record["inputs"]["scalesim"].items():
        assert text == scalesim.config(own_machine(name), name)
    assert record["config"]["products"] == [asdict(p) for p in (*SMALL, *BERT)]
    assert [row["product"] for row in record["zigzag"]] == record["config"]["products"]
    for tool in (tools.ZIGZAG, tools.SCALESIM):
        assert record["versions"][tool.name]["pinned"] == list(tool.requirements)


def test_recorded_closed_forms_are_those_of_the_code(record: dict[str, Any], dot: Machine) -> None:
    for row in record["zigzag"]:
        p = Product(**row["product"])
        assert row["resident_cycles"] == zigzag.resident_cycles(p, dot, 32)
        assert row["resident_words"] == zigzag.resident_words(p, dot, 32)
    code = parse("INT8")
    for name, machine in record["scalesim"].items():
        ours_now = own_machine(name)
        for row in machine["rows"]:
            p = Product(**row["product"])
            assert row["closed_form"] == asdict(scalesim.expected(p, ours_now))
            assert row["ours"]["compute"] == ours_now.arrays["main"].cycles(
                p.m, p.n, p.k, code, code
            )
