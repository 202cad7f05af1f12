"""The layouts of the GLUE folders, as data: adding a task of this kind is adding one entry.

A GLUE folder holds tab-separated files without any quoting. Each task has its own columns, labels and
metrics; CoLA has no header line, QQP's public training file holds a few broken lines, MNLI has two
development sets. The label order is the Hub's, so that a Hub checkpoint can be a teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from hwsim.errors import DataError, nearest


def _frozen(pairs: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(pairs))


@dataclass(frozen=True, slots=True)
class Table:
    """How one task is written down.

    `labels` maps what stands in the file to the label's name, in the order of the class ids; None means
    a real-valued score (regression). `metrics`: the first one selects the checkpoint. `dev` maps the
    name of each development set to its file. `max_tokens` is the default cut. `columns` are given only where the file has no header.
    `broken_rows_max` is the share of lines with a wrong number of fields that is skipped (and counted).
    `has_phrases` says that the training set holds sentences and their phrases as rows of their own.
    """

    name: str
    folder: str
    text: tuple[str, ...]
    label: str
    labels: Mapping[str, str] | None
    metrics: tuple[str, ...]
    hub_config: str
    hub_text: tuple[str, ...]
    max_tokens: int = 128
    columns: tuple[str, ...] = ()
    train: str = "train.tsv"
    dev: Mapping[str, str] = field(default_factory=lambda: _frozen({"dev": "dev.tsv"}))
    hub_dev: Mapping[str, str] = field(default_factory=lambda: _frozen({"dev": "validation"}))
    broken_rows_max: float = 0.0
    has_phrases: bool = False


_ENTAILMENT = _frozen({"entailment": "entailment", "not_entailment": "not_entailment"})
_PARAPHRASE = _frozen({"0": "not_equivalent", "1": "equivalent"})

TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "sst2": Table(
            name="sst2",
            folder="SST-2",
            text=("sentence",),
            label="label",
            labels=_frozen({"0": "negative", "1": "positive"}),
            metrics=("accuracy",),
            hub_config="sst2",
            hub_text=("sentence",),
            max_tokens=64,
            has_phrases=True,
        ),
        "mrpc": Table(
            name="mrpc",
            folder="MRPC",
            text=("#1 String", "#2 String"),
            label="Quality",
            labels=_PARAPHRASE,
            metrics=("accuracy", "f1"),
            hub_config="mrpc",
            hub_text=("sentence1", "sentence2"),
        ),
        "rte": Table(
            name="rte",
            folder="RTE",
            text=("sentence1", "sentence2"),
            label="label",
            labels=_ENTAILMENT,
            metrics=("accuracy",),
            hub_config="rte",
            hub_text=("sentence1", "sentence2"),
        ),
        "cola": Table(
            name="cola",
            folder="CoLA",
            text=("sentence",),
            label="label",
            labels=_frozen({"0": "unacceptable", "1": "acceptable"}),
            metrics=("matthews", "accuracy"),
            hub_config="cola",
            hub_text=("sentence",),
            max_tokens=64,
            columns=("source", "label", "mark", "sentence"),
        ),
        "stsb": Table(
            name="stsb",
            folder="STS-B",
            text=("sentence1", "sentence2"),
            label="score",
            labels=None,
            metrics=("spearman", "pearson"),
            hub_config="stsb",
            hub_text=("sentence1", "sentence2"),
        ),
        "qnli": Table(
            name="qnli",
            folder="QNLI",
            text=("question", "sentence"),
            label="label",
            labels=_ENTAILMENT,
            metrics=("accuracy",),
            hub_config="qnli",
            hub_text=("question", "sentence"),
        ),
        "qqp": Table(
            name="qqp",
            folder="QQP",
            text=("question1", "question2"),
            label="is_duplicate",
            labels=_frozen({"0": "not_duplicate", "1": "duplicate"}),
            metrics=("accuracy", "f1"),
            hub_config="qqp",
            hub_text=("question1", "question2"),
            # the public training file has a handful of lines cut short; the common readers skip them too
            broken_rows_max=0.001,
        ),
        "mnli": Table(
            name="mnli",
            folder="MNLI",
            text=("sentence1", "sentence2"),
            label="gold_label",
            labels=_frozen(
                {
                    "entailment": "entailment",
                    "neutral": "neutral",
                    "contradiction": "contradiction",
                }
            ),
            metrics=("accuracy",),
            hub_config="mnli",
            hub_text=("premise", "hypothesis"),
            dev=_frozen({"matched": "dev_matched.tsv", "mismatched": "dev_mismatched.tsv"}),
            hub_dev=_frozen(
                {"matched": "validation_matched", "mismatched": "validation_mismatched"}
            ),
        ),
    }
)


def find_table(name: str) -> Table:
    """Return the layout of the task `name` (`sst2`, `SST-2` and `sst-2` are the same). Raises DataError."""
    key = name.lower().replace("-", "").replace("_", "")
    if key not in TABLES:
        known = ["digits", "lm", *TABLES]
        raise DataError(f"task '{name}' is unknown; known: {', '.join(known)}{nearest(key, known)}")
    return TABLES[key]
