"""Stand-in node functions for searches: formulas in place of trainings and machines. At module level, so that workers find them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import standins

from studies.allowance import Allowance
from studies.executor import PlaceOptions
from studies.nodes import build_plan
from studies.plan import Node
from studies.search import run_search
from studies.space import Budget, load_study
from studies.sweep import claim_folder
from studies.worker import Call, Refused

ROWS, CAPACITY = "arrays.main.rows", "memories.weight_sram.capacity_bytes"
MODEL = "{family: vit, config: {image_size: 8, patch_size: 4, num_hidden_layers: 1}}"
HARDWARE = f"""\
schema: studies/study/1
name: edge
question: Which of these machines?
untrained: [{{name: W1A1, recipe: bit_w1a1, model: {MODEL}}}]
machines:
  - machine: bitserial_edge
    vary:
      {ROWS}: {{from: 4, to: 32, step: 4}}
      {CAPACITY}: {{from: 16KiB, to: 256KiB, log2: true}}
objectives: [energy_pj, latency_s]
search: {{sampler: nsga2, seed: 3, trials: 14, batch: 4, population: 4}}
"""
TRAINED = f"""\
schema: studies/study/1
name: students
question: Which student on which machine?
task: digits
teacher: {{name: float32, model: {{family: vit}}, recipe: float, train: {{steps: 3}}}}
students:
  - name: TI
    recipe: ti_g_w2a8
    train: {{steps: 90}}
    vary: {{recipe.method.fraction: {{from: 0.1, to: 0.8, step: 0.1}}, train.batch_size: [16, 32]}}
  - {{name: KD, recipe: kd_w2a8, train: {{steps: 90}}}}
seeds: [0, 1]
machines:
  - machine: bitserial_edge
    vary: {{{ROWS}: {{from: 4, to: 32, step: 4}}}}
search: {{sampler: tpe, seed: 1, trials: 6, batch: 3, machines_per_student: 4}}
"""


def count(call: Call) -> None:
    """Leave one byte in the study's folder for each run of a node."""
    standins.count_run({"counter": call.folder.parents[1] / "count"})


def untrained(call: Call) -> dict[str, Any]:
    """Export nothing."""
    count(call)
    return {"bytes": {"graph.json": 1}}


def cost(call: Call) -> dict[str, Any]:
    """Many rows are fast, little memory is frugal; a machine with 20 rows refuses."""
    count(call)
    settings = dict(call.spec["settings"])
    rows, capacity = settings[ROWS], settings.get(CAPACITY, 65536)
    if rows == 20:
        raise Refused("20 rows are unlucky")
    return {
        "energy_pj": {"nominal": float(capacity / 1024 + 3 * rows)},
        "latency_s": {"steady": 1.0 / rows + 4096 / capacity},
        "area_um2": None,
        "weight_bytes": 100,
        "peak_activation_bytes": 10,
    }


def train(call: Call) -> dict[str, Any]:
    """Learn well from a fraction near 0.4. The held-out data says the contrary, and the short trainings leave it unread."""
    count(call)
    run = call.spec["run"]
    fraction = (run["recipe"].get("method") or {}).get("fraction") or 0.7
    good = 1 - abs(fraction - 0.4) - 1 / run["train"]["steps"] + run["seed"] / 1000
    test = {"metric": "accuracy", "value": 1 - good, "correct": None, "total": 10}
    return {
        "test": test if run["train"]["measure_tests"] else None,
        "metric": "accuracy",
        "validation": {"accuracy": good},
        "bytes": {"model.safetensors": 1},
    }


FUNCTIONS = {
    "untrained": untrained,
    "cost": cost,
    "train": train,
    "export": untrained,
    "evaluate": cost,
}


def killing(after: int) -> dict[str, Any]:
    """Return functions of which the costing kills its process when so many nodes have run in a study."""

    def killer(call: Call) -> dict[str, Any]:
        if (call.folder.parents[1] / "count").stat().st_size >= after:
            os.kill(os.getpid(), signal.SIGKILL)
        return cost(call)

    return {**FUNCTIONS, "cost": killer, "evaluate": killer}


def search(
    text: str,
    folder: Path,
    *settings: str,
    workers: int = 0,
    budget: Budget | None = None,
    functions: dict[str, Any] = FUNCTIONS,
) -> list[Node]:
    """Search a study that is given as text, with the stand-ins; return the nodes without a result."""
    path = folder.with_suffix(".yaml")
    path.write_text(text, encoding="utf-8")
    study = load_study(path, settings)
    plan = build_plan(study)
    claim_folder(folder, plan, fresh=False)
    allowance = Allowance(budget)
    options = PlaceOptions(workers=workers)
    return run_search(study, plan, folder, functions, options, 0, allowance)
