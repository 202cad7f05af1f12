"""From a study to the nodes that answer it, in an order in which parents come first.

teacher -> student -> export -> evaluate on each machine          a study with training
                             -> fault, on the first one           with bit errors
untrained export -> cost on each machine                          a study of hardware alone
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hwsim.errors import ConfigError
from qat.data.spec import LanguageTask, NamedTask
from studies.axes import Variant
from studies.plan import Node, Plan, make_node, sha256_of
from studies.space import Study, Training, Untrained

if TYPE_CHECKING:
    from hwsim.arch.machine import Machine
    from qat.recipe import Recipe

RUN_SCHEMA = "qat/run/1"
T = TypeVar("T")


def build_plan(study: Study, invocation: str = "python -m studies.sweep") -> Plan:
    """Resolve every name of a study and lay out its nodes; `invocation` is quoted in the report.

    Raises:
        ConfigError: an unknown recipe or machine, all of them at once, each with the nearest valid name.
    """
    names = _Names()
    parts: list[Training | Untrained] = [*study.trainings, *study.untrained]
    if study.teacher is not None:
        parts.insert(0, study.teacher)
    recipes = {part.name: names.recipe(part) for part in parts}
    machines = [m for variant in study.variants if (m := names.machine(variant)) is not None]
    if names.faults:
        raise ConfigError(list(dict.fromkeys(names.faults)))
    known = {name: recipe for name, recipe in recipes.items() if recipe is not None}
    nodes = list((_trained if study.teacher is not None else _untrained)(study, known, machines))

    resolved = study.model_dump(mode="json", by_alias=True, exclude={"budget"})
    resolved["students"] = [t.model_dump(mode="json", by_alias=True) for t in study.trainings]
    for values in (resolved["teacher"], *resolved["students"], *resolved["untrained"]):
        if values is not None:
            values["recipe"] = known[values["name"]].model_dump(mode="json", by_alias=True)
    resolved["machines"] = [m.name for m in machines]
    resolved["machine_sha256"] = {m.name: m.machine.sha256 for m in machines}
    return Plan(resolved, tuple(nodes), invocation)


@dataclass(frozen=True)
class _Machine:
    """A machine of the study, resolved."""

    variant: Variant
    machine: Machine

    @property
    def name(self) -> str:
        """What the report calls it."""
        name = self.variant.name or self.machine.spec.name
        return f"{name} {self.variant.label}" if self.variant.label else name

    def spec(self) -> dict[str, Any]:
        """Return what a node is told of it."""
        return {
            "machine": self.variant.machine,
            "settings": [list(s) for s in self.variant.settings],
            "machine_sha256": self.machine.sha256,
        }

    def tags(self) -> dict[str, str | int]:
        """Return what tables group its nodes by."""
        family = self.variant.name or self.machine.spec.name
        return {"machine": self.name, "family": family}


@dataclass
class _Names:
    """Looks names up, and collects every fault."""

    faults: list[str] = field(default_factory=list)
    bases: dict[str, Any] = field(default_factory=dict)

    def recipe(self, part: Training | Untrained) -> Recipe | None:
        from qat.recipe import load_recipe

        recipe = part.recipe
        if not isinstance(recipe, str):
            return recipe
        return self._kept(lambda: load_recipe(recipe, part.recipe_set))

    def machine(self, variant: Variant) -> _Machine | None:
        from hwsim.config.load import build_machine, changed_machine, machine_bases

        def load() -> _Machine:
            if variant.machine not in self.bases:  # a file is read once for all its variants
                self.bases[variant.machine] = machine_bases(variant.machine)
            document = changed_machine(self.bases[variant.machine], variant.settings)
            return _Machine(variant, build_machine(document))

        return self._kept(load)

    def _kept(self, load: Callable[[], T]) -> T | None:
        try:
            return load()
        except ConfigError as error:
            self.faults += error.faults
            return None


def _trained(study: Study, recipes: dict[str, Recipe], machines: list[_Machine]) -> Iterator[Node]:
    """Yield trainings, exports and evaluations, seed by seed."""
    assert study.teacher is not None
    inputs = list(_input_paths(study))
    for seed in study.seeds:
        teacher = make_node(
            "train",
            f"{study.teacher.name} seed {seed}",
            {"run": _run_values(study, study.teacher, recipes[study.teacher.name], seed)},
            inputs=inputs,
            tags={"student": study.teacher.name, "seed": seed},
        )
        yield teacher
        trained: dict[str | None, Node] = {None: teacher}
        for part in study.trainings:
            tags: dict[str, str | int] = {"student": part.name, "seed": seed}
            student = make_node(
                "train",
                f"{part.name} seed {seed}",
                {"run": _run_values(study, part, recipes[part.name], seed)},
                [trained[part.teacher]],
                inputs,
                tags,
            )
            trained[part.name] = student
            export = make_node(
                "export", f"export {part.name} seed {seed}", {}, [student], inputs, tags
            )
            yield student
            yield export
            for m in machines:
                yield make_node(
                    "evaluate",
                    f"{part.name} seed {seed} on {m.name}",
                    {**m.spec(), "mapping": study.mapping, "samples": study.samples},
                    [export],
                    tags={**tags, **m.tags()},
                )
            yield from _faults(study, machines[0], export, tags)


def _faults(
    study: Study, machine: _Machine, export: Node, tags: dict[str, str | int]
) -> Iterator[Node]:
    """Yield the draws of bit errors in an export: all rates of a place in one node."""
    if study.faults is None:
        return
    for place in study.faults.where:
        for draw in range(study.faults.draws):
            spec = {
                **machine.spec(),
                "samples": study.samples,
                "where": place,
                "rates": list(study.faults.rates),
                # models and draws must not share their flips
                "seed": int(sha256_of([tags["student"], tags["seed"], draw])[:8], 16),
            }
            yield make_node(
                "fault",
                f"{tags['student']} seed {tags['seed']} with errors in {place}, draw {draw}",
                spec,
                [export],
                tags={**tags, **machine.tags(), "place": place, "draw": draw},
            )


def _untrained(
    study: Study, recipes: dict[str, Recipe], machines: list[_Machine]
) -> Iterator[Node]:
    """Yield exports of untrained models and what they cost, model by model."""
    for part in study.untrained:
        spec = {
            "model": part.model.model_dump(mode="json"),
            "recipe": recipes[part.name].model_dump(mode="json", by_alias=True),
            "length": part.length,
        }
        tags: dict[str, str | int] = {"student": part.name, "seed": 0}
        export = make_node("untrained", f"export {part.name}", spec, tags=tags)
        yield export
        for m in machines:
            yield make_node(
                "cost",
                f"{part.name} on {m.name}",
                {**m.spec(), "mapping": study.mapping},
                [export],
                tags={**tags, **m.tags()},
            )


def _run_values(study: Study, part: Training, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Return a run's configuration without its teacher's folder, which the identity must not depend on."""
    values = part.model_dump(mode="json", by_alias=True)
    task = study.model_dump(mode="json", by_alias=True)["task"]
    return {
        "schema": RUN_SCHEMA,
        "name": part.name,
        "task": task,
        "recipe": recipe.model_dump(mode="json", by_alias=True),
        "model": values["model"],
        "layers": values["layers"],
        "train": values["train"],
        "seed": seed,
        "threads": 1,
        "device": "cpu",
    }


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


def _input_paths(study: Study) -> Iterator[Path]:
    """Yield the files and folders that the trainings read: the task's data and pretrained weights."""
    assert study.task is not None
    fields = study.task.model_dump()
    for key in ("data", "train", "dev", "tokenizer"):
        value = fields.get(key)
        if isinstance(value, str) and Path(value).exists():
            yield Path(value)
    yield from (Path(path) for path in (fields.get("ood") or {}).values())
    for part in (study.teacher, *study.students):
        model = None if part is None else part.model
        checkpoint = getattr(model, "checkpoint", None)
        if checkpoint and Path(checkpoint).is_dir():
            yield Path(checkpoint)
