"""`python -m studies.new FILE.yaml`: a study file for a table, a checkpoint and machines of one's own, ready to be run and edited."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwsim.cli.errors import run_app
from hwsim.config.dump import to_flow
from hwsim.config.starter import check_new, write_new
from hwsim.errors import ConfigError, nearest
from hwsim.metrics import CLASS_METRICS, REGRESSION_METRICS
from studies.nodes import kept

if TYPE_CHECKING:
    from qat.data.spec import TableTask

METRICS = (*CLASS_METRICS, *REGRESSION_METRICS)
"""those of a table"""
STUDENTS = {"W8A8": "w8a8", "W2A8": "kd_w2a8", "W1A1": "bit_w1a1"}
"""student -> recipe: eight, two and one bit a weight"""
MOST_KINDS = 50
"""different labels that no one doubts to be classes, however few the rows are"""
STEPS = 200
"""so few that the whole study is seen in minutes, whatever the table's size"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="The study to write.")],
    train: Annotated[
        str,
        typer.Option(metavar="FILE", help="Training rows: .tsv, .csv or .jsonl, with a header."),
    ],
    dev: Annotated[str, typer.Option(metavar="FILE", help="Held-out rows in the same columns.")],
    checkpoint: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|HUB_ID|minilm", help="A Hugging Face text encoder, fine-tuned or not."
        ),
    ],
    machine: Annotated[
        list[str],
        typer.Option(metavar="NAME_OR_FILE", help="A machine; given again, one more."),
    ],
    text: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The text's column.", show_default="of two, the other"),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The label's column.",
            show_default="of two, that of fewer values",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(metavar="|".join(METRICS), help="What a score is.", show_default="accuracy"),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Updates of each training.")] = STEPS,
) -> None:
    """Write a study of eight, two and one bit on your own table, and say what it took from table and checkpoint."""
    from hwsim.config.load import load_machine

    check_new(file)
    faults: list[str] = []
    task = kept(partial(table_task, train, dev, text, label, metric), faults)
    holds = None if task is None else kept(partial(_holds, task), faults)
    classes = kept(partial(_declared, checkpoint), faults)
    for name in machine:
        kept(partial(load_machine, name), faults)
    if faults or task is None:
        raise ConfigError(faults)
    if classes is not None:
        task = in_order_of(task, checkpoint, classes)
    write_new(file, study_text(file.stem, task, checkpoint, machine, steps, classes is not None))
    typer.echo(f"{file}: written")
    typer.echo(f"  column {task.text[0]} is the text, column {task.label} the label: {holds}")
    typer.echo(f"  {checkpoint} {_teacher(task, checkpoint, classes)}")
    typer.echo(f"next: python -m studies.sweep {file} --dry-run, then without --dry-run")


def table_task(
    train: str, dev: str, text: str | None, label: str | None, metric: str | None
) -> TableTask:
    """Return the task that a table is: find out which columns are meant and what judges.

    Raises:
        ConfigError: either cannot be told.
        DataError: the training file cannot be read.
    """
    from qat.data.spec import TableTask
    from qat.data.tsv import column_names, column_values

    columns = column_names(Path(train))
    for name in (text, label):
        if name is not None and name not in columns:
            raise ConfigError(
                f"{train}:1: no column '{name}'; the file has {', '.join(columns)}{nearest(name, columns)}"
            )
    if text is None or label is None:
        text, label = _of_two(train, columns, text, label)
    if metric is None:
        values = column_values(Path(train), label)
        kinds = len(set(values))
        numbers = [value for value in sorted(set(values)) if _is_fraction(value)]
        if not numbers and kinds > max(MOST_KINDS, len(values) / 2):
            raise ConfigError(
                f"{train}: column '{label}' has {kinds:,} different values in {len(values):,} rows: is it the label?"
                " Give --text and --label, or --metric accuracy if these are classes"
            )
        if numbers:
            raise ConfigError(
                f"{train}: column '{label}' has numbers such as {numbers[0]}: give --metric spearman if they are"
                " scores, --metric accuracy if they are classes"
            )
        metric = "accuracy"
    elif metric not in METRICS:
        raise ConfigError(
            f"--metric must be of {', '.join(METRICS)}, not '{metric}'{nearest(metric, METRICS)}"
        )
    return TableTask(text=(text,), label=label, metric=(metric,), train=train, dev=dev)


def in_order_of(task: TableTask, checkpoint: str, classes: Sequence[str]) -> TableTask:
    """Return a task with its classes in the order of a fine-tuned checkpoint's, where the names agree.

    Raises:
        ConfigError: the checkpoint is fine-tuned for another number of classes.
    """
    from qat.data import own_table

    own = own_table.classes(task)
    needed = 1 if own is None else len(own)
    if needed != len(classes):
        wanted = "a score" if own is None else f"{needed} classes, {', '.join(own)}"
        raise ConfigError(
            f"{checkpoint}: its classifier must be for {wanted}, not for {', '.join(classes)};"
            " give a checkpoint without a classifier, or one that fits"
        )
    place = {name.casefold(): number for number, name in enumerate(classes)}
    if own is None or {name.casefold() for name in own} != place.keys():
        return task
    ordered = tuple(sorted(own, key=lambda name: place[name.casefold()]))
    return task if ordered == own else task.model_copy(update={"labels": ordered})


def study_text(
    name: str,
    task: TableTask,
    checkpoint: str,
    machines: Sequence[str],
    steps: int,
    is_tuned: bool,
) -> str:
    """Return the text of a study file.

    Args:
        name: of the study.
        task: a table.
        checkpoint: the teacher's.
        machines: names and files.
        steps: of each training.
        is_tuned: the checkpoint is fine-tuned for the task.
    """
    table = {
        "text": task.text[0],
        "label": task.label,
        "metric": task.metric[0],
        "train": task.train,
        "dev": task.dev,
        **({} if task.labels is None else {"labels": list(task.labels)}),
        "max_tokens": task.max_tokens,
    }
    train = to_flow({"steps": steps, "batch_size": 16})
    question = f"What do fewer bits cost on {task.dev}, and what do they save?"
    recipe, how, why = (
        ("as_given", "{steps: 0}", "fine-tuned already: measured, and left as it is")
        if is_tuned
        else ("float", train, "without a classifier: a new one is trained with the rest")
    )
    return f"""\
schema: studies/study/1
name: {to_flow(name)}
question: {to_flow(question)}
task: {to_flow(table)}

teacher:
  name: float32
  model: {to_flow({"checkpoint": checkpoint})}   # {why}
  recipe: {recipe}
  train: {how}

students:   # recipes: docs/methods.md, section 5. For the real study `epochs: 3` in place of `steps`
{"".join(f"  - {{name: {s}, recipe: {r}, train: {train}}}" + chr(10) for s, r in STUDENTS.items())}
seeds: [0]    # [0, 1, 2] where a difference is to be believed
machines: {to_flow(list(machines))}
objectives: [energy_pj, latency_s]
samples: 32   # rows of {task.dev} that each machine runs and verifies; scores are of all of them
"""


def _teacher(task: TableTask, checkpoint: str, classes: Sequence[str] | None) -> str:
    """Say what a checkpoint is to the study."""
    from qat.pretrained import checkpoint_source

    if classes is not None:
        return f"is fine-tuned and the teacher as it is: {_meaning(task, classes)}"
    if not Path(checkpoint_source(checkpoint)).is_dir():
        return (
            "is looked at when it is fetched: the teacher is trained; if it is fine-tuned already, write"
            " `recipe: as_given` and `train: {steps: 0}`"
        )
    return "has no classifier: the teacher gets a new one and is trained"


def _meaning(task: TableTask, classes: Sequence[str]) -> str:
    """Say what the classes of a fine-tuned checkpoint are taken for."""
    from qat.data import own_table

    own = own_table.classes(task)
    if own is None:
        return "it gives a score"
    if [name.casefold() for name in own] == [name.casefold() for name in classes]:
        return f"classes {', '.join(classes)}"
    pairs = ", ".join(
        f"{theirs} is taken for {ours}" for theirs, ours in zip(classes, own, strict=True)
    )
    return f"{pairs} (`labels:` of the task says another order)"


def _of_two(
    train: str, columns: Sequence[str], text: str | None, label: str | None
) -> tuple[str, str]:
    """Return the text's and the label's column of a table of two columns: a label has fewer different values."""
    from qat.data.tsv import label_values

    how = "say which is which: --text COLUMN --label COLUMN"
    if len(columns) != 2:
        raise ConfigError(f"{train}: has the columns {', '.join(columns)}; {how}")
    first, second = columns
    if text is None and label is None:
        of_first, of_second = (len(label_values(Path(train), name)) for name in columns)
        if of_first == of_second:
            raise ConfigError(f"{train}: {first} and {second} have {of_first} values each; {how}")
        label = first if of_first < of_second else second
    if label is None:
        label = second if text == first else first
    return (second if label == first else first), label


def _holds(task: TableTask) -> str:
    """Read all of a table and say what it holds."""
    from qat.data import own_table

    labels = own_table.classes(task)
    train, dev = (own_table.rows(task, path, labels) for path in (task.train, task.dev))
    return own_table.summary(train, dev, labels)


def _declared(checkpoint: str) -> tuple[str, ...] | None:
    from qat.pretrained import check_checkpoint, declared_classes

    check_checkpoint(checkpoint, of_texts=True)
    return declared_classes(checkpoint)


def _is_fraction(value: str) -> bool:
    try:
        number = float(value)
    except ValueError:
        return False
    return math.isfinite(number) and not number.is_integer()


def main() -> None:
    """Entry point of `python -m studies.new`."""
    run_app(app, "python -m studies.new")


if __name__ == "__main__":
    main()
