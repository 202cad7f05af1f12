from importlib import resources
from pathlib import Path

import pytest

from hwsim.errors import ConfigError
from qat.config import RunConfig, load_run_config, resolved, run_config, sha256
from qat.recipe import load_recipe

RUNS = Path(str(resources.files("qat") / "runs"))

GOOD = """\
schema: qat/run/1
name: mine
task: {text: q, label: y, metric: accuracy, train: a.csv, dev: b.csv}
model: {checkpoint: minilm}
recipe: float
train:
  epochs: 2
  batch_size: 8
"""


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_run_is_valid_and_its_recipe_exists(path: Path) -> None:
    config = load_run_config(path)
    assert config.name == path.stem
    assert isinstance(config.recipe, str)
    load_recipe(config.recipe)


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_a_run_of_ones_own_table(tmp_path: Path) -> None:
    config = load_run_config(write(tmp_path, GOOD), ["train.batch_size=4", "seed=7"])
    assert config.task.text == ("q",)  # type: ignore[union-attr]
    assert config.train.batch_size == 4
    assert config.seed == 7


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("  batch_size: 8", "  batchsize: 8", ":8:3: train.batchsize", "batch_size"),
        ("  batch_size: 8", "  batch_size: 0", ":8:15: train.batch_size", "at least 1, not 0"),
        ("  epochs: 2", "  epochs: two", ":7:11: train.epochs", "a number, not 'two'"),
        ("metric: accuracy, ", "", ":3:1: task.metric", "must be given"),
        ("metric: accuracy", "metric: accuracyy", ":3:35: task.metric", "did you mean 'accuracy'"),
        ("text: q", "txt: q", ":3:8: task.txt", "did you mean 'text'? (that one is missing)"),
        (
            "text: q",
            "text: q, lenght: 9",
            ":3:17: task.lenght",
            "must be a known key (dev, label, labels, max_tokens, metric, text, train, validation), not",
        ),
        ("{text: q,", "{name: mine, text: q,", ":3:8: task.name", "not 'name'"),
        ("recipe: float\n", "", ":1:1: recipe", "must be"),
        ("model: {checkpoint: minilm}", "model: {family: vat}", ":4:17: model.family", "vit"),
    ],
)
def test_a_fault_is_reported_with_its_place(
    tmp_path: Path, old: str, new: str, place: str, words: str
) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigError) as fault:
        load_run_config(path)
    assert len(fault.value.faults) == 1
    assert fault.value.faults[0].startswith(f"{path}{place}"), fault.value.faults[0]
    assert words in fault.value.faults[0]


def test_steps_and_epochs_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exactly one of steps and epochs"):
        load_run_config(write(tmp_path, GOOD + "  steps: 5\n"))


def test_a_run_needs_something_to_train(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one of model and teacher"):
        load_run_config(write(tmp_path, GOOD.replace("model: {checkpoint: minilm}\n", "")))


def test_the_stored_configuration_reads_back_and_keeps_its_hash(tmp_path: Path) -> None:
    config = load_run_config(write(tmp_path, GOOD))
    stored = resolved(config, load_recipe("float"))
    again = run_config(stored)
    assert isinstance(again, RunConfig)
    assert not isinstance(again.recipe, str)
    assert sha256(resolved(again, again.recipe)) == sha256(stored)
    changed = config.model_copy(update={"seed": 1})
    assert sha256(resolved(changed, load_recipe("float"))) != sha256(stored)


def test_a_runs_optimiser_keys_replace_the_recipes() -> None:
    recipe = load_recipe("bit_w1a1")
    config = load_run_config(RUNS / "digits_teacher.yaml", ["train.alpha_learning_rate=0.01"])
    spec = config.train.optimizer(recipe.optimizer)
    assert spec.alpha_learning_rate == 0.01
    assert spec.name == recipe.optimizer.name
    assert spec.warmup_fraction == recipe.optimizer.warmup_fraction
