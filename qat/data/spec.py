"""What a `task:` entry of a run's YAML may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from hwsim.errors import nearest
from hwsim.metrics import CLASS_METRICS, REGRESSION_METRICS
from qat.spec import Strict

# YAML has lists only; in strict mode pydantic would refuse them where a tuple is declared
Texts = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


OneOrMoreTexts = Annotated[Texts, BeforeValidator(_one_or_many)]


class CarveOut(Strict):
    """The part of the training set that selection, early stopping and calibration may see.

    `rows` None means a tenth of the training set, at most 1,000 rows. The seed is the task's own and not the
    run's: a teacher and all its students must leave out the same rows.

    `whole` (texts only) holds out rows that no other row contains, and keeps the rows that they contain out of the
    training too: a sentence whose phrases were trained on is no unseen sentence. null means yes for SST-2,
    whose training set is made so, and no elsewhere. `rows` None then means a tenth of the whole rows.
    """

    rows: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    whole: bool | None = None


class NamedTask(Strict):
    """A task that is known by name: `digits` or a GLUE task.

    `data` is the task's folder (default `$BITWRIGHT_DATA/glue/FOLDER`); `source: hub` downloads instead.
    """

    name: str
    data: str | None = None
    source: Literal["folder", "hub"] = "folder"
    max_tokens: int | None = Field(default=None, ge=4)
    validation: CarveOut = CarveOut()


class TableTask(Strict):
    """The user's own table (TSV, CSV or JSON lines): one or two text columns and a label column.

    `labels` lists the raw labels in class order (default: the sorted distinct values of the training file).
    With the metrics `pearson` and `spearman` the label is a score and the task a regression.
    """

    text: OneOrMoreTexts = Field(max_length=2)
    label: str
    metric: OneOrMoreTexts
    train: str
    dev: str
    labels: Texts | None = None
    max_tokens: int = Field(default=128, ge=4)
    validation: CarveOut = CarveOut()

    @field_validator("metric")
    @classmethod
    def _judge_the_same(cls, metric: tuple[str, ...]) -> tuple[str, ...]:
        known = (*CLASS_METRICS, *REGRESSION_METRICS)
        for name in metric:
            if name not in known:
                raise ValueError(
                    f"must be of {', '.join(known)}, not '{name}'{nearest(name, known)}"
                )
        if len({name in REGRESSION_METRICS for name in metric}) > 1:
            raise ValueError(
                f"must all judge classes ({', '.join(CLASS_METRICS)}) or all scores"
                f" ({', '.join(REGRESSION_METRICS)}), not {', '.join(metric)}"
            )
        return metric

    @model_validator(mode="after")
    def _scores_have_no_labels(self) -> Self:
        if self.is_regression and self.labels is not None:
            raise ValueError(f"labels must be left out: metric '{self.metric[0]}' judges scores")
        twice = sorted(
            {label for label in self.labels or () if (self.labels or ()).count(label) > 1}
        )
        if twice:
            raise ValueError(f"labels must differ from each other; given twice: {', '.join(twice)}")
        return self

    @property
    def is_regression(self) -> bool:
        """Whether the label is a score."""
        return self.metric[0] in REGRESSION_METRICS


class LanguageTask(Strict):
    """Next-token prediction on plain text, cut into blocks of `block_tokens`.

    The files default to WikiText-2's `valid.txt` (train) and `test.txt` (dev) in `$BITWRIGHT_DATA/wikitext-2`.
    `tokenizer` is `bytes` (256 symbols, nothing to download) or a tokenizer's folder. `blocks_max` and
    `dev_blocks_max` keep the first blocks of the training and of each held-out text. `ood` names more held-out
    texts, of other distributions than the training's: each is cut and measured as `dev` is, as a part of its own.
    """

    name: Literal["lm"]
    train: str | None = None
    dev: str | None = None
    tokenizer: str = "bytes"
    block_tokens: int = Field(default=64, ge=2)
    blocks_max: int | None = Field(default=None, ge=1)
    dev_blocks_max: int | None = Field(default=None, ge=1)
    ood: dict[str, str] = Field(default_factory=dict)
    validation: CarveOut = CarveOut()

    @model_validator(mode="after")
    def _parts_are_told_apart(self) -> Self:
        taken = [name for name in self.ood if name in ("train", "validation", "test")]
        if taken:
            raise ValueError(f"ood must have names of its own, '{taken[0]}' is a part of the task")
        return self


TABLE_KEYS = ("text", "label", "metric", "train", "dev")
"""what only a table says, of a task without a name"""


def _kind(value: Any) -> str:
    if isinstance(value, TableTask):
        return "table"
    if not isinstance(value, dict):
        return "lm" if isinstance(value, LanguageTask) else "named"
    if "text" in value or ("name" not in value and any(key in value for key in TABLE_KEYS)):
        return "table"
    return "lm" if value.get("name") == "lm" else "named"


def _from_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


TaskSpec = Annotated[
    Annotated[NamedTask, Tag("named")]
    | Annotated[TableTask, Tag("table")]
    | Annotated[LanguageTask, Tag("lm")],
    Discriminator(_kind),
    BeforeValidator(_from_name),
]
