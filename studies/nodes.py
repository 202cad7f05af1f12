"""From a study to the nodes that answer it, in an order in which parents come first.

teacher -> student -> export -> evaluate on each machine          a study with training
                             -> fault, on the first one           with bit errors
untrained export -> cost on each machine                          a study of hardware alone
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from hwsim.errors import ConfigError
from qat.data.spec import LanguageTask, NamedTask
from studies.axes import variant
from studies.layout import Layout, ResolvedMachine
from studies.plan import Node, Plan
from studies.search_space import Axis
from studies.space import Study, Training, Untrained

T = TypeVar("T")


def build_plan(study: Study, invocation: str = "python -m studies.sweep") -> Plan:
    """Resolve every name of a study and lay out its nodes; `invocation` is quoted in the report.

    Of a study that is searched, its question alone: it has no nodes before a search proposes some.

    Raises:
        ConfigError: an unknown recipe or machine, all of them at once, each with the nearest valid name.
    """
    layout = Layout(study)
    faults: list[str] = []
    parts: list[Training | Untrained] = [*study.trainings, *study.untrained]
    if study.teacher is not None:
        parts.insert(0, study.teacher)
    for part in parts:
        kept(partial(layout.recipe, part), faults)
    machines = [
        machine
        for variant in study.variants
        if (machine := kept(partial(layout.machine, variant), faults)) is not None
    ]
    if study.search is not None:
        faults += _faults_of_ends(layout)
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    if study.search is not None:
        return Plan(layout.question([], []), (), invocation)
    nodes = (
        _trained(layout, machines) if study.teacher is not None else _untrained(layout, machines)
    )
    return Plan(layout.question(study.trainings, machines), tuple(nodes), invocation)


def _faults_of_ends(layout: Layout) -> list[str]:
    """Return what is wrong with each entry of a search of which neither the first nor the last member can be built.

    Within an entry there may be members that cannot, such as a memory that is smaller than its port.
    """
    study = layout.study
    machines = Axis("machines", dict(study.machine_axes))
    students = Axis("students", {part.name: part.vary for part in study.students})

    def machine(place: tuple[int, ...]) -> object:
        return layout.machine(variant(study.machines[place[0]], machines.settings(place)))

    def recipe(place: tuple[int, ...]) -> object:
        return layout.recipe(layout.student(study.students[place[0]], students.settings(place)))

    faults: list[str] = []
    for axis, build in ((machines, machine), (students, recipe)):
        for ends in axis.ends:
            found: list[str] = []
            if all(kept(partial(build, place), found) is None for place in ends):
                faults += found
    return faults


def kept(load: Callable[[], T], faults: list[str]) -> T | None:
    """Return what is loaded; None if that fails, with its faults added to a list."""
    try:
        return load()
    except ConfigError as error:
        faults += error.faults
        return None


def _trained(layout: Layout, machines: Sequence[ResolvedMachine]) -> Iterator[Node]:
    """Yield trainings, exports and evaluations, seed by seed."""
    study = layout.study
    assert study.teacher is not None
    for seed in study.seeds:
        yield layout.training(study.teacher, seed)
        for part in study.trainings:
            export = layout.export(part, seed)
            yield layout.training(part, seed)
            yield export
            for machine in machines:
                yield layout.evaluation(part, export, machine)
            if study.faults is not None:
                for place, draw in itertools.product(study.faults.where, range(study.faults.draws)):
                    yield layout.fault(export, machines[0], place, draw)


def _untrained(layout: Layout, machines: Sequence[ResolvedMachine]) -> Iterator[Node]:
    """Yield exports of untrained models and what they cost, model by model."""
    for part in layout.study.untrained:
        export = layout.untrained(part)
        yield export
        for machine in machines:
            yield layout.costing(part, export, machine)


def require_data(study: Study) -> None:
    """Make sure that a task's own data sets are where they are looked for; a plan needs none of them.

    Raises:
        DataError: BITWRIGHT_DATA names no folder; says what to set.
    """
    from qat.data.task import data_root

    task = study.task
    if isinstance(task, NamedTask):
        needed = task.name != "digits" and task.source == "folder" and task.data is None
    else:
        needed = isinstance(task, LanguageTask) and (task.train is None or task.dev is None)
    if needed and task is not None:
        data_root(f"study '{study.name}'")
