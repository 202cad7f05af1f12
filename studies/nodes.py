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

from hwsim.config.source import Document, KeyPath, dotted
from hwsim.errors import BitwrightError, ConfigError
from studies.axes import variant, variants
from studies.layout import Layout, ResolvedMachine
from studies.plan import Node, Plan
from studies.search_space import Axis
from studies.space import Study, Training, Untrained

T = TypeVar("T")

NO_DOCUMENT = Document({})
"""of a study that was not read from a file: nothing has a place"""


def build_plan(
    study: Study,
    invocation: str = "python -m studies.sweep",
    document: Document = NO_DOCUMENT,
) -> Plan:
    """Resolve every name of a study and lay out its nodes; `invocation` is quoted in the report.

    Of a study that is searched, its question alone: it has no nodes before a search proposes some.

    Args:
        study: what is asked.
        invocation: the command that asked.
        document: where the study's names were written; its places begin the messages.

    Raises:
        ConfigError: an unknown recipe or machine, or one that is wrong itself, all of them at once, each name with its
            place and the nearest valid one.
    """
    from hwsim.config.load import find_machine, machine_bases
    from qat.recipe import find_recipe

    layout = Layout(study)
    faults: list[str] = []
    for path, part in _parts(study):
        if isinstance(part.recipe, str):
            named = partial(find_recipe, part.recipe)
            if kept_at(path, named, document, faults) is None:
                continue
        kept(partial(layout.recipe, part), faults)
    machines: list[ResolvedMachine] = []
    taken: dict[str, KeyPath] = {}
    for number, entry in enumerate(study.machines):
        name, path = (
            (entry, ("machines", number))
            if isinstance(entry, str)
            else (entry.machine, ("machines", number, "machine"))
        )
        if kept_at(path, partial(find_machine, name), document, faults) is None:
            continue
        if study.search is None:
            found = [kept(partial(layout.machine, one), faults) for one in variants(entry)]
            family = [machine for machine in found if machine is not None]
            names = [machine.name for machine in family]
            machines += family
        else:
            own = None if isinstance(entry, str) else entry.name
            names = [own or str(machine_bases(name).data.get("name"))]
        faults += _called_alike(names, path, taken, document)
    if study.search is not None and not faults:
        faults += _faults_of_ends(layout)
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    if study.search is not None:
        return Plan(layout.question([], []), (), invocation)
    nodes = (
        _trained(layout, machines) if study.teacher is not None else _untrained(layout, machines)
    )
    return Plan(layout.question(study.trainings, machines), tuple(nodes), invocation)


def _called_alike(
    names: Sequence[str], path: KeyPath, taken: dict[str, KeyPath], document: Document
) -> Iterator[str]:
    """Yield a message for each name that an earlier machine of the study has: rows are told apart by it."""
    for name in names:
        if name in taken:
            yield (
                f"{_where(path, document)}: must have a name of its own, '{name}' is that of {dotted(taken[name])}; change `name:` in its"
                " file, or give `{machine: FILE, name: ...}`"
            )
        taken.setdefault(name, path)


def _parts(study: Study) -> Iterator[tuple[KeyPath, Training | Untrained]]:
    """Yield teacher, students and untrained models, each with the place of its recipe.

    Of a search, the students that vary nothing: the others are built as they are proposed.
    """
    if study.teacher is not None:
        yield ("teacher", "recipe"), study.teacher
    for number, student in enumerate(study.students):
        varied = ("vary", "recipe") if "recipe" in student.vary else ("recipe",)
        if study.search is None or not student.vary:
            yield from ((("students", number, *varied), one) for one in student.expanded())
    for number, model in enumerate(study.untrained):
        yield ("untrained", number, "recipe"), model


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
    except BitwrightError as error:
        faults += str(error).splitlines()
        return None


def kept_at(
    path: KeyPath, load: Callable[[], T], document: Document, faults: list[str]
) -> T | None:
    """Do as `kept` does of what a key of a study names: its faults begin with the key, and its place if that is known."""
    try:
        return load()
    except BitwrightError as error:
        faults += [f"{_where(path, document)}: {line}" for line in str(error).splitlines()]
        return None


def _where(path: KeyPath, document: Document) -> str:
    """Return a key, behind its place if that is known."""
    key = dotted(path)
    return key if document is NO_DOCUMENT else f"{document.place(path)}: {key}"


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
