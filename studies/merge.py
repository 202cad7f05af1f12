"""`python -m studies.merge A B ... --out DIR`: one study that was run in several places becomes one folder."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from hwsim.cli.errors import run_app
from hwsim.errors import ConfigError
from studies.coordinator import NODES_FOLDER
from studies.ledger import FILE_NAME, FINAL, Attempt, Ledger, read
from studies.merged_plan import Part, first_faults, merged_plan
from studies.plan import Plan, load_plan
from studies.worker import read_marker

TEXT_SHOWN = 60

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def merge(
    folders: Annotated[
        list[Path], typer.Argument(metavar="A B ...", help="Folders of one study, two or more.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")],
    files: Annotated[
        bool,
        typer.Option("--files", help="Bring the nodes' folders, too: hard links where it can be."),
    ] = False,
) -> None:
    """Join the ledgers and plans of a study that was run in several places; what contradicts is an error."""
    if len(folders) < 2:
        raise ConfigError("give two or more folders of one study")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: not empty; --out must be a new folder")
    command = ["python", "-m", "studies.merge", *map(str, folders), "--out", str(out)]
    parts = [Part(f, load_plan(f), read(f / FILE_NAME)) for f in folders]
    plan = merged_plan(parts, shlex.join(command))
    attempts = merged_attempts([part.attempts for part in parts])
    check_agreement(parts)
    write(out, plan, attempts, folders if files else ())
    given = sum(len(part.attempts) for part in parts)
    done = {a.id for a in attempts if a.status in FINAL} & plan.by_id.keys()
    typer.echo(
        f"{out}: {len(plan.nodes)} nodes, {len(done)} finished; {len(attempts)} attempts,"
        f" {given - len(attempts)} that were there twice"
    )


# -- attempts


def merged_attempts(ledgers: Sequence[Sequence[Attempt]]) -> list[Attempt]:
    """Return the attempts of all ledgers, in their order, each once, numbered anew within its node.

    What stands in two ledgers with all its content (result, host, date, seconds; not its number) is one attempt.
    """
    merged: list[Attempt] = []
    tries: Counter[str] = Counter()
    held: Counter[bytes] = Counter()
    for ledger in ledgers:
        seen: Counter[bytes] = Counter()
        for attempt in ledger:
            content = hashlib.sha256(replace(attempt, attempt=0).to_line().encode()).digest()
            seen[content] += 1
            if seen[content] > held[content]:
                held[content] += 1
                tries[attempt.id] += 1
                merged.append(replace(attempt, attempt=tries[attempt.id]))
    return merged


def check_agreement(parts: Sequence[Part]) -> None:
    """Compare all final attempts of each node: status, result and reason must be the same.

    Raises:
        ConfigError: two differ; names node, folders, column and both values.
    """
    first: dict[str, tuple[Path, Attempt]] = {}
    faults: dict[str, None] = {}
    for part in parts:
        for attempt in part.attempts:
            if attempt.status not in FINAL:
                continue
            folder, held = first.setdefault(attempt.id, (part.folder, attempt))
            for column, a, b in contradictions(held, attempt):
                faults[f"{attempt.label}: {column} is {a} in {folder}, {b} in {part.folder}"] = None
    if faults:
        raise ConfigError(first_faults(list(faults)))


def contradictions(a: Attempt, b: Attempt) -> Iterator[tuple[str, str, str]]:
    """Yield path and both values of everything that two final attempts of one node say differently."""
    declared_a = {"status": a.status, "reason": a.error, **(a.result or {})}
    declared_b = {"status": b.status, "reason": b.error, **(b.result or {})}
    yield from _differences(declared_a, declared_b, "")


def _differences(a: Any, b: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in {**a, **b}:
            yield from _differences(a.get(key), b.get(key), f"{path}.{key}" if path else key)
    # as the ledger has it: nan is nan, 1 is not 1.0
    elif (text_a := json.dumps(a, sort_keys=True)) != (text_b := json.dumps(b, sort_keys=True)):
        yield path, _short(text_a), _short(text_b)


def _short(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else f"{text[:TEXT_SHOWN]}..."


# -- the new folder


def write(
    out: Path, plan: Plan, attempts: Sequence[Attempt], files_of: Sequence[Path] = ()
) -> None:
    """Make a study's folder: all of it, or none.

    Args:
        out: a folder that is empty or not there.
        plan: its plan.
        attempts: its ledger.
        files_of: folders of studies whose nodes' finished folders are brought, of the first that has it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        plan.save(temporary)
        with Ledger(temporary) as ledger:
            for attempt in attempts:
                ledger.append(attempt)
        for node in plan.nodes:
            place = Path(NODES_FOLDER) / node.folder_name
            for folder in files_of:
                if read_marker(folder / place, node.id) is not None:
                    shutil.copytree(folder / place, temporary / place, copy_function=_link)
                    break
        temporary.replace(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _link(source: str, target: str) -> str:
    """Give a file a second name; copy it where the file system has no hard links, or is another one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def main() -> None:
    """Entry point of `python -m studies.merge`."""
    run_app(app, "python -m studies.merge")


if __name__ == "__main__":
    main()
