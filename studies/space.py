"""A study file: the question and its axes.

The axes are lists: students, seeds, machines; an entry with `vary` stands for many. One teacher is trained a seed, one
student of each kind a teacher, one export a student, and every export is verified and costed on every machine.
A study of hardware alone has `untrained` models in place of task, teacher, students and seeds.
`studies.nodes` lays out what is to be done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from hwsim.errors import ConfigError, nearest
from qat.config import ModelSpec, NewModel, RecipeSpec, TrainSpec
from qat.data.spec import LanguageTask, TaskSpec
from qat.spec import Strict
from studies.axes import (
    FaultAxis,
    MachineAxis,
    Setting,
    Variant,
    Vary,
    check_keys,
    label,
    points,
    variants,
)
from studies.search_spec import Search, check_no_ranges, check_searched

if TYPE_CHECKING:
    from hwsim.config.source import Document

DEFAULT_STUDY = "digits"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Cost = Literal["energy_pj", "latency_s", "area_um2", "energy_pj_per_token", "latency_s_per_token"]
OF_A_TOKEN = ("energy_pj_per_token", "latency_s_per_token")
Column = Literal[
    "score",
    "energy_pj",
    "latency_s",
    "area_um2",
    "energy_pj_per_token",
    "latency_s_per_token",
    "weight_bytes",
    "peak_activation_bytes",
]
"""what a constraint may be about; latency is steady, the score that of the task's metric"""
MachineEntry = Annotated[
    Annotated[str, Tag("name")] | Annotated[MachineAxis, Tag("axis")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "axis"),
]
VARIED = ("recipe", "train", "layers")
"""parts of a training that `vary` may reach into"""


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
    vary: Vary = Field(default_factory=dict)
    """`recipe.KEY`, `train.KEY` or `layers` -> values: one student for each combination, named by it"""

    @model_validator(mode="after")
    def _changes_are_of_a_name(self) -> Self:
        changed = self.recipe_set or any(key.startswith("recipe.") for key in self.vary)
        if changed and not isinstance(self.recipe, str):
            raise ValueError(
                "recipe_set and vary change a recipe given by name: write it into the recipe"
            )
        check_keys(self.vary, VARIED, f"students: '{self.name}'")
        return self

    def expanded(self) -> list[Training]:
        """Return the trainings that this one stands for."""
        return [self.at(point) for point in points(self.vary)]

    def at(self, point: Sequence[Setting]) -> Training:
        """Return the training with its varied keys set."""
        if not point:
            return self
        given = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        del given["vary"]
        return Training.model_validate(_varied(given, point))


def _varied(given: Mapping[str, Any], point: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a training with some of its keys set."""
    values = {**given, "name": f"{given['name']} {label(point)}"}
    for key, value in point:
        part, _, rest = key.partition(".")
        if part == "recipe" and rest:
            change = f"{rest}={json.dumps(value)}"  # JSON is YAML, which is how a change is read
            values["recipe_set"] = [*values.get("recipe_set", ()), change]
        elif part == "train" and rest:
            values["train"] = {**values["train"], rest: value}
        else:
            values[part] = value
    return values


class Untrained(Strict):
    """An architecture in the formats of a recipe, with random weights: it has costs and no accuracy."""

    name: str = Field(min_length=1)
    model: NewModel
    recipe: RecipeSpec
    recipe_set: Annotated[tuple[str, ...], Field(strict=False)] = ()
    length: Annotated[int, Field(ge=1)] | None = None
    """tokens of an inference; null: as many as the model has positions. Images have none"""


class Constraint(Strict):
    """What a point must keep to be an answer. A point that does not is shown, and is on no front."""

    column: Column
    at_most: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def _a_limit(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("exactly one of at_most and at_least must be given")
        return self

    def broken_by(self, value: float | None) -> str | None:
        """Say in which way a value breaks it; None where it keeps it, or where there is no value."""
        if value is None:
            return None
        if self.at_most is not None and value > self.at_most:
            return f"{self.column} {value:.4g} > {self.at_most:.4g}"
        if self.at_least is not None and value < self.at_least:
            return f"{self.column} {value:.4g} < {self.at_least:.4g}"
        return None


class Decode(Strict):
    """What a token costs that is decoded by itself, through a key-value cache."""

    positions: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
    """how many tokens the cache holds when a step is costed; a token costs the mean over these"""


class Budget(Strict):
    """When a sweep begins nothing more. What runs is finished; the same command goes on, with a budget of its own."""

    hours: Annotated[float, Field(gt=0)] | None = None
    """since the sweep began"""
    nodes: Annotated[int, Field(ge=1)] | None = None
    """attempts that it begins; what was finished before does not count"""


class Study(Strict):
    """One question with its axes. Every score is drawn against every cost in `objectives`."""

    schema_: Literal["studies/study/1"] = Field(alias="schema")
    name: Name
    """names the folder of the results"""
    question: str
    task: TaskSpec | None = None
    teacher: Training | None = None
    students: Annotated[tuple[Training, ...], Field(strict=False, min_length=1)] = ()
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)
    ] = ()
    untrained: Annotated[tuple[Untrained, ...], Field(strict=False, min_length=1)] = ()
    """in place of task, teacher, students and seeds: models that have costs and no accuracy"""
    machines: Annotated[tuple[MachineEntry, ...], Field(strict=False, min_length=1)]
    """names or files, or entries with `vary`"""
    mapping: Literal["cycles", "energy"] = "cycles"
    """what the mappings of operators to arrays are chosen for"""
    objectives: Annotated[tuple[Cost, ...], Field(strict=False, min_length=1)] = ("energy_pj",)
    constraints: Annotated[tuple[Constraint, ...], Field(strict=False)] = ()
    decode: Decode | None = None
    """null: a token is not costed by itself"""
    faults: FaultAxis | None = None
    """bit errors in the exported students; null: none"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where models are trained; what is exported, verified and costed is so on the CPU"""
    samples: Annotated[int, Field(ge=1)] | None = None
    """labelled samples each machine runs and verifies; null: all that the export carries"""
    search: Search | None = None
    """how points are chosen where there are too many; null: all of them are measured"""
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _trained_or_not(self) -> Self:
        trained = {
            "task": self.task,
            "teacher": self.teacher,
            "students": self.students,
            "seeds": self.seeds,
        }
        given = [name for name, value in trained.items() if value]
        if self.untrained and given:
            raise ValueError(
                f"untrained must stand alone: a study of hardware has no {', '.join(given)}"
            )
        missing = [name for name, value in trained.items() if not value]
        if not self.untrained and missing:
            raise ValueError(
                f"{', '.join(missing)} must be given (or `untrained` models, for hardware alone)"
            )
        if self.untrained and self.faults:
            raise ValueError(
                "faults must be of students: an untrained model has no accuracy to lose"
            )
        if self.faults and isinstance(self.task, LanguageTask):
            raise ValueError(
                "faults need a task with an accuracy: a language model has a perplexity"
            )
        scored = [c.column for c in self.constraints if c.column == "score"]
        if self.untrained and scored:
            raise ValueError(
                "constraints must be about costs where there is no accuracy, not score"
            )
        if self.untrained and len(self.objectives) < 2:
            raise ValueError(
                "objectives must be at least two where there is no accuracy: a front needs two"
            )
        return self

    @model_validator(mode="after")
    def _tokens_are_decoded(self) -> Self:
        asked = [*self.objectives, *(c.column for c in self.constraints)]
        of_a_token = [name for name in asked if name in OF_A_TOKEN]
        if of_a_token and self.decode is None:
            raise ValueError(
                f"{of_a_token[0]} needs `decode`: the positions at which a token is costed"
            )
        if (
            self.decode is not None
            and self.task is not None
            and not isinstance(self.task, LanguageTask)
        ):
            raise ValueError("decode must be of a language task: other models decode no tokens")
        return self

    @model_validator(mode="after")
    def _searched_or_not(self) -> Self:
        if self.search is None:
            check_no_ranges([("students", t.name, t.vary) for t in self.students])
            check_no_ranges([("machines", name, vary) for name, vary in self.machine_axes])
        elif self.faults is not None:
            raise ValueError("faults are not for a study with `search`: leave one of them out")
        else:
            check_searched(self.search, self.students, [name for name, _ in self.machine_axes])
        return self

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        teacher = [] if self.teacher is None else [self.teacher.name]
        axes: dict[str, Sequence[object]] = {
            "students": [*teacher, *(s.name for s in self.trainings)],
            "untrained": [u.name for u in self.untrained],
            "seeds": self.seeds,
            "machines": [(m.machine, m.name, str(m.settings)) for m in self.variants],
            "decode.positions": () if self.decode is None else self.decode.positions,
            "objectives": self.objectives,
        }
        for axis, values in axes.items():
            twice = sorted({_shown(v) for v in values if values.count(v) > 1})
            if twice:
                raise ValueError(
                    f"{axis} must differ from each other; given twice: {', '.join(twice)}"
                )
        t = self.teacher
        if t is not None and (t.teacher or t.layers or t.control or t.vary):
            raise ValueError(
                "the study's teacher must have no teacher, layers, control or vary of its own"
            )
        if t is not None and t.model is None:
            raise ValueError("teacher.model must be given: a teacher is no copy of another run")
        return self

    @model_validator(mode="after")
    def _teachers_come_first(self) -> Self:
        above: list[str] = []
        for student in self.trainings:
            if student.teacher is not None and student.teacher not in above:
                raise ValueError(
                    f"students: the teacher of '{student.name}' must be a student above it"
                    f" ({', '.join(above) or 'there is none'}), not '{student.teacher}'"
                )
            above.append(student.name)
        for student in self.trainings:
            others = [name for name in above if name != student.name]
            if student.control is not None and student.control not in others:
                raise ValueError(
                    f"students: the control of '{student.name}' must be another student"
                    f"{nearest(student.control, others)}, not '{student.control}'"
                )
        return self

    @property
    def machine_axes(self) -> list[tuple[str, Vary]]:
        """What each entry of `machines` is called, and what it varies."""
        return [
            (m, {}) if isinstance(m, str) else (m.name or m.machine, m.vary) for m in self.machines
        ]

    @property
    def trainings(self) -> list[Training]:
        """All students, each combination of a varied one by itself; of a study that is searched those that vary nothing."""
        if self.search is not None:
            return [student for student in self.students if not student.vary]
        return [one for student in self.students for one in student.expanded()]

    @property
    def variants(self) -> list[Variant]:
        """All machines, each combination of a varied one by itself; none of a study that is searched."""
        if self.search is not None:
            return []
        return [one for entry in self.machines for one in variants(entry)]


def _shown(value: object) -> str:
    return value[0] if isinstance(value, tuple) else str(value)


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


def read_study(path: Path, overrides: Sequence[str] = ()) -> tuple[Study, Document]:
    """Read a study file; return the study, and the document that knows where each of its keys was written.

    Raises:
        ConfigError: with every fault's file, line and column.
    """
    from hwsim.config.compose import compose
    from hwsim.config.load import validate

    document = compose(path, overrides)
    return validate(document, Study), document


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file.

    Raises:
        ConfigError: as `read_study`.
    """
    return read_study(path, overrides)[0]
