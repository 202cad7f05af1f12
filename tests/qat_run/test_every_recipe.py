"""Every shipped recipe, smoke-sized: its loss falls, and its integer graph computes the same bits on a machine.

Recipes that differ only in how they train have one graph, which one of them is exported for.
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import SMALL_VIT, word_tokenizer

from hwsim.api import verify
from hwsim.errors import ConfigError, GraphError
from qat.config import RunConfig, run_config
from qat.exporter import export_run
from qat.loop import train
from qat.recipe import load_recipe, recipe_names

FAMILIES = ("vit", "bert", "gpt2")
STEPS = 16
TRAIN = {"batch_size": 16, "evaluate_every": 100, "log_every": 1}
# Frozen weights behind channel scales start as their teacher and learn little: tests/qat_run/test_quadapter_runs.py.
STUDENTS = [
    name
    for name in recipe_names()
    if load_recipe(name).quantizes
    and not (load_recipe(name).trains and load_recipe(name).channel_scaling)
]
RELEASED = [name for name in STUDENTS if name.endswith("_as_released")]
OURS = [name for name in STUDENTS if name not in RELEASED]


def graph_of(name: str) -> str:
    """All of a recipe that its integer graph follows from: losses, interventions and rates leave no operator."""
    recipe = load_recipe(name)
    parts = (recipe.quantization, recipe.activation_function, recipe.channel_scaling, recipe.trains)
    return repr(parts)


EXPORTED = {graph_of(name): name for name in OURS}.values()
# tests/bitexact climbs every rung with these on all families; here, trained, each is exported from one.
ELSEWHERE = dict(zip(map(graph_of, ("w8a8", "kd_w2a8", "bit_w1a1")), FAMILIES, strict=True))


def run(family: str, folder: Path, recipe: str, teacher: Path | None, steps: int) -> RunConfig:
    """One run of a tiny model. What trains starts from random weights, so that there is much to learn."""
    start: dict[str, Any] = {"teacher": str(teacher)} if teacher else {}
    task: Any = "digits"
    model: Any = {"family": "vit", "config": SMALL_VIT}
    if family == "bert":
        task = {"text": ["a", "b"], "label": "y", "metric": "accuracy", "max_tokens": 16}
        task |= {part: str(folder / f"{part}.jsonl") for part in ("train", "dev")}
        model = {"checkpoint": str(folder / "bert")}
    elif family == "gpt2":
        task = {"name": "lm", "block_tokens": 12}
        task |= {part: str(folder / "text.txt") for part in ("train", "dev")}
        config = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 12}
        model = {"family": "gpt2", "config": config}
    if steps:
        start["model"] = model
    rate = 1e-2 if family == "bert" else 3e-3
    spec: dict[str, Any] = {**TRAIN, "steps": steps}
    if load_recipe(recipe).trains:
        spec["learning_rate"] = rate
    values = {"schema": "qat/run/1", "name": "tiny", "task": task, "recipe": recipe, "train": spec}
    return run_config(values | start)


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Return family -> (folder of its data, its trained teacher)."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("data")
    for part, size in (("train", 96), ("dev", 24)):
        rows = [
            {"a": "row of " * (n % 3), "b": ("question", "sentence")[n % 2], "y": n % 2}
            for n in range(size)
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    config = BertConfig(
        vocab_size=19,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder / "bert")
    word_tokenizer().save_pretrained(folder / "bert")
    for family in FAMILIES:
        train(run(family, folder, "float", None, 60), folder / f"{family}_teacher")
    return {family: (folder, folder / f"{family}_teacher") for family in FAMILIES}


def longest_phase(log: Path) -> list[float]:
    """Losses of the phase that has most steps: an intervention ends with a jump of the loss."""
    steps = [line for line in map(json.loads, log.read_text().splitlines()) if "loss" in line]
    phases = [[s["loss"] for s in group] for _, group in groupby(steps, lambda s: s["phase"])]
    return max(phases, key=len)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recipe", OURS)
def test_a_student_learns_and_its_graph_is_exact(
    recipe: str, family: str, teachers: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    folder, teacher = teachers[family]
    trains = load_recipe(recipe).trains
    if load_recipe(recipe).channel_scaling and family == "bert":
        pytest.skip("a post-LN model has no layer norm whose output feeds linear layers alone")
    train(run(family, folder, recipe, teacher, STEPS if trains else 0), tmp_path / "run")
    if trains:
        losses = longest_phase(tmp_path / "run" / "train.jsonl")
        third = len(losses) // 3
        assert sum(losses[-third:]) < 0.98 * sum(losses[:third])
    if recipe in EXPORTED and ELSEWHERE.get(graph_of(recipe), family) == family:
        export_run(tmp_path / "run", tmp_path / "model")
        found = verify(tmp_path / "model", "bitserial_edge", samples=8)
        assert found.ok
        assert found.tensors > 20


@pytest.mark.parametrize("recipe", RELEASED)
def test_a_released_recipe_learns_and_says_why_it_cannot_be_exported(
    recipe: str, teachers: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    folder, teacher = teachers["bert"]
    train(run("bert", folder, recipe, teacher, 90), tmp_path / "run")  # 60 of them intervene
    losses = longest_phase(tmp_path / "run" / "train.jsonl")
    assert sum(losses[-4:]) < sum(losses[:4])
    with pytest.raises(GraphError, match="rounds 'half_even'; the machine rounds half up"):
        export_run(tmp_path / "run", tmp_path / "model")


@pytest.mark.parametrize(
    ("recipe", "steps", "fault"),
    [
        ("ptq_w8a8", 3, "recipe 'ptq_w8a8' trains nothing: steps must be 0, not 3"),
        ("w8a8", 0, "recipe 'w8a8' trains: must be 1 or more, not 0"),
    ],
)
def test_steps_and_recipe_must_agree(
    recipe: str, steps: int, fault: str, teachers: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    folder, teacher = teachers["vit"]
    with pytest.raises(ConfigError, match=fault):
        train(run("vit", folder, recipe, teacher, steps), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_that_nothing_reads_are_refused(
    teachers: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    folder, teacher = teachers["vit"]
    values = run("vit", folder, "ptq_w8a8", teacher, 0).model_dump(mode="json", by_alias=True)
    values["train"]["learning_rate"] = 1e-3
    config = run_config(values)
    with pytest.raises(ConfigError, match=r"train\.learning_rate: .* trains nothing: leave it out"):
        train(config, tmp_path / "run")
