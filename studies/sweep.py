"""`python -m studies.sweep [STUDY]`: from a question to a report, resumable at any point."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hwsim.errors import BitwrightError, ConfigError
from studies.allowance import Allowance
from studies.coordinator import RETRIES, Coordinator, blocked_by
from studies.estimate import describe
from studies.executor import LOCAL, PlaceOptions
from studies.ledger import FILE_NAME as LEDGER_FILE
from studies.ledger import FINAL, Ledger, attempts_in, read
from studies.plan import PLAN_FILE, PROPOSED, Node, Plan, load_plan
from studies.progress import Progress
from studies.storage import writing
from studies.worker import NodeFunction

RUNS_FOLDER = Path("bitwright-runs")
EXIT_FAILED, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130


def claim_folder(folder: Path, plan: Plan, fresh: bool) -> None:
    """Make a folder this study's own; say what changed where an earlier version of the study was run.

    Raises:
        ConfigError: it holds another study, or things that are no study at all.
        LedgerError: another sweep runs in it.
    """
    if fresh and folder.exists():
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        old = folder.with_name(f"{folder.name}.{stamp}")
        Ledger(folder).close()  # a sweep that runs in there must not lose its folder
        folder.rename(old)
        print(f"moved {folder} to {old}")
    held = held_plan(folder, plan)
    folder.mkdir(parents=True, exist_ok=True)
    if held is not None:
        Ledger(folder).close()  # nor its plan
        print(continued(folder, held, plan), end="")
    if not (plan.searched and held is not None):
        plan.save(folder)  # one that a search has filled stays until it proposes something new


def held_plan(folder: Path, plan: Plan) -> Plan | None:
    """Return the plan of the study in a folder, which another may continue; None of a new or empty folder.

    Nodes are addressed by content, so a study that was changed finds what it still needs, and no plan shows the rest. A search
    is not continued under other settings: what it proposed rests on its space, its seed and all results before.

    Raises:
        ConfigError: it holds another study, or things that are no study at all.
    """
    if not (folder / PLAN_FILE).is_file():
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder}: not empty and not a study; give another --out")
        return None
    held = load_plan(folder)
    aside = "give another --out, or --fresh to move the old one aside"
    if held.study["name"] != plan.study["name"]:
        raise ConfigError(
            f"{folder}: holds another study, '{held.study['name']}', not '{plan.study['name']}'; {aside}"
        )
    if (held.searched or plan.searched) and held.study_sha256 != plan.study_sha256:
        raise ConfigError(
            f"{folder}: holds a search of '{held.study['name']}' that cannot go on as another one: "
            f"changed {', '.join(changed_keys(held, plan))}; {aside}"
        )
    return held


def continued(folder: Path, held: Plan, plan: Plan) -> str:
    """Say in a line what of a study was changed, and how much of it is finished all the same; nothing if nothing was."""
    changed = changed_keys(held, plan)
    if plan.searched or not changed:
        return ""
    finished = {a.id for a in attempts_in(folder / LEDGER_FILE) if a.status in FINAL}
    done = len(finished & plan.by_id.keys())
    return (
        f"continues {plan.study['name']}: changed {', '.join(changed)}; "
        f"{done} of {len(plan.nodes)} nodes are done\n"
    )


def changed_keys(held: Plan, wanted: Plan) -> list[str]:
    """Name the keys of a study file in which two studies differ; not what a search has filled in."""
    keys = sorted(held.study.keys() | wanted.study.keys())
    if held.searched or wanted.searched:
        keys = [k for k in keys if k not in PROPOSED]
    changed = [k for k in keys if held.study.get(k) != wanted.study.get(k)]
    # what a machine's file says is part of the study by its hash
    return list(dict.fromkeys("machines" if k == "machine_sha256" else k for k in changed))


def run_study(
    plan: Plan,
    folder: Path,
    functions: Mapping[str, NodeFunction],
    options: PlaceOptions,
    retries: int = RETRIES,
    allowance: Allowance | None = None,
) -> list[Node]:
    """Run what is left of a plan, as far as the allowance goes; return the nodes without a result.

    Raises:
        KeyboardInterrupt: the user stopped it; everything that was finished is in the ledger.
        BitwrightError: as `Coordinator.run` and `PlaceOptions.open` do.
    """
    with (
        Ledger(folder) as ledger,
        options.open(folder) as places,
        Progress(len(plan.nodes)) as progress,
    ):
        coordinator = Coordinator(
            plan, folder, ledger, functions, progress.report, retries, allowance
        )
        return coordinator.run(places.executor, places.slots, places.gpus)


def main(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="a study's YAML file, or a shipped study's name")
    ] = "digits",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="results folder", show_default="bitwright-runs/NAME"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="processes; 0 runs in this one", show_default="the usable cores"),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            metavar="local|dask-local|dask://HOST:PORT",
            help="where nodes run: processes here, Dask workers here, or a running Dask scheduler's",
        ),
    ] = LOCAL,
    gpus: Annotated[
        int, typer.Option(min=0, help="GPUs of this computer for trainings on a CUDA device")
    ] = 0,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="stop an attempt that takes longer", show_default="never"
        ),
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, help="how often a failed node is tried again in this sweep")
    ] = RETRIES,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="change a key of the study, e.g. seeds=[0]"
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="move old results aside first")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and stop")] = False,
) -> None:
    """Train, export, verify and cost what a study asks for, then write its report. Finished work is kept."""
    begin = time.monotonic()
    try:
        options = PlaceOptions(executor, workers, gpus, timeout)
        code = _sweep(study, out, options, retries, overrides or [], fresh, dry_run)
    except BitwrightError as error:
        print(error, file=sys.stderr)
        code = EXIT_USER
    if code != EXIT_USER and not dry_run:
        print(f"study: {time.monotonic() - begin:.0f} s")
    raise typer.Exit(code)


def _sweep(
    study_name: str,
    out: Path | None,
    options: PlaceOptions,
    retries: int,
    overrides: list[str],
    fresh: bool,
    dry_run: bool,
) -> int:
    from studies.ending import failure_lines, last_word
    from studies.inputs import check_inputs, require_data
    from studies.nodes import build_plan, kept
    from studies.report import build_report
    from studies.search import describe_search, run_search
    from studies.space import find_study, read_study
    from studies.trial import FUNCTIONS

    study, document = read_study(find_study(study_name), overrides)
    invocation = shlex.join(
        ["python", "-m", "studies.sweep", study_name]
        + [word for text in overrides for word in ("--set", text)]
    )
    faults: list[str] = []
    table = kept(partial(check_inputs, study, document), faults)
    plan = kept(partial(build_plan, study, invocation, document), faults)
    if plan is None or faults:
        raise ConfigError(faults)
    folder = out or RUNS_FOLDER / study.name
    if dry_run:
        if not fresh and (held := held_plan(folder, plan)) is not None:
            print(continued(folder, held, plan), end="")
        print(describe(plan, folder) if study.search is None else describe_search(study, folder))
        if table is not None:
            print(f"data: {table}")
        return 0
    require_data(study)
    # a cluster's or container's polite stop ends a sweep as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    allowance = Allowance(study.budget)
    with writing(folder):
        claim_folder(folder, plan, fresh)
        try:
            if study.search is None:
                unfinished = run_study(plan, folder, FUNCTIONS, options, retries, allowance)
            else:
                unfinished = run_search(study, plan, folder, FUNCTIONS, options, retries, allowance)
        except KeyboardInterrupt:
            print(f"\nstopped: {_so_far(folder)}", file=sys.stderr)
            return EXIT_INTERRUPTED
        if allowance.refused:
            print(f"the budget is used up: {_so_far(folder)}")
        report = build_report(folder)
    print(last_word(folder))
    print(f"report: {report}")
    tried = {attempt.id for attempt in read(folder / LEDGER_FILE)}
    failed = blocked_by(unfinished, tried)
    for line in failure_lines(folder, unfinished, failed):
        print(line, file=sys.stderr)
    return EXIT_FAILED if failed else 0


def _so_far(folder: Path) -> str:
    """Say how much of what is planned is finished, and how to go on."""
    plan = load_plan(folder)
    done = {a.id for a in read(folder / LEDGER_FILE) if a.status in FINAL}
    return (
        f"{len(done & plan.by_id.keys())} of {len(plan.nodes)} nodes are finished and kept; "
        "the same command goes on from here"
    )


if __name__ == "__main__":
    typer.run(main)
