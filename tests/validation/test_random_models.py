"""Published machines execute networks of their own formats, bit for bit; a network costs what its workload costs."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hwsim import cost_workload, random_model
from hwsim.api import verify
from hwsim.chain import Link, links, reduced
from hwsim.cli import app
from hwsim.config.load import list_machines, load_machine, load_workload
from hwsim.engine.cost import cost
from hwsim.errors import CheckpointError, GraphError
from hwsim.graph.serialize import Model
from hwsim.reference import execute
from hwsim.workload import Workload, WorkloadSpec

OWN = [  # a machine and a network that its own publication ran
    ("chewbaccann", "resnet18_groupnet8"),
    ("cutie", "cutie_cifar10"),
    ("tcn_cutie", "cutie_cifar10"),
    ("finn_cnv", "cnv_w1a1"),
    ("finn_cnv", "cnv_w2a2"),
    ("fracbnn", "fracbnn_cifar10"),
    ("tereffic", "matmulfree_2_7b"),
]
NO_STAGE = {"bismo"}
"""machines whose arrays write accumulators: what follows is the host's"""
STRANGERS = [  # the rest: a small network in a format of theirs
    (name, index)
    for name, _ in list_machines(published=True)
    if name not in dict(OWN)
    for index in range(len(load_machine(name).spec.arrays["main"].formats))
]


def small(machine: str, index: int) -> Workload:
    """Two padded convolutions, one of them with a stride, a pooling between, and a dense layer, in one format."""
    on = load_machine(machine).spec
    pair = on.arrays["main"].formats[index]
    formats = {"activation": pair.activation, "weight": pair.weight, "result": pair.activation}
    pool = "max_pool" in on.output_stage or machine in NO_STAGE
    conv = {"kernel": [3, 3], "padding": 1}
    side = 4 if pool else 8
    layers = [
        {"name": "a", "conv": {**conv, "image": [8, 8], "channels": 5, "outputs": 6}},
        {
            "name": "b",
            "conv": {**conv, "image": [side, side], "channels": 6, "outputs": 9, "stride": 2, "padding_positions": "skipped"},
        },
        {"name": "c", "gemm": {"m": 1, "n": 4, "k": 9 * (side // 2) ** 2}},
    ]  # fmt: skip
    layers = [{**layer, **formats} for layer in layers]
    layers[-1]["result"] = "INT16"
    if pair.activation.startswith("INT") and "requant" not in on.output_stage:
        layers[0]["result"] = layers[1]["result"] = layers[1]["activation"] = layers[2]["activation"] = "BIPOLAR"  # fmt: skip
    return Workload(
        WorkloadSpec.model_validate(
            {
                "schema": "hwsim/workload/1", "name": "small", "description": "small", "source": "made up",
                "energy_includes": "nothing", "layers": layers,
            }
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory):
    """`models(workload)`: a shipped workload by 8, each once."""
    root = tmp_path_factory.mktemp("models")

    @lru_cache
    def get(name: str) -> Model:
        return random_model(name, root / name, reduce=8, samples=4)

    return get


@pytest.mark.parametrize(("machine", "workload"), OWN)
def test_a_published_machine_computes_its_own_network(machine, workload, models) -> None:
    found = verify(models(workload), machine)
    assert found.ok
    assert found.host == {}
    assert found.tensors == len(models(workload).graph.nodes)


@pytest.mark.parametrize(("machine", "index"), STRANGERS)
def test_a_published_machine_computes_a_small_network(machine, index, tmp_path) -> None:
    model = random_model(small(machine, index), tmp_path / "m", samples=3)
    ops = {n.op for n in model.graph.nodes}
    assert {"conv2d", "linear"} <= ops
    found = verify(model, machine, host=machine in NO_STAGE)
    assert found.ok
    host = {model.graph.by_name[name].op for name in found.host}
    assert host == (ops - {"conv2d", "linear", "reshape"} if machine in NO_STAGE else set())


def test_every_published_machine_is_here() -> None:
    named = {m for m, _ in OWN} | {m for m, _ in STRANGERS}
    assert named == {name for name, _ in list_machines(published=True)}


@pytest.mark.parametrize(("machine", "workload"), OWN)
def test_a_graph_costs_what_its_workload_costs(machine, workload, models) -> None:
    ours = cost(models(workload).graph, load_machine(machine))
    theirs = cost_workload(reduced(load_workload(workload), 8), machine)
    assert ours.latency_cycles == theirs.latency_cycles
    assert ours.energy_pj == theirs.energy_pj
    assert ours.memory == theirs.memory
    stage = [
        n for n in models(workload).graph.nodes if n.op in ("threshold", "requant", "max_pool")
    ]
    assert len([o for o in ours.steady.operators if o.unit == "output stage"]) == len(stage) > 0
    (left_out,) = set(ours.not_modelled) - set(theirs.not_modelled)
    assert left_out.startswith("the output stage, which runs")


def test_a_machine_with_a_vector_unit_pays_for_what_a_stage_has(models) -> None:
    """The same graph where thresholds and poolings are no part of the array."""
    on = load_machine("ternary_edge")
    report = cost(models("cutie_cifar10").graph, on)
    without = cost_workload(reduced(load_workload("cutie_cifar10"), 8), on)
    assert report.steady.cycles > without.steady.cycles
    pools = [o for o in report.steady.operators if o.op == "max_pool"]
    assert len(pools) == 4
    # conv2's codes: 8 x 8 x 12 windows of 4 codes, each looked at once
    looked = {c.action: c.count for c in pools[0].counts if c.component == "vector"}
    assert looked["element:max_pool"] == 8 * 8 * 12 * 4


def test_skipped_padding_costs_its_parts_behind_either_unit(tmp_path) -> None:
    """Layer `b` of the small network: 2 x 2 of its 4 output positions see 3 x 3 taps or fewer."""
    model = random_model(small("braintta", 0), tmp_path / "m", samples=2)
    counts = {}
    for name in ("braintta", "xnor_edge"):
        report = cost(model.graph, load_machine(name))
        rows = [o for o in report.steady.operators if o.node.startswith("b") and o.unit.startswith("array")]  # fmt: skip
        counts[name] = sum(
            c.count for o in rows for c in o.counts if c.action.startswith("lane_op")
        )
        assert len(rows) == 4
        assert [o.fused for o in rows if o.fused] == ([] if name == "braintta" else [
            ("b.codes",), ("b.codes.part1",), ("b.codes.part2",), ("b.codes.part3",),
        ])  # fmt: skip
    # rows see 2, 3 of a stride of 2 over 4 positions; so do columns
    assert counts["braintta"] == counts["xnor_edge"] == (2 + 3) ** 2 * 6 * 9


def test_codes_are_not_constant(models) -> None:
    for workload in ("cnv_w1a1", "cnv_w2a2", "cutie_cifar10"):
        model = models(workload)
        made = dict(execute(model.graph, model.samples.inputs))
        for node in model.graph.nodes:
            if node.op == "threshold":
                dtype = model.graph.tensors[node.name].dtype
                codes, times = np.unique(made[node.name], return_counts=True)
                assert len(codes) == (dtype.qmax - dtype.qmin) // dtype.step + 1, node.name
                assert times.min() > 0.02 * times.sum(), node.name


def test_reduction_keeps_the_kind() -> None:
    whole = load_workload("cnv_w1a1")
    by_8 = reduced(whole, 8)
    assert links(by_8) == links(whole)
    assert links(whole).count(Link(2, False)) == 2
    for before, after in zip(whole.spec.layers, by_8.spec.layers, strict=True):
        assert (before.activation, before.weight, before.result) == (after.activation, after.weight, after.result)  # fmt: skip
        if before.conv is not None:
            assert after.conv.kernel == before.conv.kernel
            assert after.conv.outputs == before.conv.outputs // 8
    assert by_8.spec.layers[0].conv.image == [
        32,
        32,
    ]  # a smaller image would leave the last layers nothing
    assert reduced(load_workload("resnet18_groupnet8"), 8).spec.layers[0].conv.image == [7, 7]
    assert reduced(whole, 1) is whole


def test_seeds_decide(tmp_path) -> None:
    made = [random_model(small("xne", 0), tmp_path / f"{i}", seed=s, samples=2) for i, s in enumerate((1, 1, 2))]  # fmt: skip
    assert made[0].sha256 == made[1].sha256 != made[2].sha256


def test_what_is_no_chain_is_refused(tmp_path) -> None:
    """Equal layers of Group-Net stand side by side; a model of Llama's layers does not say how they meet."""
    with pytest.raises(GraphError, match=r"layer stage2.first must read what stage2.first writes, \[28, 28, 128\] of BIPOLAR, not \[56, 56, 64\]"):  # fmt: skip
        random_model("resnet18_groupnet8", tmp_path / "m")
    with pytest.raises(GraphError, match="can be costed, not executed"):
        random_model("llama_3b_ternary", tmp_path / "m", reduce=64)


def test_the_command_line(tmp_path: Path) -> None:
    """The model is made in this process and verified in one of its own: exit code 0 is what a script sees."""
    out = tmp_path / "model"
    asked = ["random", "cutie_cifar10", "--out", str(out), "--reduce", "16", "--samples", "2"]
    made = CliRunner().invoke(app, asked)
    assert (made.exit_code, made.stderr) == (0, "")
    assert "cutie_cifar10_by_16 with random weights, 16 operators" in made.stdout
    verify_it = [sys.executable, "-m", "hwsim", "verify", str(out), "--machine", "bismo", "--host"]
    done = subprocess.run(verify_it, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "on the host, not verified: 5 threshold, 4 max_pool" in done.stdout
    assert "rung B: 0 unequal of 7 tensors" in done.stdout
    with pytest.raises(GraphError, match=r"vector operator threshold: conv1\.codes"):
        verify(out, "bismo")
    with pytest.raises(GraphError, match="linear of TERNARY x TERNARY: dense"):
        verify(out, "yodann", host=True)  # nothing would be left to verify


def test_a_seed_below_zero_is_refused(hwsim, tmp_path) -> None:
    done = hwsim("random", "cutie_cifar10", "--out", tmp_path / "model", "--seed", "-1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Invalid value for '--seed'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_nothing_but_an_export_is_replaced(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("text", encoding="utf-8")
    with pytest.raises(CheckpointError):
        random_model(small("xne", 0), tmp_path)
