"""Teacher Intervention: schedule, injection and the pattern of gradients of every mode."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, batch_of, tiny

from qat.methods.teacher_intervention import DETACHED, InterventionSchedule
from qat.modules.linear import QuantLinear
from qat.objective import Objective
from qat.recipe import LogitLoss, ObjectiveSpec, OutputLoss, Recipe, TermLoss, load_recipe
from qat.step import Injected
from qat.student import prepare

MODES: tuple[Injected, ...] = ("output", "context", "map")


@pytest.mark.parametrize(("length", "first", "second"), [(60, 10, 20), (120, 20, 40)])
def test_gradual_switches_at_a_sixth_and_a_third(length: int, first: int, second: int) -> None:
    schedule = InterventionSchedule("gradual", length)
    assert [schedule.injected(t) for t in (0, first - 1)] == ["output"] * 2
    assert [schedule.injected(t) for t in (first, second - 1)] == ["context"] * 2
    assert [schedule.injected(t) for t in (second, length - 1)] == ["map"] * 2
    assert schedule.injected(length) is None
    assert schedule.restart_steps == (length,)


def test_inverted_has_equal_thirds_from_the_map_up() -> None:
    schedule = InterventionSchedule("inverted", 9)
    names = [schedule.injected(t) for t in range(9)]
    assert names == ["map"] * 3 + ["context"] * 3 + ["output"] * 3


def test_stochastic_draws_are_a_function_of_seed_and_step() -> None:
    a, b = (InterventionSchedule("stochastic", 60, seed) for seed in (0, 1))
    first = [a.injected(t) for t in range(60)]
    assert first == [InterventionSchedule("stochastic", 60, 0).injected(t) for t in range(60)]
    assert first != [b.injected(t) for t in range(60)]
    assert set(first) == set(MODES)


def test_the_control_restarts_and_injects_nothing() -> None:
    recipe = load_recipe("kd_restart_w2a8")
    assert recipe.method is not None
    schedule = InterventionSchedule.from_spec(recipe.method, 100, 0)
    assert schedule.restart_steps == (20,)
    assert [schedule.injected(t) for t in range(100)] == [None] * 100


def test_an_intervention_must_end_before_the_training() -> None:
    recipe = load_recipe("ti_w2a8_as_released")
    assert recipe.method is not None
    with pytest.raises(ValueError, match="must be less than the run's 60 steps, got 60"):
        InterventionSchedule.from_spec(recipe.method, 60, 0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", MODES)
def test_with_quantisers_off_every_mode_reproduces_the_teacher(family: str, mode: Injected) -> None:
    teacher = prepare(tiny(family)).eval()
    student, batch = prepare(teacher).eval(), batch_of(family)
    with torch.no_grad():
        with teacher.step.record() as record:
            wanted = teacher(**batch).logits
        with student.step.intervene(mode, DETACHED[mode], record):
            assert torch.equal(student(**batch).logits, wanted)


@pytest.mark.parametrize("mode", MODES)
def test_the_injected_tensor_really_replaces_the_students(mode: Injected) -> None:
    teacher, student = prepare(tiny("vit", 1)).eval(), prepare(tiny("vit", 2)).eval()
    batch = batch_of("vit")
    with torch.no_grad(), teacher.step.record() as record:
        teacher(**batch)
    plain = student(**batch).logits
    with student.step.intervene(mode, DETACHED[mode], record), student.step.record() as own:
        changed = student(**batch).logits
    assert not torch.allclose(plain, changed)
    # the student's own tensors are still there to be compared with the teacher's
    assert not torch.allclose(own.maps[0], record.maps[0])
    assert not torch.allclose(own.outputs[0], record.outputs[0])


def _recipe(**terms: object) -> Recipe:
    spec = ObjectiveSpec(**terms)  # type: ignore[arg-type]
    return load_recipe("ti_g_w2a8").model_copy(update={"objective": spec})


def _gradients(family: str, mode: Injected, recipe: Recipe) -> dict[str, float]:
    """Largest gradient per role (q, k, v, o, ffn1) after one step under a mode."""
    assert recipe.method is not None
    method = recipe.method.model_copy(update={"mode": mode})
    recipe = recipe.model_copy(update={"method": method})
    teacher = prepare(tiny(family, 3))
    student = prepare(tiny(family, 4), recipe).train()
    objective = Objective(student, teacher, recipe, total_steps=100)
    loss, _ = objective(batch_of(family), 0)
    loss.backward()
    largest: dict[str, float] = {}
    for module in student.modules():
        if not isinstance(module, QuantLinear):
            continue
        for part, (start, end) in module.parts.items():
            g = module.weight.grad
            size = 0.0 if g is None else g[start:end].abs().max().item()
            largest[part] = max(largest.get(part, 0.0), size)
    return largest


LOGITS = {"logits": LogitLoss(reduction="sum")}
SCORES = {"scores": TermLoss()}


@pytest.mark.parametrize("family", FAMILIES)
def test_output_mode_gives_the_attention_block_no_task_gradient(family: str) -> None:
    g = _gradients(family, "output", _recipe(**LOGITS))
    assert [g[part] for part in "qkvo"] == [0, 0, 0, 0]
    assert g["ffn1"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_context_mode_trains_the_output_projection_only(family: str) -> None:
    g = _gradients(family, "context", _recipe(**LOGITS))
    assert [g[part] for part in "qkv"] == [0, 0, 0]
    assert g["o"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_map_mode_trains_value_and_output(family: str) -> None:
    g = _gradients(family, "map", _recipe(**LOGITS))
    assert [g["q"], g["k"]] == [0, 0]
    assert g["v"] > 0
    assert g["o"] > 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", MODES)
def test_the_score_loss_reaches_query_and_key_under_every_mode(family: str, mode: Injected) -> None:
    g = _gradients(family, mode, _recipe(**SCORES))
    assert g["q"] > 0
    assert g["k"] > 0


@pytest.mark.parametrize("mode", MODES)
def test_the_score_loss_stays_in_its_layer(mode: Injected) -> None:
    # detached inputs: the scores of layer 2 must not train layer 1's feed-forward part
    assert _gradients("vit", mode, _recipe(**SCORES))["ffn1"] == 0


def test_the_output_loss_on_ao_trains_value_and_output_where_the_released_one_cannot() -> None:
    ours = _gradients("bert", "output", _recipe(output=OutputLoss(on="ao")))
    released = _gradients("bert", "output", _recipe(output=OutputLoss(on="post_ln")))
    assert ours["v"] > 0
    assert ours["o"] > 0
    assert released["v"] == 0
    assert released["o"] == 0


@pytest.mark.parametrize(
    ("mode", "reaches"), [("output", False), ("context", False), ("map", True)]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_into_the_layer_input_comes_through_value_in_map_mode_only(
    family: str, mode: Injected, reaches: bool
) -> None:
    # GPT-2's fused projection must pass it from the columns of V alone.
    teacher, student = prepare(tiny(family, 3)), prepare(tiny(family, 4))
    batch = batch_of(family)
    with torch.no_grad(), teacher.step.record() as record:
        teacher(**batch)
    projections = [m for m in student.modules() if isinstance(m, QuantLinear) and "v" in m.parts]
    seen: list[torch.Tensor] = []

    def watch(_module: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        x = args[0].detach().requires_grad_()
        seen.append(x)
        return (x,)

    projections[1].register_forward_pre_hook(watch)
    with student.step.intervene(mode, DETACHED[mode], record):
        student(**batch).logits.square().sum().backward()
    (x,) = seen
    got = x.grad is not None and bool(x.grad.any())
    assert got is reaches
    if reaches:
        start, end = projections[1].parts["v"]
        # Were q or k columns to pass a gradient, it would leave the row space of V's weight.
        v_rows = projections[1].weight[start:end].detach()
        assert x.grad is not None
        flat = x.grad.reshape(-1, x.shape[-1])
        solution = torch.linalg.lstsq(v_rows.t(), flat.t()).solution
        torch.testing.assert_close(v_rows.t() @ solution, flat.t(), atol=1e-4, rtol=1e-3)
