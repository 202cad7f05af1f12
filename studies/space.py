"""A study file: the question and its axes, and the plan of nodes that answers it.

The axes are lists: students, seeds, machines. One teacher is trained a seed, one student of each kind a
teacher, one export a student, and every export is verified and costed on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from hwsim.errors import ConfigError, nearest
from qat.config import ModelSpec, RecipeSpec, TrainSpec
from qat.data.spec import TaskSpec
from qat.spec import Strict
from studies.plan import Node, Plan, make_node

if TYPE_CHECKING:
    from qat.recipe import Recipe

DEFAULT_STUDY = "digits"
RUN_SCHEMA = "qat/run/1"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Cost = Literal["energy_pj", "latency_s"]


class Training(Strict):
    """How the teacher, or one kind of student, is trained: the part of a run that seeds do not change."""

    name: str = Field(min_length=1)
    """what the report calls it, for example `W2A8 TI-G`"""
    recipe: RecipeSpec
    recipe_set: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """changes of a named recipe, `key=value` each: one method in several formats needs no file each"""
    model: ModelSpec | None = None
    """null: a student starts as a copy of its teacher"""
    teacher: str | None = None
    """a student above that this one learns from (a stage of a chain); null: the study's teacher"""
    layers: Annotated[tuple[int, ...], Field(strict=False, min_length=1)] | None = None
    """which of its teacher's layers a student has (layer reduction)"""
    control: str | None = None
    """another student that differs in the one thing that is asked about: their paired difference is reported"""
    train: TrainSpec

    @model_validator(mode="after")
    def _changes_are_of_a_name(self) -> Self:
        if self.recipe_set and not isinstance(self.recipe, str):
            raise ValueError("recipe_set changes a recipe given by name: write it into the recipe")
        return self


class Study(Strict):
    """One question with its axes. Every accuracy is drawn against every cost in `objectives`."""

    schema_: Literal["studies/study/1"] = Field(alias="schema")
    name: Name
    """names the folder of the results"""
    question: str
    task: TaskSpec
    teacher: Training
    students: Annotated[tuple[Training, ...], Field(strict=False, min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
    machines: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    """names or files"""
    objectives: Annotated[tuple[Cost, ...], Field(strict=False, min_length=1)] = ("energy_pj",)
    samples: Annotated[int, Field(ge=1)] | None = None
    """labelled samples each machine runs and verifies; null: all that the export carries"""

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        axes: dict[str, Sequence[object]] = {
            "students": [self.teacher.name, *(s.name for s in self.students)],
            "seeds": self.seeds,
            "machines": self.machines,
            "objectives": self.objectives,
        }
        for axis, values in axes.items():
            twice = sorted({str(v) for v in values if values.count(v) > 1})
            if twice:
                raise ValueError(
                    f"{axis} must differ from each other; given twice: {', '.join(twice)}"
                )
        if self.teacher.teacher or self.teacher.layers or self.teacher.control:
            raise ValueError(
                "the study's teacher must have no teacher, layers or control of its own"
            )
        if self.teacher.model is None:
            raise ValueError("teacher.model must be given: a teacher is no copy of another run")
        return self

    @model_validator(mode="after")
    def _teachers_come_first(self) -> Self:
        above: list[str] = []
        for student in self.students:
            if student.teacher is not None and student.teacher not in above:
                raise ValueError(
                    f"students: the teacher of '{student.name}' must be a student above it"
                    f" ({', '.join(above) or 'there is none'}), not '{student.teacher}'"
                )
            above.append(student.name)
        for student in self.students:
            if student.control is not None and student.control not in above:
                raise ValueError(
                    f"students: the control of '{student.name}' must be a student"
                    f"{nearest(student.control, above)}, not '{student.control}'"
                )
        return self


def shipped_studies() -> dict[str, Path]:
    """Return the studies that come with the package, by name."""
    folder = Path(str(files("studies"))) / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_study(name_or_path: str) -> Path:
    """Return the file of a study given by path or by the name of a shipped one.

    Raises:
        ConfigError: neither exists; names the nearest shipped one.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    shipped = shipped_studies()
    if name_or_path in shipped:
        return shipped[name_or_path]
    raise ConfigError(
        f"study: must be a YAML file or one of {', '.join(shipped)}; "
        f"there is no '{name_or_path}'{nearest(name_or_path, list(shipped))}"
    )


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file.

    Raises:
        ConfigError: with every fault's file, line and column.
    """
    from hwsim.config.load import load_spec

    return load_spec(path, Study, overrides)


def build_plan(study: Study, invocation: str = "python -m studies.sweep") -> Plan:
    """Resolve every name of a study and lay out its nodes; `invocation` is quoted in the report.

    Raises:
        ConfigError: an unknown recipe or machine, all of them at once, each with the nearest valid name.
    """
    from hwsim.config.load import load_machine
    from qat.recipe import load_recipe

    faults: list[str] = []
    recipes: dict[str, Recipe] = {}
    for part in (study.teacher, *study.students):
        try:
            recipes[part.name] = (
                load_recipe(part.recipe, part.recipe_set)
                if isinstance(part.recipe, str)
                else part.recipe
            )
        except ConfigError as error:
            faults += error.faults
    machines = []
    for name in study.machines:
        try:
            machines.append((name, load_machine(name)))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))

    inputs = list(_input_paths(study))
    nodes: list[Node] = []
    for seed in study.seeds:
        teacher = make_node(
            "train",
            f"{study.teacher.name} seed {seed}",
            {"run": _run_values(study, study.teacher, recipes[study.teacher.name], seed)},
            inputs=inputs,
            tags={"student": study.teacher.name, "seed": seed},
        )
        nodes.append(teacher)
        trained: dict[str | None, Node] = {None: teacher}
        for part in study.students:
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
            nodes += [student, export]
            nodes += [
                make_node(
                    "evaluate",
                    f"{part.name} seed {seed} on {machine.spec.name}",
                    {"machine": name, "machine_sha256": machine.sha256, "samples": study.samples},
                    [export],
                    tags={**tags, "machine": machine.spec.name},
                )
                for name, machine in machines
            ]
    resolved = study.model_dump(mode="json", by_alias=True)
    for part in (resolved["teacher"], *resolved["students"]):
        part["recipe"] = recipes[part["name"]].model_dump(mode="json", by_alias=True)
    resolved["machine_sha256"] = {machine.spec.name: machine.sha256 for _, machine in machines}
    return Plan(resolved, tuple(nodes), invocation)


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


def _input_paths(study: Study) -> Iterator[Path]:
    """Yield the files and folders that the trainings read: the task's data and pretrained weights."""
    fields = study.task.model_dump()
    for key in ("data", "train", "dev", "tokenizer"):
        value = fields.get(key)
        if isinstance(value, str) and Path(value).exists():
            yield Path(value)
    yield from (Path(path) for path in (fields.get("ood") or {}).values())
    for part in (study.teacher, *study.students):
        checkpoint = getattr(part.model, "checkpoint", None)
        if checkpoint and Path(checkpoint).is_dir():
            yield Path(checkpoint)
