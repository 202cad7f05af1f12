"""A chain of trainings, each student the next one's teacher and starting point (BiT's multi-distillation).

    OUT/chain.json                 the configuration and its hash
    OUT/1_NAME, OUT/2_NAME, ...    one run a stage, each as `python -m qat train` writes it

Liu et al. (NeurIPS 2022), section 3.4: W32A32 -> W1A2 -> W1A1. A stage is an ordinary run, so a stopped chain
goes on inside the stage that it was in, and finished stages are not trained again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hwsim.errors import CheckpointError
from qat.checkpoint import CHAIN_FILE, is_vacant, read_json, write_json
from qat.config import Device, ModelSpec, RecipeSpec, RunConfig, TrainSpec, sha256
from qat.data.spec import TaskSpec
from qat.result import RunResult
from qat.spec import Strict

SCHEMA = "qat/chain/1"


class Stage(Strict):
    """One training of the chain.

    `teacher: previous` learns from the stage before it (BiT), `first` from the chain's own teacher (or the
    first stage, where the chain has none). Either way it starts from the previous stage's latent weights.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    recipe: RecipeSpec
    train: TrainSpec
    layers: Annotated[tuple[int, ...], Field(strict=False, min_length=1)] | None = None
    teacher: Literal["previous", "first"] = "previous"


class ChainConfig(Strict):
    """Stages that share a task, a seed and a machine. `teacher` or `model` as in a run's configuration."""

    schema_: Literal["qat/chain/1"] = Field(alias="schema")
    name: str
    task: TaskSpec
    model: ModelSpec | None = None
    teacher: str | None = None
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1)]
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=1, ge=1)
    device: Device = "cpu"

    @model_validator(mode="after")
    def _stages_are_told_apart(self) -> Self:
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"stages must have names of their own, {', '.join(twice)} is there twice"
            )
        if self.model is None and self.teacher is None:
            raise ValueError("at least one of model and teacher must be given")
        return self


def stage_folders(config: ChainConfig, out: Path) -> list[Path]:
    """Return the run folder of every stage."""
    return [out / f"{i}_{stage.name}" for i, stage in enumerate(config.stages, start=1)]


def stage_runs(config: ChainConfig, out: Path) -> list[RunConfig]:
    """Write every stage out as the configuration of a run; a later one names the folder of an earlier one."""
    folders = stage_folders(config, out)
    shared = config.model_dump(mode="json", by_alias=True, exclude={"stages", "model", "teacher"})
    runs = []
    for i, stage in enumerate(config.stages):
        values: dict[str, Any] = shared | {
            "schema": "qat/run/1",
            "name": f"{config.name}_{stage.name}",
            **stage.model_dump(mode="json", exclude={"name", "teacher"}, by_alias=True),
        }
        if i == 0:
            given = config.model_dump(mode="json", include={"model", "teacher"})
            values |= {key: value for key, value in given.items() if value is not None}
        elif stage.teacher == "previous":
            values["teacher"] = str(folders[i - 1])
        else:
            values["teacher"] = config.teacher or str(folders[0])
            values["model"] = {"checkpoint": str(folders[i - 1])}
        runs.append(RunConfig.model_validate(values))
    return runs


def train_chain(config: ChainConfig, out: Path, progress: bool = False) -> list[RunResult]:
    """Train every stage in turn into the folder `out`; go on where an earlier call stopped.

    Raises:
        ConfigError, DataError, TrainingDiverged: as a stage's own training.
        CheckpointError: `out` holds another chain, something else, or damage.
    """
    from qat.loop import train
    from qat.processes import accelerator_on

    values = config.model_dump(mode="json", by_alias=True)
    if (out / CHAIN_FILE).is_file():
        if read_json(out / CHAIN_FILE).get("config_sha256") != sha256(values):
            raise CheckpointError(
                f"{out}: holds a chain of another configuration; choose another folder or remove this one"
            )
    elif not is_vacant(out):
        raise CheckpointError(f"{out}: not empty and not a chain: choose another folder")
    folders = stage_folders(config, out)
    accelerator = accelerator_on(config.device)
    accelerator.wait_for_everyone()  # all have looked at the folder
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        write_json(
            out / CHAIN_FILE,
            {
                "schema": SCHEMA,
                "config_sha256": sha256(values),
                "runs": [folder.name for folder in folders],
                "config": values,
            },
        )
    runs = stage_runs(config, out)
    return [train(run, folder, progress) for run, folder in zip(runs, folders, strict=True)]


def load_training_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig | ChainConfig:
    """Read the YAML of a run or, where its `schema` says so, of a chain.

    Raises:
        ConfigError: every fault with its place.
    """
    from hwsim.config.compose import compose
    from hwsim.config.load import validate

    document = compose(path, overrides)
    if document.data.get("schema") == SCHEMA:
        return validate(document, ChainConfig)
    return validate(document, RunConfig)
