"""A row of a study: one student of one seed on one machine, and what came of it.

Its fields are the columns of results.csv; `studies.table` makes points of rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from studies.draws import EnergyTerm
from studies.ledger import Attempt, LedgerError
from studies.plan import Node, canonical_json
from studies.space import Constraint


@dataclass(frozen=True, slots=True)
class Row:
    """One student of one seed on one machine. The fields up to `reason` are the declared result columns:
    serial and parallel runs, and two computers, must agree on them."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    student: str
    """how the model was trained: its name in the study"""
    seed: int
    """of the training; students and teacher of one seed are paired"""
    machine: str
    """name of the accelerator"""
    status: str
    """ok, refused, failed, or missing (not run yet)"""
    metric: str | None = None
    """what the score is: accuracy, perplexity, matthews ..."""
    score: float | None = None
    """of the model's integers on the test rows, by the task's metric; `verified_samples` of the rows ran on the machine, equal in every tensor"""
    correct: int | None = None
    """test rows that it got right, of an accuracy"""
    total: int | None = None
    """test rows that the score is of"""
    energy_pj_low: float | None = None
    """energy of a steady inference: 5 % end of the band over draws of the unit energies"""
    energy_pj: float | None = None
    """energy of a steady inference, nominal"""
    energy_pj_high: float | None = None
    """energy of a steady inference: 95 % end of the band"""
    energy_pj_cold_low: float | None = None
    """energy of the first inference: 5 % end of the band"""
    energy_pj_cold: float | None = None
    """energy of the first inference, weights not on chip yet, nominal"""
    energy_pj_cold_high: float | None = None
    """energy of the first inference: 95 % end of the band"""
    latency_cycles_cold: int | None = None
    """cycles of the first inference, weights not on chip yet"""
    latency_cycles_steady: int | None = None
    """cycles of each further inference"""
    latency_s_cold: float | None = None
    """latency of the first inference"""
    latency_s_steady: float | None = None
    """latency of each further inference"""
    energy_pj_per_token_low: float | None = None
    """energy of a decoded token: 5 % end of the band over draws of the unit energies"""
    energy_pj_per_token: float | None = None
    """energy of a decoded token, nominal: mean of the positions that the study decodes at"""
    energy_pj_per_token_high: float | None = None
    """energy of a decoded token: 95 % end of the band"""
    latency_s_per_token: float | None = None
    """latency of a decoded token, steady: mean of the same positions"""
    tokens: int | None = None
    """length of the inference that is costed: the longest test row's; none of images"""
    weight_bytes: int | None = None
    """packed weights, thresholds and tables"""
    peak_activation_bytes: int | None = None
    """the most that activations take at one time"""
    area_um2: float | None = None
    """the chip's parts; none unless the machine's file gives one for each"""
    unequal_tensors: int | None = None
    """tensors that differ from the reference anywhere: 0, or something is wrong"""
    compared_tensors: int | None = None
    """tensors that were compared with the reference"""
    verified_samples: int | None = None
    """samples on which they were compared"""
    model_sha256: str | None = None
    """identity of the exported integer model"""
    machine_sha256: str | None = None
    """identity of the resolved machine file"""
    share_assumed_frac: float | None = None
    """share of the joules that rests on unit energies without a source"""
    side_array_cycles_frac: float | None = None
    """share of the cycles on arrays after the machine's first: what the main array's formats exclude"""
    side_array_energy_frac: float | None = None
    """share of the energy on arrays after the machine's first"""
    infeasible: str | None = None
    """which constraints of the study it breaks"""
    reason: str | None = None
    """why it was refused, or how it failed"""
    family: str = ""
    """the machine that this one is a variant of"""
    settings: str = "{}"
    """what was set on the machine: JSON of key -> value"""
    components_pj: Mapping[str, float] = field(default_factory=dict)
    energy_terms: Sequence[EnergyTerm] = ()
    """what the energy is drawn from, jointly with that of every other row (`studies.draws`)"""
    energy_terms_per_token: Sequence[EnergyTerm] = ()
    not_modelled: tuple[str, ...] = ()
    right: str | None = None
    """which test rows it got right, packed (`hwsim.metrics.pack_right`), of an accuracy on all held-out ones"""
    node: str = ""
    """identity of the evaluation that gave the row"""


UNDECLARED = (
    "components_pj",
    "energy_terms",
    "energy_terms_per_token",
    "not_modelled",
    "right",
    "node",
)
COLUMNS = tuple(f.name for f in fields(Row) if f.name not in UNDECLARED)
EVALUATIONS = ("evaluate", "cost")
"""kinds of nodes that give a row"""
CONSTRAINED = {"latency_s": "latency_s_steady"}
"""columns of constraints that rows have by another name"""


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write the declared result columns, units in their names, one line a row."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows([getattr(row, name) for name in COLUMNS] for row in rows)


def constrained(row: Row, constraints: Iterable[Constraint]) -> Row:
    """Return a row with the constraints that it breaks."""
    broken = [
        text
        for c in constraints
        if (text := c.broken_by(getattr(row, CONSTRAINED.get(c.column, c.column))))
    ]
    return replace(row, infeasible="; ".join(broken)) if broken else row


def read_row(node: Node, attempt: Attempt | None, export: Attempt | None) -> Row:
    """Return the row of an evaluation or a costing.

    Args:
        node: the evaluation.
        attempt: its attempt that counts; None: it was not made yet.
        export: that of the model that it ran, for `score_of`; None of an untrained one.

    Raises:
        LedgerError: the attempt is of a version that kept less of it.
    """
    tags = node.tags
    return Row(
        student=str(tags["student"]),
        seed=int(tags["seed"]),
        machine=str(tags["machine"]),
        family=str(tags.get("family", tags["machine"])),
        settings=canonical_json(dict(node.spec.get("settings", ()))),
        node=node.id,
        **({"status": "missing"} if attempt is None else outcome(attempt, export)),
    )


def outcome(attempt: Attempt, export: Attempt | None) -> dict[str, Any]:
    """Return what came of an evaluation or a costing, as fields of its row; arguments and errors as of `read_row`."""
    found: dict[str, Any] = {"status": attempt.status, "reason": attempt.error}
    if attempt.result is None:
        return found
    r = attempt.result
    if "energy_terms" not in r:
        raise LedgerError(
            f"{attempt.label}: measured by a version that did not keep what its energy rests on;"
            " run the study again with --fresh"
        )
    # an untrained model has no score, and is not verified on data
    measured = score_of(r, None if export is None else export.result) or {}
    counted = measured if measured.get("metric") == "accuracy" else {}
    verified = r.get("verify", {})
    cold = r.get("energy_cold_pj", {})
    token = r.get("token") or {"energy_pj": {}}
    return found | {
        "metric": measured.get("metric"),
        "score": measured.get("value"),
        "correct": counted.get("correct"),
        "total": measured.get("total"),
        "energy_pj_low": r["energy_pj"]["low"],
        "energy_pj": r["energy_pj"]["nominal"],
        "energy_pj_high": r["energy_pj"]["high"],
        "energy_pj_cold_low": cold.get("low"),
        "energy_pj_cold": cold.get("nominal"),
        "energy_pj_cold_high": cold.get("high"),
        "latency_cycles_cold": r["latency_cycles"]["cold"],
        "latency_cycles_steady": r["latency_cycles"]["steady"],
        "latency_s_cold": r["latency_s"]["cold"],
        "latency_s_steady": r["latency_s"]["steady"],
        "energy_pj_per_token_low": token["energy_pj"].get("low"),
        "energy_pj_per_token": token["energy_pj"].get("nominal"),
        "energy_pj_per_token_high": token["energy_pj"].get("high"),
        "latency_s_per_token": token.get("latency_s"),
        "tokens": r.get("tokens"),
        "weight_bytes": r["weight_bytes"],
        "peak_activation_bytes": r["peak_activation_bytes"],
        "area_um2": r["area_um2"],
        "unequal_tensors": verified.get("unequal_tensors"),
        "compared_tensors": verified.get("compared_tensors"),
        "verified_samples": verified.get("samples"),
        "model_sha256": r["hashes"]["model"],
        "machine_sha256": r["hashes"]["machine"],
        "share_assumed_frac": r["share_assumed_frac"],
        "side_array_cycles_frac": r["side_arrays"]["cycles_frac"],
        "side_array_energy_frac": r["side_arrays"]["energy_frac"],
        "components_pj": r["energy_by_component_pj"],
        "energy_terms": r["energy_terms"],
        "energy_terms_per_token": token.get("energy_terms", ()),
        "not_modelled": tuple(r["not_modelled"]),
        "right": counted.get("right"),
    }


def score_of(
    evaluation: Mapping[str, Any], export: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Return the score of a model: that of its integer graph on all held-out rows, where the machine computes the same.

    A machine runs the first `samples` of those rows, and verification compares every tensor of them. Where one differs,
    the score is that of what the machine computed, on the rows that it ran.

    Args:
        evaluation: result of a node that ran and verified the model.
        export: that of the node that made it; None where it is not known.

    Returns:
        `metric`, `value`, of an accuracy `correct`, and `total`; of an accuracy on all held-out rows `right`, which of
        them; None of an untrained model.
    """
    own: Mapping[str, Any] | None = evaluation["accuracy"]
    if own is None or export is None or evaluation["verify"]["unequal_tensors"]:
        return own
    graph: Mapping[str, Any] = export["rungs"]["measured"]["graph"]
    return graph
