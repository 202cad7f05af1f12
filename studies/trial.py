"""What the nodes do: train, export, evaluate, damage; or export untrained and cost. Each is a pure function of its call.

This file alone calls `qat` and `hwsim` for work, and it alone knows what their results look like: what
it returns is the study's own JSON, which tables and figures read.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.errors import BitwrightError, CapacityError, DataError, GraphError, OverflowRefused
from qat.runlog import LOG_FILE
from studies.draws import EnergyTerm, energy_draws, energy_terms, mean_terms
from studies.plan import write_atomically
from studies.worker import Call, NodeFunction, Refused

if TYPE_CHECKING:
    from hwsim.arch.machine import Machine
    from hwsim.engine.cost import CostReport
    from hwsim.graph.ir import QuantGraph
    from hwsim.graph.serialize import Model
    from hwsim.mapping.memo import Memo

RUN_FOLDER = "run"
MODEL_FOLDER = "model"
FLOAT_WEIGHTS = "model.safetensors"
RUN_JSON = "run.json"
VERIFY_JSON = "verify.json"
OPERATORS_JSON = "operators.json"
RUNG_KEYS = (
    "holds",
    "failures",
    "samples",
    "a2_agreement",
    "a2_identical_bits",
    "a3_agreement",
    "measured",
)


def train(call: Call) -> dict[str, Any]:
    """Train the teacher, or a student of the first parent; a training that was cut off goes on.

    Returns:
        `test`: metric, value and, for an accuracy, correct, total and which rows were right, on the first held-out part; None if the run
        leaves it unread; `validation`, and `metric`, which of its values selects; `curve`, the metric on the carve-out as [step, value]; which step was kept of how many; the
        weights' hash and their bytes on disk.
    """
    from qat.config import run_config
    from qat.loop import train as train_run

    pin_torch(call.spec["run"]["threads"])
    teacher = str(call.parents[0] / RUN_FOLDER) if call.parents else None
    config = run_config({**call.spec["run"], "teacher": teacher})
    result = train_run(config, call.folder / RUN_FOLDER, progress=False)
    tests = [
        {
            "part": part,
            "metric": result.metric,
            "value": measured[result.metric],
            "correct": measured.get("correct") if result.metric == "accuracy" else None,
            "total": measured["rows"],
            "right": measured.get("right") if result.metric == "accuracy" else None,
        }
        for part, measured in result.tests.items()
    ]
    return {
        "test": tests[0] if tests else None,
        "metric": result.metric,
        "validation": result.validation,
        "curve": curve(call.folder / RUN_FOLDER / LOG_FILE, result.metric),
        "steps": result.steps,
        "kept_step": result.kept_step,
        "model_sha256": result.model_sha256,
        "bytes": file_bytes(call.folder / RUN_FOLDER, FLOAT_WEIGHTS),
    }


def curve(log: Path, metric: str) -> list[list[float]]:
    """Return [step, value] of every evaluation on the carve-out; empty where nothing was trained."""
    if not log.is_file():
        return []
    lines = map(json.loads, log.read_text("utf-8").splitlines())
    return [[line["step"], line[metric]] for line in lines if line["event"] == "validation"]


def export(call: Call) -> dict[str, Any]:
    """Turn the parent's student into an integer model; rungs A1 to A3 are measured on the way.

    Returns:
        `rungs`: whether A1 to A3 hold, their failures, agreements, and the metric of student, static student
        and integer graph side by side; `bytes`: sizes of the export's files.
    """
    from qat.exporter import export_run

    pin_torch(1)
    model = call.folder / MODEL_FOLDER
    shutil.rmtree(model, ignore_errors=True)
    record = export_run(call.parents[0] / RUN_FOLDER, model).record
    # the comparison operator by operator is stored in the export itself
    rungs = {name: record[name] for name in RUNG_KEYS}
    return {"rungs": rungs, "bytes": file_bytes(model)}


def untrained(call: Call) -> dict[str, Any]:
    """Export an architecture with random weights in a recipe's formats.

    Returns:
        `bytes`: sizes of the export's files.
    """
    from pydantic import TypeAdapter

    from qat.config import NewModel
    from qat.recipe import Recipe
    from qat.untrained import export_untrained

    pin_torch(1)
    model = call.folder / MODEL_FOLDER
    shutil.rmtree(model, ignore_errors=True)
    export_untrained(
        NewModel.model_validate(call.spec["model"]),
        TypeAdapter(Recipe).validate_python(call.spec["recipe"]),
        model,
        call.spec["length"],
    )
    return {"bytes": file_bytes(model)}


def evaluate(call: Call) -> dict[str, Any]:
    """Verify the parent's model on one machine, tensor by tensor, and measure what it costs there.

    The two full reports are left in the node's folder; returned is what tables and figures need. Of a model that is
    decoded, too, what a token costs.

    Raises:
        Refused: the machine cannot run the model; says all that it lacks.
    """
    import hwsim.api
    from hwsim.report.facts import facts

    pin_torch(1)
    model, machine = _model(call.parents[0] / MODEL_FOLDER), _machine(call.spec)
    goal, samples = call.spec["mapping"], call.spec["samples"]
    with _refusals():
        measured = hwsim.api.run(model, machine, samples=samples, objective=goal)
        token = token_of(model.graph, machine, call.spec)
    verification = hwsim.api.verify(model, machine, samples=samples).to_json()
    run = measured.to_json()
    write_json(call.folder / RUN_JSON, run)
    write_json(call.folder / VERIFY_JSON, verification)
    write_json(call.folder / OPERATORS_JSON, operators_of(measured.result.cost, machine))
    return {
        **row_of(run, energy_terms(measured.result.cost.steady.ledger)),
        "area_um2": machine.area_um2,
        "machine": facts(machine),
        "verify": verified_of(verification),
        **token,
    }


def fault(call: Call) -> dict[str, Any]:
    """Measure the parent's model with bit errors in one place of a machine's memories, at each rate.

    Returns:
        `metric`, and `rows`: rate, value and, for an accuracy, correct; total; bits that could flip and that did.

    Raises:
        Refused: the machine cannot run the model, or the model has nothing in that place.
    """
    from hwsim.api import measure
    from hwsim.engine.faults import BitErrors, Damage
    from hwsim.verification import first_samples

    folder, spec = call.parents[0] / MODEL_FOLDER, call.spec
    model, machine = _model(folder), _machine(spec)
    if model.samples is None:
        raise DataError(f"{folder}: carries no samples to run with bit errors")
    samples = first_samples(model.samples, spec["samples"])
    rows = []
    unhurt = cache(lambda: measure(model.graph, machine, samples))
    with _refusals():
        for rate in spec["rates"]:
            damage = Damage(model.graph, machine, BitErrors(rate, (spec["where"],), spec["seed"]))
            hurt = damage.of_tensors or damage.graph is not model.graph
            found = measure(model.graph, machine, samples, damage) if hurt else unhurt()
            rows.append(
                {
                    "rate": rate,
                    **{key: found.get(key) for key in ("value", "correct", "total")},
                    "bits": damage.bits.total(),
                    "flipped": damage.flipped,
                }
            )
    return {"metric": found["metric"], "rows": rows}


def cost(call: Call) -> dict[str, Any]:
    """Return what the parent's model costs on one machine, from shapes alone; a study may ask thousands of times.

    Raises:
        Refused: the machine cannot run the model; says all that it lacks.
    """
    from hwsim.engine.cost import cost as cost_of
    from hwsim.mapping.objective import Objective
    from hwsim.report.facts import facts
    from hwsim.report.result import Result

    model, machine = _model(call.parents[0] / MODEL_FOLDER), _machine(call.spec)
    with _refusals():
        report = cost_of(
            model.graph,
            machine,
            objective=Objective(call.spec["mapping"]),
            memo=_memo(model.sha256),
        )
        token = token_of(model.graph, machine, call.spec)
    run = Result(model.name, model.sha256, machine.sha256, report).to_json()
    write_json(call.folder / OPERATORS_JSON, operators_of(report, machine))
    return {
        **row_of(run, energy_terms(report.steady.ledger)),
        "area_um2": machine.area_um2,
        "machine": facts(machine),
        **token,
    }


@lru_cache(maxsize=2)
def _model(folder: Path) -> Model:
    """Read an export. A worker gets many nodes of one model after each other."""
    from hwsim.graph.serialize import load

    return load(folder)


@lru_cache(maxsize=1)
def _memo(model_sha256: str) -> Memo:
    """Return what this process has found out about a model's products on earlier machines."""
    from hwsim.mapping.memo import Memo

    return Memo()


def _machine(spec: Mapping[str, Any]) -> Machine:
    """Load a node's machine.

    Raises:
        BitwrightError: its files are not what they were when the study began.
    """
    from hwsim.config.load import build_machine, changed_machine, machine_bases

    settings = [(key, value) for key, value in spec["settings"]]
    machine = build_machine(changed_machine(machine_bases(spec["machine"]), settings))
    if machine.sha256 != spec["machine_sha256"]:
        raise BitwrightError(
            f"machine {spec['machine']} was changed while the study ran; start the sweep again"
        )
    return machine


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn a machine's "no" into a refusal of the node."""
    from hwsim.engine.inject import InjectionError

    try:
        yield
    except (GraphError, CapacityError, OverflowRefused, InjectionError) as reason:
        raise Refused(str(reason)) from None


def operators_of(report: CostReport, machine: Machine) -> dict[str, Any]:
    """Pick what shows where a point's time and energy go, operator by operator, in the order of the program.

    Returns:
        `clock_hz`; `operators`, those that take time; `memory`; and what a roofline needs: `roofs`, the MAC a cycle of
        each array that is used, and `dram_bytes_per_cycle`.
    """
    from hwsim.mapping.site import Site
    from hwsim.report.roofline import dram_bytes_of, macs_of, roofs_of

    operators = [o for o in report.steady.operators if o.cycles]
    return {
        "clock_hz": report.clock_hz,
        "operators": [
            {
                "node": o.node,
                "op": o.op,
                "unit": o.unit,
                "cycles": o.cycles,
                "compute_cycles": o.compute_cycles,
                "binding": o.binding,
                "utilisation_frac": o.utilisation_frac,
                "energy_pj": o.energy_pj.nominal,
                "macs": macs_of(o),
                "dram_bytes": dram_bytes_of(o),
                "traffic_bytes": o.traffic_bytes,
            }
            for o in operators
        ],
        "memory": report.memory,
        "roofs": [
            {"label": roof.label, "macs_per_cycle": roof.rate}
            for roof in roofs_of(operators, machine)
        ],
        "dram_bytes_per_cycle": float(Site(machine).link.bits_per_cycle) / 8,
    }


def row_of(run: Mapping[str, Any], terms: Sequence[EnergyTerm]) -> dict[str, Any]:
    """Pick what a row needs out of the report of `hwsim run`, and what its energy rests on."""
    # the machine's first array is its main one; stored JSON forgets the order
    side_arrays = list(run["arrays"].values())[1:]
    return {
        "accuracy": run["accuracy"],
        "energy_pj": run["energy_pj"],
        "energy_cold_pj": run["energy_cold_pj"],
        "energy_by_component_pj": {
            name: band["nominal"] for name, band in run["energy_by_component_pj"].items()
        },
        "energy_terms": terms,
        "share_assumed_frac": run["share_assumed_frac"],
        "side_arrays": {
            share: math.fsum(array[share] for array in side_arrays)
            for share in ("cycles_frac", "energy_frac")
        },
        "latency_cycles": run["latency_cycles"],
        "latency_s": run["latency_s"],
        "tokens": run["sequence_length"] if run["sequence_length"] > 1 else None,
        "weight_bytes": run["memory"]["weight_bytes"],
        "peak_activation_bytes": run["memory"]["peak_activation_bytes"],
        "not_modelled": run["not_modelled"],
        "hashes": run["hashes"],
    }


def token_of(graph: QuantGraph, machine: Machine, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a token costs that is decoded by itself: the mean over the positions of a node; nothing if it has none.

    Returns:
        `token`: `positions`; `energy_pj` with the band of the mean's draws, its `energy_terms`; `latency_s`, steady.

    Raises:
        BitwrightError: the graph was built for fewer positions.
        GraphError: it cannot be decoded.
        CapacityError: not even the smallest tile of an operator fits a memory.
    """
    from hwsim.engine.decode_cost import step_costs
    from hwsim.engine.draws import Band
    from hwsim.mapping.objective import Objective

    positions = spec.get("positions")
    if positions is None:
        return {}
    beyond = [p for p in positions if p >= graph.max_length]
    if beyond:  # no refusal of the machine: the study asks for what the model has not
        raise BitwrightError(
            f"decode.positions of the study: {beyond[0]} is beyond the model, which was built for {graph.max_length} tokens,"
            f" positions 0 to {graph.max_length - 1}"
        )
    steps = step_costs(graph, machine, positions, Objective(spec["mapping"]))
    terms = mean_terms([energy_terms(step.ledger) for step in steps])
    nominal = math.fsum(step.energy_pj.nominal for step in steps) / len(steps)
    energy = {
        "positions": positions,
        "energy_pj": Band.of(energy_draws([[terms]])[0], nominal).to_json(),
        "energy_terms": terms,
        "latency_s": math.fsum(step.latency_s for step in steps) / len(steps),
    }
    return {"token": energy}


def verified_of(verification: Mapping[str, Any]) -> dict[str, Any]:
    """Pick what a row needs out of the report of `hwsim verify`; a tensor counts again for decoding."""
    parts = [part for part in (verification, verification["decode"]) if part is not None]
    return {
        "ok": verification["ok"],
        "unequal_tensors": sum(len(part["unequal"]) for part in parts),
        "compared_tensors": sum(part["tensors"] for part in parts),
        "samples": verification["samples"],
    }


FUNCTIONS: dict[str, NodeFunction] = {
    "train": train,
    "export": export,
    "untrained": untrained,
    "evaluate": evaluate,
    "fault": fault,
    "cost": cost,
}


def pin_torch(threads: int) -> None:
    """Give torch a fixed number of threads: the order of a float sum depends on it."""
    import torch

    torch.set_num_threads(threads)


def file_bytes(folder: Path, *names: str) -> dict[str, int]:
    """Return the sizes of a folder's files (all, or the named ones), as the file system has them."""
    paths = [folder / n for n in names] if names else sorted(folder.rglob("*"))
    return {p.relative_to(folder).as_posix(): p.stat().st_size for p in paths if p.is_file()}


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a report as indented JSON."""
    write_atomically(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
