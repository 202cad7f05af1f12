"""Quadapter: folding changes no code, frozen weights stay, each block is calibrated by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_models import batch_of, tiny
from torch import Tensor, nn
from transformers import PreTrainedModel

from hwsim.capture import Captured, Frozen, capture, refs
from hwsim.errors import GraphError
from qat.methods.quadapter import BlockSchedule, fold
from qat.modules.linear import QuantLinear
from qat.modules.norm import ChannelScale, ScaledLayerNorm
from qat.objective import Objective
from qat.optim import make_optimizer
from qat.overview import summary
from qat.quantizers.activation import DynamicQuantizer, LearnedQuantizer
from qat.quantizers.lifecycle import freeze_ranges, initialise, uninitialised
from qat.quantizers.weight import WeightQuantizer
from qat.recipe import Quadapter, QuantizationSpec, Recipe, load_recipe
from qat.roles import FAMILIES as TABLES
from qat.roles import edges, match
from qat.student import prepare, restore

PRE_LN = ("gpt2", "vit")
RECIPE = load_recipe("quadapter_w8a8")
FLOAT = RECIPE.model_copy(update={"quantization": QuantizationSpec()})


def random_scales(model: nn.Module) -> None:
    """Put every channel scale somewhere between a fifth and five times."""
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, ChannelScale):
            values = torch.rand(module.log_scale.shape, generator=generator)
            module.log_scale.data.copy_(3.2 * values - 1.6)


def static_student(family: str, recipe: Recipe = RECIPE) -> PreTrainedModel:
    """A student with random channel scales whose every range is a constant."""
    student = prepare(tiny(family), recipe)
    random_scales(student)
    initialise(student, [batch_of(family)])
    student.train()(**batch_of(family))
    freeze_ranges(student)
    return student.eval()


def logits(model: PreTrainedModel, family: str) -> Tensor:
    """Logits [.., C] at the real positions."""
    batch = batch_of(family)
    with torch.no_grad():
        values = model.eval()(**batch).logits
    return values[batch["attention_mask"].bool()] if family == "gpt2" else values


# -- folding -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", PRE_LN)
def test_with_quantisers_off_scales_change_nothing(family: str) -> None:
    scaled = prepare(tiny(family), FLOAT)
    random_scales(scaled)
    got, wanted = logits(scaled, family), logits(tiny(family), family)
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert torch.equal(logits(fold(scaled), family), got)
    # the control: scales that one layer's weights do not undo
    reader = next(m for m in scaled.modules() if isinstance(m, QuantLinear) and m.input_scale)
    reader.input_scale = None
    assert (logits(scaled, family) - wanted).abs().max() > 1e-2 * wanted.abs().max()


def all_codes(model: PreTrainedModel, family: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Codes and scale of every quantiser, of weights and of activations."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Callable[..., None]:
        return lambda module, args, output: found.update({name: output})

    kinds = (LearnedQuantizer, DynamicQuantizer, WeightQuantizer)
    handles = [
        module.register_forward_hook(watch(name))
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    ]
    logits(model, family)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("recipe", ["quadapter_w8a8", "quadapter_w4a8"])
@pytest.mark.parametrize("family", PRE_LN)
def test_folded_and_unfolded_codes_are_the_same_integers(family: str, recipe: str) -> None:
    student = static_student(family, load_recipe(recipe))
    folded = fold(student)
    trained, deployed = all_codes(student, family), all_codes(folded, family)
    linears = {"gpt2": 4, "vit": 6}[family]
    assert len(trained) == 2 * (2 * linears + 4) + (family == "gpt2")
    assert trained.keys() == deployed.keys()
    for name, (codes, scale) in trained.items():
        assert torch.equal(codes, deployed[name][0]), name
        assert torch.equal(scale, deployed[name][1]), name
    assert torch.equal(logits(student, family), logits(folded, family))
    # the control: the comparison sees a scale that is off by one part in a thousand
    next(m for m in student.modules() if isinstance(m, ChannelScale)).log_scale.data.add_(1e-3)
    moved = all_codes(student, family)
    assert any(not torch.equal(codes, deployed[name][0]) for name, (codes, _) in moved.items())


@pytest.mark.parametrize("family", PRE_LN)
def test_folding_copies_and_leaves_no_scale(family: str) -> None:
    student = static_student(family)
    before = copy.deepcopy(student.state_dict())
    folded = fold(student)
    assert not [m for m in folded.modules() if isinstance(m, ChannelScale)]
    assert all(torch.equal(before[name], t) for name, t in student.state_dict().items())
    # written back into a plain model: GPT-2's Conv1D holds [in, out], so its rows are divided
    plain, original = restore(folded), tiny(family)
    norm, linear = {
        "gpt2": ("transformer.h.0.ln_2", "transformer.h.0.mlp.c_fc"),
        "vit": ("vit.layers.0.layernorm_after", "vit.layers.0.mlp.fc1"),
    }[family]
    scale = student.get_submodule(norm).channel_scale().detach()
    weight = original.get_submodule(linear).weight
    divided = weight / (scale[:, None] if family == "gpt2" else scale)
    torch.testing.assert_close(plain.get_submodule(linear).weight, divided, rtol=0, atol=0)
    gamma = original.get_submodule(norm).weight
    torch.testing.assert_close(plain.get_submodule(norm).weight, gamma * scale, rtol=0, atol=0)
    reference = logits(original, family)
    assert (logits(plain, family) - reference).abs().max() <= 1e-5 * reference.abs().max()


def captured(student: PreTrainedModel, family: str) -> Captured:
    return capture(student, batch_of(family), 0 if family == "vit" else 12)


@cache
def unscaled(family: str) -> Captured:
    """The same student without channel scales."""
    return captured(static_student(family, RECIPE.model_copy(update={"method": None})), family)


def constants(calls: Captured) -> list[tuple[str, bytes]]:
    return [
        (call.name, arg.array.tobytes())
        for call in calls.calls
        for arg in call.args
        if isinstance(arg, Frozen)
    ]


@pytest.mark.parametrize("family", PRE_LN)
def test_the_exported_graph_has_no_operator_for_the_scales(family: str) -> None:
    student = static_student(family)
    folded = captured(fold(student), family)
    assert [c.op for c in folded.calls] == [c.op for c in unscaled(family).calls]
    # a forward pass of the trained student derives the very tensors that folding wrote down
    assert constants(captured(student, family)) == constants(folded)


@pytest.mark.parametrize("family", PRE_LN)
def test_formula_with_the_scale_in_front_of_the_quantiser(family: str) -> None:
    # y = Q_w(W A^-1) Q_x(A LN(x)) + c, written with activations that are multiplied
    student = static_student(family)
    norm_name, names = edges(
        family, match(TABLES[family], [n for n, _ in student.named_modules()])
    )[0]
    norm = student.get_submodule(norm_name)
    assert isinstance(norm, ScaledLayerNorm)
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))
    a = norm.channel_scale().detach()
    latent = nn.functional.layer_norm(x, (16,), norm.weight, norm.bias, norm.eps)
    for name in names:
        linear = student.get_submodule(name)
        step = linear.input_quantizer.alpha
        x_codes = torch.floor(a * latent / step + 0.5).clamp(-128, 127)
        w = linear.weight / a
        w_scale = w.abs().amax(1) / 127
        w_codes = torch.floor(w / w_scale[:, None] + 0.5)
        wanted = (x_codes @ w_codes.t()) * (step * w_scale) + linear.bias
        torch.testing.assert_close(linear(norm(x)), wanted, rtol=1e-5, atol=1e-5)
        # the control: a quantiser that sees W and is divided afterwards computes something else
        codes, scale = linear.weight_quantizer(linear.weight)
        other = (x_codes @ (codes * scale[:, None] / a).t()) * step + linear.bias
        assert (other - wanted).abs().max() > 1e-3


def test_gradient_of_a_scale_against_its_derivation() -> None:
    # sum over t, n of g (w^ x' where x' is in range, minus x^ w'): docs/quadapter.md, section 3
    generator = torch.Generator().manual_seed(4)
    student = static_student("gpt2")
    block = student.transformer.h[0]
    norm, linear = block.ln_2, block.mlp.c_fc
    linear.input_quantizer.alpha.data.mul_(0.2)  # some of the inputs saturate
    norm.requires_grad_(False).channel_scale.requires_grad_(True)
    x, g = torch.randn(7, 16, generator=generator), torch.randn(7, 64, generator=generator)
    linear(norm(x)).backward(g)
    with torch.no_grad():
        scaled, weight = norm(x), linear.weight / norm.channel_scale()
        codes, step = linear.input_quantizer(scaled, None)
        w_codes, w_step = linear.weight_quantizer(weight)
        inside = (scaled / step >= -128) & (scaled / step <= 127)
        terms = (g @ (w_codes * w_step[:, None])) * scaled * inside
        terms = terms.sum(0) - ((g.t() @ (codes * step)) * weight).sum(0)
    assert 0 < inside.sum() < inside.numel()
    got = norm.channel_scale.log_scale.grad
    torch.testing.assert_close(got, terms, rtol=1e-4, atol=1e-4)


def test_scales_of_one_start_as_the_plainly_quantised_model() -> None:
    for family in PRE_LN:
        scaled = prepare(tiny(family), RECIPE)
        plain = prepare(tiny(family), RECIPE.model_copy(update={"method": None}))
        for student in (scaled, plain):
            initialise(student, [batch_of(family)])
        assert torch.equal(logits(scaled, family), logits(plain, family))


# -- where scales go ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", PRE_LN)
def test_what_an_edge_scales_is_read_by_its_linear_layers_alone(family: str) -> None:
    calls = unscaled(family)
    found = edges(family, match(TABLES[family], [n for n, _ in tiny(family).named_modules()]))
    assert len(found) == 4
    for norm, linears in found:
        (call,) = (c for c in calls.calls if c.origin == norm)
        readers = calls.consumers(call.name)
        assert {r.origin.removesuffix(".input_quantizer") for r in readers} == set(linears)


def test_bert_has_no_edge_because_its_norms_feed_the_residual_stream_too() -> None:
    with pytest.raises(
        GraphError, match=r"bert: no layer norm can .*\(post-LN\).*: vit, deit, gpt2"
    ):
        prepare(tiny("bert"), RECIPE)
    student = prepare(tiny("bert"), load_recipe("w8a8"))
    calls = capture(student.eval(), batch_of("bert"), 12)
    norms = [c for c in calls.calls if c.op == "aten.layer_norm"][:-1]
    assert norms
    for norm in norms:
        assert "aten.add" in [c.op for c in calls.consumers(norm.name)]
        assert norm.name not in refs(calls.outputs)


def test_tied_embedding_and_final_norm_are_not_scaled() -> None:
    student = prepare(tiny("gpt2"), RECIPE)
    scaled = {n for n, m in student.named_modules() if isinstance(m, ScaledLayerNorm)}
    assert scaled == {f"transformer.h.{i}.ln_{k}" for i in (0, 1) for k in (1, 2)}
    assert student.lm_head.weight is student.transformer.wte.weight
    random_scales(student)
    folded = fold(student)
    assert folded.lm_head.weight is folded.transformer.wte.weight
    assert torch.equal(folded.lm_head.weight, tiny("gpt2").lm_head.weight)


def test_vits_projections_share_the_scale_of_their_norm() -> None:
    layer = prepare(tiny("vit"), RECIPE).vit.layers[1]
    shared = layer.layernorm_before.channel_scale
    projections = (layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj)
    assert all(p.input_scale.scale is shared for p in projections)
    assert layer.attention.o_proj.input_scale is None
    assert layer.mlp.fc1.input_scale.scale is layer.layernorm_after.channel_scale
    other = copy.deepcopy(layer)
    assert other.attention.k_proj.input_scale.scale is other.layernorm_before.channel_scale


def test_scales_take_no_bytes_of_the_packed_model() -> None:
    with_scales = summary(prepare(tiny("gpt2"), RECIPE))
    without = summary(prepare(tiny("gpt2"), RECIPE.model_copy(update={"method": None})))
    total = [sum(row.weight_bytes for row in rows) for rows in (with_scales, without)]
    assert total[0] == total[1]


# -- training ----------------------------------------------------------------------------------


def labelled(family: str) -> dict[str, Tensor]:
    batch = batch_of(family)
    labels = batch["input_ids"] if family == "gpt2" else torch.tensor([0, 1, 2])
    return batch | {"labels": labels}


def objective_of(family: str, steps: int = 8, **method: object) -> Objective:
    spec = {"name": "quadapter", "blockwise_fraction": 0.5} | method
    recipe = RECIPE.model_copy(update={"method": Quadapter.model_validate(spec)})
    student = prepare(tiny(family), recipe)
    initialise(student, [batch_of(family)])
    return Objective(student.train(), tiny(family), recipe, steps)


@pytest.mark.parametrize("family", PRE_LN)
def test_only_scales_and_ranges_train(family: str) -> None:
    objective = objective_of(family)
    student = objective.student
    before = copy.deepcopy(student.state_dict())
    optimizer = make_optimizer(student, RECIPE.optimizer)
    roles = {g["role"]: g["base_lr"] for g in optimizer.param_groups}
    assert roles == {"no_decay": 1e-2, "alpha": 1e-4}
    for step in range(8):
        loss, _ = objective(labelled(family), step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = {n for n, p in student.named_parameters() if p.requires_grad}
    assert {n.rsplit(".", 1)[1] for n in trained} == {"log_scale", "alpha"}
    assert len([n for n in trained if n.endswith("log_scale")]) == 4
    for name, tensor in student.state_dict().items():
        if name in trained:
            assert not torch.equal(tensor, before[name]), name
        elif "quantizer" not in name and "operands" not in name:
            assert torch.equal(tensor, before[name]), name


def test_phases_switch_at_the_step_that_the_recipe_says() -> None:
    objective = objective_of("gpt2", steps=8, blockwise_fraction=None, blockwise_steps=3)
    assert [objective.phase(t) for t in (0, 2, 3, 7)] == ["blockwise"] * 2 + ["labels"] * 2
    assert objective.restart_steps == (3,)
    names = [list(objective(labelled("gpt2"), step)[1]) for step in (2, 3)]
    assert names == [["blocks"], ["labels"]]


@pytest.mark.parametrize(("fraction", "length"), [(0.0, 0), (0.25, 2), (1.0, 8)])
def test_either_phase_may_be_left_out(fraction: float, length: int) -> None:
    spec = Quadapter(name="quadapter", blockwise_fraction=fraction)
    schedule = BlockSchedule.from_spec(spec, 8)
    assert [schedule.injected(t) for t in range(8)] == ["input"] * length + [None] * (8 - length)
    assert schedule.restart_steps == ((length,) if 0 < length < 8 else ())


def test_phase_one_cannot_be_longer_than_the_run() -> None:
    spec = Quadapter(name="quadapter", blockwise_steps=9)
    with pytest.raises(ValueError, match="at most the run's 8 steps, got 9"):
        BlockSchedule.from_spec(spec, 8)


def block_errors(objective: Objective, family: str, inject: bool) -> list[Tensor]:
    """Mean squared error of each block's output against the float model's."""
    batch, student, teacher = batch_of(family), objective.student, objective.teacher
    assert teacher is not None
    with torch.no_grad(), teacher.step.record() as wanted:
        teacher(**batch)
    with (
        student.step.intervene("input" if inject else None, frozenset(), wanted),
        student.step.record() as got,
    ):
        student(**batch)
    pairs = zip(got.hidden[1:], wanted.hidden[1:], strict=True)
    return [(ours - theirs).square().mean() for ours, theirs in pairs]


@pytest.mark.parametrize("family", PRE_LN)
def test_a_blocks_error_reaches_that_block_alone(family: str) -> None:
    objective = objective_of(family)
    block = {"gpt2": "transformer.h.", "vit": "vit.layers."}[family]
    for i in (0, 1):
        objective.student.zero_grad()
        block_errors(objective, family, inject=True)[i].backward()
        parameters = objective.student.named_parameters()
        reached = {n for n, p in parameters if p.grad is not None and p.grad.any()}
        assert {n for n in reached if n.endswith("log_scale")}
        assert all(n.startswith(f"{block}{i}.") for n in reached)
    # the control: end to end, the second block's error reaches the first
    objective.student.zero_grad()
    block_errors(objective, family, inject=False)[1].backward()
    parameters = objective.student.named_parameters()
    assert any(n.startswith(f"{block}0.") and p.grad is not None for n, p in parameters)


@pytest.mark.parametrize("family", PRE_LN)
def test_a_block_is_calibrated_on_the_float_models_input(family: str) -> None:
    objective = objective_of(family)
    batch, teacher = batch_of(family), objective.teacher
    assert teacher is not None
    with torch.no_grad(), teacher.step.record() as wanted:
        teacher(**batch)
    blocks = {"gpt2": "transformer.h", "vit": "vit.layers"}[family]
    objective.student.eval()
    extra = {"attention_mask": batch["attention_mask"].bool()} if family == "gpt2" else {}
    objective.student.step.valid = batch["attention_mask"].bool() if extra else None
    by_hand = []
    for i, block in enumerate(objective.student.get_submodule(blocks)):
        out = block(wanted.hidden[i], **extra)
        out = out[0] if isinstance(out, tuple) else out
        error = (out - wanted.hidden[i + 1]).square()
        mask = batch["attention_mask"].bool() if extra else torch.ones(out.shape[:2]).bool()
        by_hand.append(error[mask].mean())
    loss, parts = objective(batch, 0)
    torch.testing.assert_close(loss, torch.stack(by_hand).sum(), rtol=1e-5, atol=1e-8)
    assert torch.equal(parts["blocks"], loss.detach())


def test_an_outlier_channel_is_learned_away() -> None:
    model = tiny("gpt2")
    with torch.no_grad():  # twenty times as large in front of the quantiser, and the same function
        for block in model.transformer.h:
            for norm, linear in ((block.ln_1, block.attn.c_attn), (block.ln_2, block.mlp.c_fc)):
                norm.weight[3] *= 20
                norm.bias[3] *= 20
                linear.weight[3] /= 20
    recipe = load_recipe("quadapter_w8a8", ["method.blockwise_fraction=1.0"])
    batches = [batch_of("gpt2", seed, padded=False) for seed in range(8)]
    losses = {}
    for learned in (True, False):
        student = prepare(model, recipe)
        initialise(student, batches[:2])
        objective = Objective(student.train(), model, recipe, 64)
        for module in student.modules():
            if isinstance(module, ChannelScale):
                module.requires_grad_(learned)
        rates = {"learning_rate": 3e-2, "alpha_learning_rate": 1e-3}
        optimizer = make_optimizer(student, recipe.optimizer.model_copy(update=rates))
        seen = []
        for step in range(64):
            loss, _ = objective(batches[step % 8], step)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seen.append(loss.item())
        losses[learned] = sum(seen[-8:]) / sum(seen[:8])
        scales = [m() for m in student.modules() if isinstance(m, ChannelScale)]
        if learned:
            assert all(scale[3] < 0.5 * scale.median() for scale in scales)
    assert losses[True] < 0.4
    assert losses[True] < 0.6 * losses[False]  # ranges alone cannot do it


def test_the_teacher_must_be_the_float_model_itself() -> None:
    student = prepare(tiny("gpt2", seed=0), RECIPE)
    with pytest.raises(ValueError, match=r"the model that the student was made from; .* differs"):
        Objective(student, tiny("gpt2", seed=1), RECIPE, 8)
    with pytest.raises(ValueError, match="must have a teacher, got none"):
        Objective(student, None, RECIPE, 8)


def test_dropout_is_refused_where_blocks_are_compared() -> None:
    model = tiny("gpt2")
    model.config.resid_pdrop = 0.1
    with pytest.raises(ValueError, match=r"resid_pdrop must be 0, not 0\.1: set train\.dropout"):
        Objective(prepare(model, RECIPE), tiny("gpt2"), RECIPE, 8)


def test_a_recipe_that_leaves_nothing_to_train_is_refused() -> None:
    recipe = load_recipe("smoothquant_w8a8", ["quantization.linear.input.range=dynamic"])
    with pytest.raises(ValueError, match="some activation must have range 'learned'"):
        Objective(prepare(tiny("vit"), recipe), None, recipe, 8)


def test_smoothquant_trains_ranges_alone_and_needs_no_teacher() -> None:
    recipe = load_recipe("smoothquant_w8a8")
    student = prepare(tiny("vit"), recipe)
    scales = {n for n, m in student.named_modules() if isinstance(m, ChannelScale)}
    assert scales <= set(uninitialised(student))
    initialise(student, [batch_of("vit")])
    objective = Objective(student.train(), None, recipe, 8)
    trained = {n.rsplit(".", 1)[1] for n, p in student.named_parameters() if p.requires_grad}
    assert trained == {"alpha"}
    loss, parts = objective(labelled("vit"), 0)
    loss.backward()
    assert list(parts) == ["labels"]
    assert objective.restart_steps == ()


def test_transformers_trainer_holds_what_trains_and_no_more(tmp_path: Path) -> None:
    from transformers import TrainingArguments

    from qat.hf.trainer import DistillationTrainer

    model, student = tiny("gpt2"), prepare(tiny("gpt2"), RECIPE)
    ids = batch_of("gpt2")["input_ids"].tolist()
    trainer = DistillationTrainer(
        model=student,
        teacher=model,
        args=TrainingArguments(
            output_dir=str(tmp_path), max_steps=4, report_to="none", use_cpu=True, disable_tqdm=True
        ),
        train_dataset=[{"input_ids": row, "labels": row} for row in ids],
    )
    before = {n: p.clone() for n, p in student.named_parameters() if "log_scale" not in n}
    trainer.train()
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in student.parameters() if p.requires_grad}
    weights = {n: p for n, p in student.named_parameters() if n in before and "alpha" not in n}
    assert all(torch.equal(p, before[n]) for n, p in weights.items())


def test_a_quantised_teacher_is_no_float_model() -> None:
    teacher = prepare(tiny("vit"), load_recipe("w8a8"))
    student = prepare(teacher, RECIPE)
    initialise(student, [batch_of("vit")])
    with pytest.raises(ValueError, match="the float model, not a quantised student of it"):
        Objective(student, teacher, RECIPE, 10)
