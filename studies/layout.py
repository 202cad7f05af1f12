"""Makes the nodes of a study: what each is told, and what it hangs on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hwsim.errors import ConfigError
from studies.axes import Setting, Variant
from studies.plan import Node, make_node, sha256_of
from studies.space import Study, Training, Untrained

if TYPE_CHECKING:
    from hwsim.arch.machine import Machine
    from qat.recipe import Recipe

RUN_SCHEMA = "qat/run/1"


@dataclass(frozen=True)
class ResolvedMachine:
    """A machine of a study, read and built."""

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


class Layout:
    """Makes the nodes of a study, one at a time; each name is looked up once and each training made once."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._recipes: dict[str, Recipe] = {}
        self._bases: dict[str, Any] = {}
        self._trainings: dict[tuple[str, int], Node] = {}
        self._students = {student.name: student for student in study.trainings}
        self._inputs = list(_input_paths(study))

    @staticmethod
    def student(entry: Training, point: Sequence[Setting]) -> Training:
        """Return a student with its varied keys set.

        Raises:
            ConfigError: a value does not fit its key.
        """
        try:
            return entry.at(point)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise ConfigError([f"students: '{entry.name}': vary: {f}" for f in faults]) from None

    def recipe(self, part: Training | Untrained) -> Recipe:
        """Return the recipe of a teacher, student or untrained model.

        Raises:
            ConfigError: there is none of that name, its changes do not fit it, or it trains nothing and `train` says how.
        """
        from qat.config import check_train
        from qat.recipe import load_recipe

        if part.name not in self._recipes:
            recipe = part.recipe
            if isinstance(recipe, str):
                recipe = load_recipe(recipe, part.recipe_set)
            if isinstance(part, Training):
                check_train(part.train, recipe)
            self._recipes[part.name] = recipe
        return self._recipes[part.name]

    def machine(self, variant: Variant) -> ResolvedMachine:
        """Read and build a machine; a file is read once for all its variants.

        Raises:
            ConfigError: there is no such machine, or what is set does not fit it.
        """
        from hwsim.config.load import build_machine, changed_machine, machine_bases

        if variant.machine not in self._bases:
            self._bases[variant.machine] = machine_bases(variant.machine)
        document = changed_machine(self._bases[variant.machine], variant.settings)
        return ResolvedMachine(variant, build_machine(document))

    def training(self, part: Training, seed: int) -> Node:
        """Return the training of the teacher or of a student."""
        key = part.name, seed
        if key not in self._trainings:
            self._trainings[key] = self._training(part, seed, f"{part.name} seed {seed}", {})
        return self._trainings[key]

    def trial_training(self, part: Training, seed: int, steps: int) -> Node:
        """Return a training that is only to be compared with others of its length, on the carve-out."""
        change = {"steps": steps, "measure_tests": False}
        return self._training(part, seed, f"{part.name} seed {seed}, {steps} steps", change)

    def _training(self, part: Training, seed: int, label: str, change: dict[str, Any]) -> Node:
        above = self._above(part)
        return make_node(
            "train",
            label,
            {"run": _run_values(self.study, part, self.recipe(part), seed, change)},
            [] if above is None else [self.training(above, seed)],
            self._inputs,
            {"student": part.name, "seed": seed},
        )

    def _above(self, part: Training) -> Training | None:
        """Return the training that another one learns from."""
        if part is self.study.teacher:
            return None
        if part.teacher is None:
            return self.study.teacher
        return self._students[part.teacher]

    def lineage(self, part: Training, seed: int) -> list[Node]:
        """Return the trainings that a training hangs on, the teacher's first, without its own."""
        above = self._above(part)
        return [] if above is None else [*self.lineage(above, seed), self.training(above, seed)]

    def export(self, part: Training, seed: int) -> Node:
        """Return the export of a student."""
        label = f"export {part.name} seed {seed}"
        student = self.training(part, seed)
        return make_node("export", label, {}, [student], self._inputs, student.tags)

    def evaluation(self, part: Training, export: Node, machine: ResolvedMachine) -> Node:
        """Return what verifies and costs a student's export on a machine."""
        return make_node(
            "evaluate",
            f"{part.name} seed {export.tags['seed']} on {machine.name}",
            {**self._costed(machine), "samples": self.study.samples},
            [export],
            tags={**export.tags, **machine.tags()},
        )

    def _costed(self, machine: ResolvedMachine) -> dict[str, Any]:
        """Return what a node that costs something is told of it."""
        decode = self.study.decode
        positions = {} if decode is None else {"positions": list(decode.positions)}
        return {**machine.spec(), "mapping": self.study.mapping, **positions}

    def fault(self, export: Node, machine: ResolvedMachine, place: str, draw: int) -> Node:
        """Return a draw of bit errors in a student's export, at all rates of the study."""
        assert self.study.faults is not None
        tags = export.tags
        spec = {
            **machine.spec(),
            "samples": self.study.samples,
            "where": place,
            "rates": list(self.study.faults.rates),
            # models and draws must not share their flips
            "seed": int(sha256_of([tags["student"], tags["seed"], draw])[:8], 16),
        }
        return make_node(
            "fault",
            f"{tags['student']} seed {tags['seed']} with errors in {place}, draw {draw}",
            spec,
            [export],
            tags={**tags, **machine.tags(), "place": place, "draw": draw},
        )

    def untrained(self, part: Untrained) -> Node:
        """Return the export of an untrained model."""
        spec = {
            "model": part.model.model_dump(mode="json"),
            "recipe": self.recipe(part).model_dump(mode="json", by_alias=True),
            "length": part.length,
        }
        tags: dict[str, str | int] = {"student": part.name, "seed": 0}
        return make_node("untrained", f"export {part.name}", spec, tags=tags)

    def costing(self, part: Untrained, export: Node, machine: ResolvedMachine) -> Node:
        """Return what costs an untrained model on a machine."""
        return make_node(
            "cost",
            f"{part.name} on {machine.name}",
            self._costed(machine),
            [export],
            tags={**export.tags, **machine.tags()},
        )

    def question(
        self, students: Sequence[Training], machines: Sequence[ResolvedMachine]
    ) -> dict[str, Any]:
        """Return the study as a plan keeps it: names looked up, each student and machine by itself."""
        study = self.study
        left_out = {"budget": True, "search": True if study.search is None else {"trials"}}
        resolved = study.model_dump(mode="json", by_alias=True, exclude=left_out)
        given: list[Training | Untrained] = [*students, *study.untrained]
        resolved["students"] = [t.model_dump(mode="json", by_alias=True) for t in students]
        written = [*resolved["students"], *resolved["untrained"]]
        if study.teacher is not None:
            given, written = [study.teacher, *given], [resolved["teacher"], *written]
        for part, values in zip(given, written, strict=True):
            values["recipe"] = self.recipe(part).model_dump(mode="json", by_alias=True)
        if study.search is not None:
            resolved["search"]["space"] = {
                axis: study.model_dump(mode="json", by_alias=True)[axis]
                for axis in ("students", "machines")
            }
        resolved["machines"] = [m.name for m in machines]
        resolved["machine_sha256"] = {m.name: m.machine.sha256 for m in machines}
        return resolved


def _run_values(
    study: Study, part: Training, recipe: Recipe, seed: int, change: Mapping[str, Any]
) -> dict[str, Any]:
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
        "train": {**values["train"], **change},
        "seed": seed,
        "threads": 1,
        "device": study.device,
    }


def _input_paths(study: Study) -> Iterator[Path]:
    """Yield the files and folders that the trainings read: the task's data and pretrained weights."""
    if study.task is None:
        return
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
