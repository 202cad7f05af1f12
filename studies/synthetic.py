"""A finished study folder with invented numbers of plausible size: what reading, querying and reporting are tested and timed with."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.metrics import pack_right
from studies.host import describe_process
from studies.ledger import FILE_NAME, Attempt, Ledger, read
from studies.plan import Node, Plan, load_plan, make_node, source_sha256

STUDENTS = {"W8A8": 0.975, "W2A8 KD": 0.962, "W2A8 TI-G": 0.969, "W1A1 BiT": 0.931}
MACHINES = {"xnor_edge": 0.9, "ternary_edge": 1.3, "bitserial_edge": 2.1, "int8_edge": 4.0}
BITS = {"W8A8": 8.0, "W2A8 KD": 2.6, "W2A8 TI-G": 2.6, "W1A1 BiT": 1.0}
COMPONENTS = {
    "main array": 0.2,
    "dot unit": 0.12,
    "vector unit": 0.16,
    "weight buffer": 0.1,
    "activation buffer": 0.11,
    "output buffer": 0.05,
    "DMA": 0.02,
    "DRAM": 0.14,
    "control": 0.06,
    "leakage": 0.03,
    "idle clock": 0.01,
}
CONTROL = {"W2A8 TI-G": "W2A8 KD"}
REFUSED = ("W8A8", "xnor_edge")
TOTAL = 540


def many_machines(count: int) -> dict[str, float]:
    """Return the names of machines and how dear each is, spread evenly over a decade."""
    return {f"machine_{i:05}": 0.5 * 10 ** (i / count) for i in range(count)}


def machine_sha256(name: str) -> str:
    """Return what stands for the hash of a machine's file."""
    return name.encode().hex() * 4


def evaluation(
    student: str, seed: int, machine: str, dearness: float, accuracy: int
) -> dict[str, Any]:
    """Return the result of one evaluation."""
    energy = 2.2e5 * dearness ** (BITS[student] / 4) * (1 + BITS[student] / 3)
    cycles = int(9000 * BITS[student] ** 0.5 * dearness**0.3)
    return {
        "accuracy": {
            "metric": "accuracy",
            "correct": accuracy,
            "total": TOTAL,
            "value": accuracy / TOTAL,
        },
        "energy_pj": {"low": 0.7 * energy, "nominal": energy, "high": 1.5 * energy},
        "energy_cold_pj": {"low": 2.1 * energy, "nominal": 3 * energy, "high": 4.5 * energy},
        "energy_by_component_pj": {k: v * energy for k, v in COMPONENTS.items()},
        # three parts in four are one unknown of all machines, the rest is the machine's own
        "energy_terms": [
            ["", 1.0, 0.2 * energy],
            ["dram_bit", 4.0, 0.4 * energy],
            [f"{machine}/logic", 3.0, 0.1 * energy],
        ],
        "share_assumed_frac": 0.31,
        "side_arrays": {"cycles_frac": 0.21, "energy_frac": 0.12},
        "latency_cycles": {"cold": cycles * 2, "steady": cycles},
        "latency_s": {"cold": cycles * 2 / 2e8, "steady": cycles / 2e8},
        "weight_bytes": int(13_000 * BITS[student]),
        "peak_activation_bytes": 9_216,
        "machine": {
            "clock_hz": 200_000_000,
            "arrays": ["main: int 4 x 8 x 16", "dot: int 2 x 4 x 8"],
            "memories_bytes": {"weight_sram": 131_072},
            "dram": {
                "bytes_per_s": 3_200_000_000,
                "pj_per_bit": [10.9, 8.0, 31.0],
                "unknown": "dram_bit",
            },
            "notes": [],
        },
        "area_um2": 1.1e5 if machine != "int8_edge" else None,
        "not_modelled": ["clock tree", *(["operand gating"] if machine == "int8_edge" else [])],
        "hashes": {
            "model": f"{student}{seed}".encode().hex() * 3,
            "machine": machine_sha256(machine),
            "code": "c0de",
        },
        "verify": {"ok": True, "unequal_tensors": 0, "compared_tensors": 187, "samples": TOTAL},
    }


def answers(name: str, correct: int) -> str:
    """Return which rows a model got right, packed: for all models the same rows are hard, more or less."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).normal(0, TOTAL / 20, TOTAL)
    hardness = np.random.default_rng(0).permutation(TOTAL) + noise
    return pack_right(hardness < np.sort(hardness)[correct])


def rungs(trained: dict[str, Any]) -> dict[str, Any]:
    """Return the record of rungs A1 to A3 of an export."""
    measured = {name: dict(trained["test"]) for name in ("student", "static", "graph")}
    return {
        "holds": True,
        "failures": [],
        "samples": TOTAL,
        "a2_agreement": 0.998,
        "a2_identical_bits": 0.971,
        "a3_agreement": 0.989,
        "measured": measured,
    }


def make_folder(
    folder: Path,
    seeds: tuple[int, ...] = (0, 1, 2),
    students: Mapping[str, float] = STUDENTS,
    unequal: bool = False,
    fail: bool = False,
    machines: Mapping[str, float] = MACHINES,
) -> Path:
    """Write plan and ledger of a study; `unequal` and `fail` put one bad row of each kind into it.

    Args:
        folder: of the study; made if it is not there.
        seeds: of the trainings.
        students: names from `STUDENTS` -> about how accurate they are, as a share.
        unequal: three tensors of one evaluation differ from the reference.
        fail: one evaluation failed.
        machines: names -> how dear each is.
    """
    study = {
        "name": "digits",
        "question": "What do one and two bits cost in accuracy, and save in energy, on digits?",
        "task": {"name": "digits"},
        "teacher": {"name": "float32", "recipe": {"name": "float"}},
        "students": [
            {"name": s, "recipe": {"name": s.lower()}, "control": CONTROL.get(s)} for s in students
        ],
        "seeds": list(seeds),
        "untrained": [],
        "constraints": [],
        "machines": list(machines),
        "machine_sha256": {name: machine_sha256(name) for name in machines},
        "objectives": ["energy_pj", "latency_s"],
    }
    nodes: list[Node] = []
    outcomes: list[tuple[Node, str, dict[str, Any] | None, str | None]] = []

    def add(
        kind: Any, label: str, parents: list[Node], result: dict[str, Any], **tags: Any
    ) -> Node:
        spec: dict[str, Any] = {"label": label}
        if kind == "evaluate":
            spec |= {"machine": tags["machine"], "settings": [], "mapping": "cycles"}
            tags["family"] = tags["machine"]
        node = make_node(kind, label, spec, parents, tags=tags)
        nodes.append(node)
        outcomes.append((node, "ok", result, None))
        return node

    def trained(student: str, share: float, seed: int) -> dict[str, Any]:
        # of the names alone: a part of a study holds the same numbers as the whole
        luck = random.Random(f"{student} {seed}").uniform(-0.008, 0.008)
        correct = round(TOTAL * (share + luck))
        test = {"metric": "accuracy", "value": correct / TOTAL, "correct": correct, "total": TOTAL}
        test["right"] = answers(f"{student} {seed}", correct)
        curve = [[100, share - 0.1], [200, share]]
        steps = {"steps": 200, "kept_step": 200, "curve": curve}
        return {"test": test, "bytes": {"model.safetensors": 431_112}} | steps

    for seed in seeds:
        teacher = add(
            "train",
            f"float32 seed {seed}",
            [],
            trained("float32", 0.979, seed),
            student="float32",
            seed=seed,
        )
        for student, share in students.items():
            tags = {"student": student, "seed": seed}
            result = trained(student, share, seed)
            run = add("train", f"{student} seed {seed}", [teacher], result, **tags)
            sizes = {
                "weights.safetensors": int(13_400 * BITS[student]),
                "graph.json": 41_000,
                "samples.safetensors": 39_000,
            }
            model = add(
                "export",
                f"export {student} seed {seed}",
                [run],
                {"bytes": sizes, "rungs": rungs(result)},
                **tags,
            )
            for machine, dearness in machines.items():
                correct = result["test"]["correct"]
                numbers = evaluation(student, seed, machine, dearness, correct)
                label = f"{student} seed {seed} on {machine}"
                add("evaluate", label, [model], numbers, **tags, machine=machine)
                node = nodes[-1]
                if (student, machine) == REFUSED:
                    outcomes[-1] = (
                        node,
                        "refused",
                        None,
                        "machine xnor_edge cannot run this graph, it lacks:\n  linear of INT8 x INT8: layer.0.q, layer.0.k",
                    )
                elif unequal and (machine, seed, student) == ("int8_edge", 1, "W8A8"):
                    numbers["verify"]["unequal_tensors"] = 3
                elif fail and (machine, seed, student) == ("int8_edge", 1, "W1A1 BiT"):
                    outcomes[-1] = (node, "failed", None, "MemoryError: <script>alert(1)</script>")
    plan = Plan(study, tuple(nodes))
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(folder)
    volatile = {
        "seconds": 12.3,
        "host": "bench",
        "date": "2026-11-22T10:00:00+00:00",
        "git_revision": "0123456789abcdef0123456789abcdef01234567",
        "environment": describe_process(),
    }
    with Ledger(folder) as ledger:
        for node, status, outcome, error in outcomes:
            sources = {"sources_sha256": source_sha256(node.kind)}
            ledger.append(
                Attempt(
                    node.id,
                    1,
                    status,  # type: ignore[arg-type]
                    node.kind,
                    node.label,
                    node.spec,
                    node.parents,
                    outcome,
                    error,
                    volatile | sources,
                )
            )
    return folder


OPERATORS = (
    ("vit.embeddings.acc", "linear", 0.1),
    *((f"vit.layers.{n}.mlp.fc1.acc", "linear", 0.2) for n in range(3)),
    *((f"vit.layers.{n}.sum", "add", 0.1) for n in range(3)),
)
"""node, kind and share of the energy"""


def operators(energy_pj: float, cycles: int) -> dict[str, Any]:
    """Return what a node keeps of an inference's operators; of products alone there are MAC, of the first alone DRAM traffic."""
    return {
        "clock_hz": 200_000_000,
        "operators": [
            {
                "node": node,
                "op": op,
                "unit": "array:main" if op == "linear" else "vector",
                "cycles": int(share * cycles),
                "compute_cycles": int(share * cycles / 2),
                "binding": "array:main",
                "utilisation_frac": 0.5,
                "energy_pj": share * energy_pj,
                "macs": 81_920 if op == "linear" else 0,
                "dram_bytes": 512 if node == "vit.embeddings.acc" else 0,
                "traffic_bytes": {},
            }
            for node, op, share in OPERATORS
        ],
        "memory": {
            "weight_bytes": 26_000,
            "resident_bytes": 20_000,
            "streamed": ["vit.embeddings.weight"],
            "peak_activation_bytes": 9_216,
            "peak_activation_on_chip_bytes": 8_192,
            "spills": {
                "vit.layers.0.sum": {
                    "bytes": 1024,
                    "written_bytes": 1024,
                    "read_bytes": 2048,
                    "energy_pj": {"low": 1.0e3, "nominal": 2.0e3, "high": 3.0e3},
                }
            },
        },
        "roofs": [{"label": "main, INT8 × TERNARY", "macs_per_cycle": 1024.0}],
        "dram_bytes_per_cycle": 10.5,
    }


def add_operators(folder: Path) -> None:
    """Give every finished evaluation of a folder its `operators.json`."""
    plan = load_plan(folder)
    for attempt in read(folder / FILE_NAME):
        if attempt.kind in ("evaluate", "cost") and attempt.result is not None:
            home = folder / "nodes" / plan.by_id[attempt.id].folder_name
            home.mkdir(parents=True, exist_ok=True)
            r = attempt.result
            found = operators(r["energy_pj"]["nominal"], r["latency_cycles"]["steady"])
            (home / "operators.json").write_text(json.dumps(found))


def make_hardware_folder(
    folder: Path, variants: int, models: Sequence[str] = ("W1A1", "W2A8")
) -> Path:
    """Write plan and ledger of a study of hardware alone: so many variants of one machine, the slowest fifth of them infeasible."""
    study = {
        "name": "hardware",
        "question": "Which small machine?",
        "task": None,
        "teacher": None,
        "students": [],
        "seeds": [],
        "untrained": [{"name": m, "recipe": {"name": m.lower()}} for m in models],
        "constraints": [{"column": "latency_s", "at_most": 9e-5, "at_least": None}],
        "objectives": ["energy_pj", "latency_s", "area_um2"],
    }
    draw = random.Random(7)
    nodes: list[Node] = []
    results: list[dict[str, Any]] = []
    for name in models:
        tags: dict[str, str | int] = {"student": name, "seed": 0}
        export = make_node("untrained", f"export {name}", {"label": name}, tags=tags)
        nodes.append(export)
        results.append({"bytes": {"graph.json": 41_000, "weights.safetensors": 13_400}})
        for n in range(variants):
            settings = [["arrays.main.rows", n]]
            machine = f"toy rows={n}"
            spec = {"machine": "toy", "settings": settings, "mapping": "cycles"}
            made = {**tags, "machine": machine, "family": "toy"}
            nodes.append(make_node("cost", f"{name} on {machine}", spec, [export], tags=made))
            base = evaluation("W2A8 KD", 0, "ternary_edge", 1.3, 0)
            size, speed = draw.uniform(0.5, 2), draw.uniform(0.5, 2)
            energy = {k: v * size * speed**0.7 for k, v in base["energy_pj"].items()}
            seconds = {k: v / speed for k, v in base["latency_s"].items()}
            parts = {k: v * energy["nominal"] for k, v in COMPONENTS.items()}
            results.append(
                {
                    **{k: v for k, v in base.items() if k != "verify"},
                    "accuracy": None,
                    "energy_pj": energy,
                    "energy_by_component_pj": parts,
                    "energy_terms": [
                        [unknown, spread, pj * energy["nominal"] / base["energy_pj"]["nominal"]]
                        for unknown, spread, pj in base["energy_terms"]
                    ],
                    "latency_s": seconds,
                    "area_um2": 1e5 * speed / size * draw.uniform(0.7, 1.3),
                }
            )
    folder.mkdir(parents=True, exist_ok=True)
    Plan(study, tuple(nodes)).save(folder)
    volatile = {
        "seconds": 0.1,
        "host": "bench",
        "date": "2026-11-22T10:00:00+00:00",
        "git_revision": None,
    }
    with Ledger(folder) as ledger:
        for node, result in zip(nodes, results, strict=True):
            ledger.append(
                Attempt(
                    node.id,
                    1,
                    "ok",
                    node.kind,
                    node.label,
                    node.spec,
                    node.parents,
                    result,
                    None,
                    volatile,
                )
            )
    return folder
