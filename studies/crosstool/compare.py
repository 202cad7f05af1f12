"""Run ours and theirs in turn, product by product, and collect a record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hwsim.arch.machine import Machine
from hwsim.graph.dtype import parse
from hwsim.provenance import source_revision
from studies.crosstool import loops, ours, scalesim, tools, zigzag
from studies.crosstool.ours import Goal, Ours
from studies.crosstool.page import SCHEMA
from studies.crosstool.products import BERT, SMALL, Product, own_machine
from studies.crosstool.reasons import WORTH
from studies.host import describe_host

T = TypeVar("T")
LPF_LIMIT = 6
"""ZigZag's own default"""
OPT: dict[Goal, str] = {"cycles": "latency", "energy": "energy"}
SYSTOLIC = ("systolic_output", "systolic_weight")


def collect(
    folder: Path, limit_s: float, say: Callable[[str], None], lpf_limit: int = LPF_LIMIT
) -> dict[str, Any]:
    """Install what is missing, run everything and return the record.

    Args:
        folder: where environments and the tools' inputs lie.
        limit_s: seconds that each run of a tool may take.
        say: told what is being done.
        lpf_limit: ZigZag merges the prime factors of all loops until there are so many, and tries all their orders.
    """
    say(f"environments in {folder}")
    zigzag_python = tools.environment(tools.ZIGZAG, folder, limit_s)
    scalesim_python = tools.environment(tools.SCALESIM, folder, limit_s)
    dot = own_machine("dot")
    ours.best(SMALL[0], dot, "cycles", "INT32")  # compiles, outside of what is timed
    ours.best(SMALL[0], dot, "energy", "INT32")
    rows = []
    for product in (*SMALL, *BERT):
        say(f"zigzag: {product.name}")
        work = folder / "runs" / f"zigzag_{product.name}"
        rows.append(compare_zigzag(zigzag_python, work, product, dot, limit_s, lpf_limit))
    systolic = {}
    for name in SYSTOLIC:
        say(f"scalesim: {name}")
        work = folder / "runs" / name
        systolic[name] = compare_scalesim(scalesim_python, work, SMALL, own_machine(name), limit_s)
    return {
        "schema": SCHEMA,
        "name": "crosstool",
        "date": datetime.now(UTC).date().isoformat(),
        "git_revision": source_revision(),
        "host": describe_host(),
        "config": {"lpf_limit": lpf_limit, "products": [asdict(p) for p in (*SMALL, *BERT)]},
        "versions": {
            tool.name: {"pinned": tool.requirements, "all": tools.packages(python, limit_s)}
            for tool, python in (
                (tools.ZIGZAG, zigzag_python),
                (tools.SCALESIM, scalesim_python),
            )
        },
        "machines": {name: own_machine(name).sha256 for name in ("dot", *SYSTOLIC)},
        "inputs": {
            "zigzag": zigzag.accelerator(dot),
            "scalesim": {name: scalesim.config(own_machine(name), name) for name in SYSTOLIC},
        },
        "zigzag": rows,
        "scalesim": systolic,
    }


def compare_zigzag(
    python: Path,
    work: Path,
    product: Product,
    machine: Machine,
    limit_s: float,
    lpf_limit: int,
) -> dict[str, Any]:
    """Map a product with both mappers for both goals, and price each choice in the other's model."""
    (array,) = machine.arrays.values()
    chosen: dict[Goal, Ours] = {}
    seconds: dict[Goal, float] = {}
    jobs: list[dict[str, Any]] = []
    given: list[Goal] = []

    def ask(goal: Goal, order: Sequence[zigzag.Loop] = ()) -> None:
        jobs.append(
            {
                "accelerator": zigzag.accelerator(machine),
                "workload": zigzag.workload(product, array.spec.accumulator_bits),
                "mapping": zigzag.mapping(machine, order),
                "opt": OPT[goal],
                "lpf_limit": lpf_limit,
            }
        )

    for goal in OPT:
        chosen[goal], seconds[goal] = timed(partial(ours.best, product, machine, goal, "INT32"))
        ask(goal)
    for goal in OPT:
        order = loops.order_of(product, machine, chosen[goal])
        if order is not None:
            given.append(goal)
            ask(goal, order)
    answers = tools.run_zigzag(python, work, jobs, limit_s)
    found = dict(zip(OPT, answers, strict=False))
    crossed = dict(zip(given, answers[len(OPT) :], strict=True))
    goals = {}
    for goal in OPT:
        theirs = zigzag.read_answer(found[goal])
        back = [
            ours.price(product, machine, tiling, weights_stay=stay, result="INT32")
            for tiling, stay in loops.tiling_of(product, machine, theirs)
        ]
        legal = [b for b in back if b is not None]
        goals[goal] = {
            "ours": asdict(chosen[goal]),
            "theirs": asdict(theirs) | {"accesses": found[goal]["accesses"]},
            "ours_in_theirs": asdict(zigzag.read_answer(crossed[goal]))
            if goal in crossed
            else None,
            "theirs_in_ours": asdict(min(legal, key=lambda b: getattr(b, WORTH[goal])))
            if legal
            else None,
            "seconds": {"ours": seconds[goal], "theirs": found[goal]["wall_s"]},
        }
    return {
        "product": asdict(product),
        "goals": goals,
        "dram_word_pj": zigzag.dram_word_pj(machine),
        "array": [array.spec.rows, array.spec.cols, array.spec.lanes],
        "resident_words": zigzag.resident_words(product, machine, array.spec.accumulator_bits),
        "resident_cycles": zigzag.resident_cycles(product, machine, array.spec.accumulator_bits),
    }


def compare_scalesim(
    python: Path, work: Path, products: Sequence[Product], machine: Machine, limit_s: float
) -> dict[str, Any]:
    """Run products on a systolic array in both."""
    code = parse(ours.OPERAND)
    (array,) = machine.arrays.values()
    ours.best(products[0], machine, "cycles", "INT8")  # compiles
    rows = []
    mapped, seconds = timed(lambda: [ours.best(p, machine, "cycles", "INT8") for p in products])
    reports, their_seconds = tools.run_scalesim(
        python, work, scalesim.config(machine, work.name), products, limit_s
    )
    for product, chosen, report in zip(products, mapped, reports, strict=True):
        work_done = array.work(product.m, product.n, product.k, code, code)
        sums = product.m * product.n
        stays = scalesim.dataflow_of(machine) == "os"
        rows.append(
            {
                "product": asdict(product),
                "ours": {
                    "compute": array.cycles(product.m, product.n, product.k, code, code),
                    "total": chosen.cycles,
                    "activation_words": work_done.activation.read_bits // code.bits,
                    "weight_words": work_done.weight.read_bits // code.bits,
                    "output_words": sums if stays else work_done.accumulator_updates,
                },
                "theirs": asdict(report),
                "closed_form": asdict(scalesim.expected(product, machine)),
            }
        )
    return {"rows": rows, "seconds": {"ours": seconds, "theirs": their_seconds}}


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """Return what a call returns, and its seconds."""
    begin = time.perf_counter()
    found = run()
    return found, time.perf_counter() - begin
