"""The end of a run: measure the kept weights, on the held-out data once, and write model and result."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from hwsim.metrics import without_answers
from qat import checkpoint, result
from qat.data.task import Task
from qat.evaluate import evaluate
from qat.recipe import Recipe


def conclude(
    record: checkpoint.RunRecord,
    recipe: Recipe,
    task: Task,
    student: PreTrainedModel,
    out: Path,
    *,
    steps: int,
    kept_step: int,
    stopped_early: bool,
    wall_s: float,
) -> result.RunResult:
    """Measure a student as it is now and write its folder `out`. Afterwards the run is finished."""
    student.eval()
    config = record.config
    validation = without_answers(evaluate(student, task.validation, task))
    tests = {
        name: evaluate(student, split, task)
        for name, split in task.tests.items()
        if config.train.measure_tests
    }
    checkpoint.write_final_model(out, student, recipe, task.processor)
    measured = result.RunResult(
        folder=out,
        name=config.name,
        recipe=recipe.name,
        task=task.name,
        metric=task.metrics[0],
        seed=config.seed,
        config_sha256=record.config_sha256,
        teacher_sha256=record.teacher_sha256,
        model_sha256=checkpoint.file_sha256(out / checkpoint.MODEL_FILE),
        steps=steps,
        kept_step=kept_step,
        stopped_early=stopped_early,
        validation=validation,
        tests=tests,
        wall_s=wall_s,
    )
    result.write_result(measured)
    return measured
