"""XTC's layer reduction: which layers stay, what they are compared with, and maps that fit nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, batch_of, tiny

from hwsim.errors import ConfigError
from qat.config import run_config
from qat.methods.layer_reduction import depth, hidden_map, keep_layers, select
from qat.objective import Objective
from qat.recipe import load_recipe
from qat.roles import family_of, match
from qat.student import prepare


def layers_of(model: Any) -> list[Any]:
    names = match(family_of(model.config.model_type), [n for n, _ in model.named_modules()])
    return [model.get_submodule(name) for name in names["layer"]]


@pytest.mark.parametrize(
    ("layers", "hidden"),
    [
        ([0, 1, 2, 3, 5], [0, 1, 2, 3, 4, 6]),
        ([1, 3, 5, 7, 9, 11], [0, 2, 4, 6, 8, 10, 12]),
        ([2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]),
    ],
)
def test_hidden_states_match_as_in_the_released_code(layers: list[int], hidden: list[int]) -> None:
    assert hidden_map(layers) == hidden


@pytest.mark.parametrize("family", FAMILIES)
def test_the_kept_layers_keep_their_weights_and_the_model_runs(family: str) -> None:
    model = tiny(family)
    reduced = keep_layers(model, [1])
    assert (depth(model), depth(reduced)) == (2, 1)
    (kept,) = layers_of(reduced)
    original = layers_of(model)[1].state_dict()
    assert original
    assert all(torch.equal(kept.state_dict()[name], value) for name, value in original.items())
    kept_storage = {t.data_ptr() for t in reduced.state_dict().values()}
    assert kept_storage.isdisjoint({t.data_ptr() for t in model.state_dict().values()})
    reduced(**batch_of(family))
    assert keep_layers(model, [0, 1]).state_dict().keys() == model.state_dict().keys()
    logits = [m.eval()(**batch_of(family)).logits for m in (model, keep_layers(model, [0, 1]))]
    assert torch.equal(*logits)


@pytest.mark.parametrize("layers", [[1, 0], [0, 0], [0, 2], [-1, 1]])
def test_maps_that_fit_no_layer_are_refused(layers: list[int]) -> None:
    with pytest.raises(
        ConfigError, match=r"strictly increasing numbers from 0 to 1 .* has 2 layers"
    ):
        keep_layers(tiny("bert"), layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_that_is_its_teacher_up_to_the_kept_layer_has_no_loss_there(family: str) -> None:
    """The first layer alone, compared with the teacher's first: only the logits differ."""
    model = tiny(family)
    recipe = load_recipe("xtc_w1a8", ["quantization={}"])
    student = prepare(keep_layers(model, [0]), recipe)
    objective = Objective(student, prepare(model), recipe, 10, layers=[0])
    _, parts = objective(batch_of(family), 0)
    assert parts["hidden"].item() == 0
    assert parts["scores"].item() == 0
    shifted = Objective(
        prepare(keep_layers(model, [0]), recipe), prepare(model), recipe, 10, layers=[1]
    )
    assert shifted(batch_of(family), 0)[1]["hidden"].item() > 0


def test_the_teachers_tensors_come_in_the_students_order() -> None:
    teacher = prepare(tiny("bert"))
    with teacher.step.record() as record:
        teacher(**batch_of("bert"))
    chosen = select(record, [1])
    assert chosen.scores == [record.scores[1]]
    assert chosen.hidden == [record.hidden[0], record.hidden[2]]
    assert len(chosen.maps) == len(chosen.contexts) == len(chosen.outputs) == 1
    assert chosen.post_norm == [record.post_norm[1]]


def test_depths_that_do_not_match_need_a_map() -> None:
    model, recipe = tiny("bert"), load_recipe("xtc_w1a8", ["quantization={}"])
    short = prepare(keep_layers(model, [1]), recipe)
    with pytest.raises(
        ValueError, match="has 1 layers and the teacher 2: `layers` must name the 1"
    ):
        Objective(short, prepare(model), recipe, 10)
    with pytest.raises(ValueError, match="must name the 1 of the teacher"):
        Objective(short, prepare(model), recipe, 10, layers=[0, 1])


def test_a_run_with_layers_needs_a_teacher_that_has_them(tmp_path: Path) -> None:
    values = {
        "schema": "qat/run/1",
        "name": "reduced",
        "task": "digits",
        "recipe": "float",
        "train": {"steps": 1},
        "layers": [0],
    }
    with pytest.raises(ValueError, match="layers are those of a teacher"):
        run_config(values | {"model": {"family": "vit"}})
