"""What people do to a model of theirs: move, copy, cast, compile, checkpoint, distribute. A student stays itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from apart import together
from tiny_texts import classifier, rows
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from hwsim.dataset import Rows
from hwsim.errors import ConfigError
from qat.objective import Objective
from qat.quantizers.lifecycle import initialise
from qat.recipe import Recipe, load_recipe
from qat.student import prepare, restore

# injects the teacher's tensors and has dynamic ranges; learned ranges and grids
RECIPES = {name: load_recipe(name) for name in ("ti_g_w2a8", "bit_w1a1")}
STEPS = 60


def batch_of(seed: int, count: int = 6) -> dict[str, torch.Tensor]:
    """Padded sentences with labels."""
    data = Rows(rows(count, seed), ["input_ids", "token_type_ids"])
    return data.batch(range(count)) | {"labels": torch.from_numpy(data.labels)}


def student_of(recipe: Recipe, dropout: float = 0.0) -> PreTrainedModel:
    student = prepare(classifier(dropout), recipe)
    initialise(student, [batch_of(1)])
    return student.train()


def gradients(
    student: PreTrainedModel, recipe: Recipe, wrapped: nn.Module | None = None, steps: int = 1
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of the recipe's objective; the ranges follow `steps` batches."""
    objective = Objective(student, classifier(), recipe, STEPS)
    for step in range(steps):
        student.zero_grad()
        torch.manual_seed(step)
        loss, _ = objective(batch_of(2 + step), step, wrapped=wrapped)
        loss.backward()
    found = {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
    return loss.detach(), found | {n: b.clone() for n, b in student.named_buffers()}


def assert_equal(a: tuple[torch.Tensor, dict], b: tuple[torch.Tensor, dict]) -> None:
    assert torch.equal(a[0], b[0])
    assert a[1].keys() == b[1].keys()
    assert [name for name, x in a[1].items() if not torch.equal(x, b[1][name])] == []


each_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


@each_recipe
def test_gradient_checkpointing_changes_no_bit(recipe: Recipe) -> None:
    plain = gradients(student_of(recipe, 0.1), recipe, steps=2)
    student = student_of(recipe, 0.1)
    student.gradient_checkpointing_enable()
    assert_equal(gradients(student, recipe, steps=2), plain)
    back = restore(student)
    functions = [m.__dict__.get("_gradient_checkpointing_func") for m in back.modules()]
    assert not any("context_fn" in f.keywords for f in functions if f is not None)


@each_recipe
def test_a_layer_that_forgot_would_be_seen(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without what a layer remembers its second pass computes something else, or cannot run."""
    plain = gradients(student_of(recipe), recipe)
    monkeypatch.setattr("qat.recompute.make_repeatable", lambda model, step: None)
    student = student_of(recipe)
    student.gradient_checkpointing_enable()
    try:
        found = gradients(student, recipe)
    except torch.utils.checkpoint.CheckpointError:
        return
    with pytest.raises(AssertionError):
        assert_equal(found, plain)


def test_reentrant_checkpointing_is_refused() -> None:
    student = student_of(RECIPES["bit_w1a1"])
    student.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ConfigError, match="must have use_reentrant=False"):
        student(**batch_of(2))


@each_recipe
def test_to_and_deepcopy(recipe: Recipe) -> None:
    student = student_of(recipe)
    other = copy.deepcopy(student).to("cpu").to(torch.float64).to(torch.float32)
    assert not {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in other.parameters()}  # fmt: skip
    assert_equal(gradients(other, recipe), gradients(student, recipe))
    moved = copy.deepcopy(student).to("meta")
    assert {t.device.type for t in (*moved.parameters(), *moved.buffers())} == {"meta"}


@each_recipe
def test_quantised_operators_compute_in_float32_under_autocast(recipe: Recipe) -> None:
    student = student_of(recipe).eval()
    kinds: dict[str, set[torch.dtype]] = {}

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found = function(*args, **(kwargs or {}))
            if function.namespace == "bitwright":
                tensors = found if isinstance(found, tuple) else (found,)
                kinds.setdefault(function._opname, set()).update(t.dtype for t in tensors)
            return found

    batch = {name: x for name, x in batch_of(3).items() if name != "labels"}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), Watch():
        student(**batch)
        probe = torch.randn(4, 4) @ torch.randn(4, 4)
    assert probe.dtype == torch.bfloat16  # autocast was on
    assert {"linear", "matmul", "softmax", "quantize_weight", "embedding"} <= kinds.keys()
    assert set().union(*kinds.values()) == {torch.float32}


def test_torch_compile() -> None:
    """Dynamo's and AOTAutograd's part of it; inductor would need a C++ compiler at run time."""
    recipe = RECIPES["bit_w1a1"]
    student = prepare(classifier(layers=1), recipe)
    initialise(student, [batch_of(1)])
    student.eval()
    batch = {name: x for name, x in batch_of(3).items() if name != "labels"}
    with torch.no_grad():
        wanted = student(**batch).logits
        torch._dynamo.reset()
        assert torch.equal(torch.compile(student, backend="aot_eager")(**batch).logits, wanted)


@each_recipe
def test_accelerate_prepare(recipe: Recipe) -> None:
    plain = gradients(student_of(recipe), recipe)
    student = student_of(recipe)
    prepared = Accelerator(cpu=True).prepare(student)
    assert_equal(gradients(student, recipe, prepared), plain)


def share(folder: Path) -> None:
    """Write down the gradients that one of two processes has in the end, recipe by recipe."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    for name, recipe in RECIPES.items():
        student = student_of(recipe)
        wrapped = DistributedDataParallel(student, find_unused_parameters=True)
        objective = Objective(student, classifier(), recipe, STEPS)
        loss, _ = objective(batch_of(2 + rank), 0, wrapped=wrapped)
        loss.backward()
        found = {n: p.grad for n, p in student.named_parameters() if p.grad is not None}
        torch.save(found, folder / f"{name}-{rank}.pt")


def test_distributed_processes_share_the_mean_gradient(tmp_path: Path) -> None:
    together(share, 2, tmp_path)
    for name, recipe in RECIPES.items():
        alone = []
        for rank in range(2):
            student = student_of(recipe)
            loss, _ = Objective(student, classifier(), recipe, STEPS)(batch_of(2 + rank), 0)
            loss.backward()
            alone.append({n: p.grad for n, p in student.named_parameters() if p.grad is not None})
        shared = [torch.load(tmp_path / f"{name}-{rank}.pt") for rank in range(2)]
        for key, wanted in alone[0].items():
            assert torch.equal(shared[0][key], shared[1][key]), key
            mean = (wanted + alone[1][key]) / 2
            torch.testing.assert_close(shared[0][key], mean, rtol=1e-6, atol=1e-8, msg=key)
        assert any(not torch.equal(alone[0][k], alone[1][k]) for k in alone[0])
