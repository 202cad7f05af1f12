"""Preparing a model: a copy that computes the same with quantisers off, and exports to single nodes."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from tiny_models import FAMILIES, batch_of, tiny
from torch import nn
from transformers import PreTrainedModel

from hwsim.errors import ConfigError, GraphError
from qat.modules.embedding import QuantEmbedding
from qat.modules.linear import QuantLinear
from qat.overview import summary
from qat.quantizers.lifecycle import initialise, uninitialised
from qat.recipe import load_recipe, recipe_names
from qat.roles import FAMILIES as TABLES
from qat.roles import match
from qat.student import prepare, restore


def logits(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**batch).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prepared_teacher_computes_what_the_original_does(family: str) -> None:
    model, batch = tiny(family), batch_of(family)
    got, wanted = logits(prepare(model), batch), logits(model, batch)
    if (
        family == "gpt2"
    ):  # padded positions of a language model see other masked keys; nobody reads them
        keep = batch["attention_mask"].bool()
        got, wanted = got[keep], wanted[keep]
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recipe", ["kd_w2a8", "bit_w1a1"])
def test_the_original_is_untouched_and_shares_no_storage(family: str, recipe: str) -> None:
    model = tiny(family)
    before = copy.deepcopy(model.state_dict())
    kinds = [type(m) for m in model.modules()]
    act = str(model.config.to_dict())
    student = prepare(model, load_recipe(recipe))
    assert [type(m) for m in model.modules()] == kinds
    assert str(model.config.to_dict()) == act
    pointers = {p.data_ptr() for p in model.parameters()}
    assert not pointers & {p.data_ptr() for p in student.parameters()}
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1.0)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_restore_gives_the_float_model_back(family: str) -> None:
    model, batch = tiny(family), batch_of(family, padded=False)
    back = restore(prepare(model, load_recipe("kd_w2a8")))
    assert set(back.state_dict()) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    torch.testing.assert_close(logits(back, batch), logits(model, batch), rtol=1e-5, atol=1e-6)
    assert not any(isinstance(m, QuantLinear | QuantEmbedding) for m in back.modules())


def test_a_prepared_model_can_be_prepared_again() -> None:
    model, batch = tiny("bert"), batch_of("bert")
    teacher = prepare(model)
    once, twice = prepare(model, load_recipe("kd_w2a8")), prepare(teacher, load_recipe("kd_w2a8"))
    assert torch.equal(logits(once, batch), logits(twice, batch))
    assert teacher.step is not twice.step


def test_a_deep_copy_has_its_own_step_state() -> None:
    student = prepare(tiny("vit"), load_recipe("kd_w2a8"))
    other = copy.deepcopy(student)
    assert other.step is not student.step
    assert {id(m.step) for m in other.modules() if isinstance(m, QuantLinear)} == {id(other.step)}
    with other.step.record() as record:
        logits(other, batch_of("vit"))
    assert len(record.outputs) == 2
    assert len(record.hidden) == 3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recipe", ["w8a8", "kd_w2a8", "bit_w1a1"])
def test_export_keeps_single_nodes_and_the_same_bits(family: str, recipe: str) -> None:
    layers = 1
    student = prepare(tiny(family, layers=layers), load_recipe(recipe))
    batch = batch_of(family)
    initialise(student, [batch])
    wanted = logits(student, batch)
    sizes = {0: torch.export.Dim("B", min=1)}
    tokens = {**sizes, 1: torch.export.Dim("T", min=1, max=12)}
    shapes = {name: sizes if name == "pixel_values" else tokens for name in batch}
    program = torch.export.export(
        student.eval(), (), kwargs=batch, dynamic_shapes=shapes, strict=False
    )
    assert torch.equal(program.module()(**batch).logits, wanted)

    calls = Counter(
        str(n.target).removesuffix(".default")
        for n in program.graph.nodes
        if n.op == "call_function"
    )
    linears = {"vit": 6, "bert": 6, "gpt2": 4}[family] * layers + (family == "bert")
    if (
        recipe == "bit_w1a1"
    ):  # classifier and patch projection, and the grids of the residual stream
        linears += {"vit": 2, "bert": 1, "gpt2": 0}[family]
        # embeddings, branches, and both sides of every layer norm
        embeddings, norms = {"vit": 2, "bert": 3, "gpt2": 3}[family], 2 * layers + 1
        assert calls["bitwright.snap"] == embeddings + 2 * layers + 2 * norms
    assert calls["bitwright.linear"] == linears
    assert calls["bitwright.matmul"] == 2 * layers
    assert calls["bitwright.softmax"] == layers
    assert calls["bitwright.embedding"] == (family != "vit")
    assert calls["bitwright.quantize_weight"] == linears + (family != "vit")
    activations = calls["bitwright.quantize_dynamic"] + calls["bitwright.quantize_static"]
    assert activations == linears + 4 * layers
    soup = {"round", "floor", "clamp", "mul", "div", "pow", "where", "sign", "detach", "erf"}
    assert not soup & {name.split(".")[1] for name in calls if name.startswith("aten.")}


def test_padding_does_not_reach_real_positions() -> None:
    student = prepare(tiny("bert"), load_recipe("kd_w2a8"))
    batch = batch_of("bert")
    row = {name: tensor[1:2] for name, tensor in batch.items()}
    short = {name: tensor[:, :4] for name, tensor in row.items()}
    torch.testing.assert_close(logits(student, row), logits(student, short), rtol=1e-5, atol=1e-6)


def test_the_relu_of_bit_reaches_the_config_so_a_reload_computes_the_same() -> None:
    student = prepare(tiny("bert"), load_recipe("bit_w1a1"))
    assert student.config.hidden_act == "relu"
    assert restore(student).config.hidden_act == "relu"
    assert any(isinstance(m, nn.ReLU) for m in student.modules())


def test_a_tied_head_stays_tied_and_float() -> None:
    student = prepare(tiny("gpt2"), load_recipe("kd_w2a8"))
    assert student.lm_head.weight is student.transformer.wte.weight
    assert isinstance(student.transformer.wte, QuantEmbedding)
    assert type(student.lm_head) is nn.Linear


def test_patterns_that_match_nothing_are_all_named() -> None:
    names = [n for n, _ in tiny("vit").named_modules() if "fc1" not in n and "q_proj" not in n]
    with pytest.raises(GraphError, match=r"role q \(.*q_proj\); role ffn1 \(.*fc1\)"):
        match(TABLES["vit"], names)


def test_an_unknown_family_is_refused_with_the_nearest() -> None:
    model = tiny("vit")
    model.config.model_type = "vitt"
    with pytest.raises(GraphError, match="not 'vitt'; did you mean 'vit'"):
        prepare(model)


def test_attention_refuses_masks_that_are_not_lengths() -> None:
    student = prepare(tiny("bert"), load_recipe("kd_w2a8"))
    batch = batch_of("bert")
    mask = torch.ones(3, 1, 6, 6)
    with pytest.raises(ValueError, match="other masks cannot run on an integer machine"):
        student(input_ids=batch["input_ids"], attention_mask=mask)


def test_summary_counts_packed_bytes() -> None:
    rows = {row.name: row for row in summary(prepare(tiny("bert"), load_recipe("kd_w2a8")))}
    query = rows["bert.encoder.layer.0.attention.self.query"]
    # 16 rows of 16 two-bit codes, one scale, 16 float biases
    assert (query.weight, query.input, query.weight_bytes) == ("TERNARY", "INT8", 16 * 4 + 4 + 64)
    words = rows["bert.embeddings.word_embeddings"]
    assert words.weight_bytes == 40 * 4 + 40 * 4
    assert rows["classifier"].weight == "FLOAT32"
    operands = rows["bert.encoder.layer.1.attention.self.operands"]
    assert operands.input == "q:INT8 k:INT8 v:INT8 p:UINT8"


def test_summary_says_what_is_float_and_why() -> None:
    found = summary(prepare(tiny("gpt2"), "bit_w1a1"))
    rows = {row.name: row for row in found}
    fused = rows["transformer.h.0.attn.c_attn"]
    assert (fused.role, fused.granularity, fused.range, fused.reason) == ("qkv", "tensor", "learned", "")  # fmt: skip
    assert "its latent weight is that of transformer.wte" in rows["lm_head"].reason
    assert rows["transformer.ln_f"].reason == "layer norm, its values on a grid of INT16"
    assert found.absent == ("pooler", "patch", "classifier")
    last = str(found).splitlines()[-1]
    assert last == "the recipe's roles that this model does not have: pooler, patch, classifier"
    bert = {row.name: row for row in summary(prepare(tiny("bert"), "kd_w2a8"))}
    assert bert["classifier"].reason == "recipe kd_w2a8 quantises neither weight nor input of classifier"  # fmt: skip
    assert {row.reason for row in summary(prepare(tiny("bert"))) if row.role == "q"} == {
        "a teacher quantises neither weight nor input of q"
    }
    with pytest.raises(ConfigError, match=r"must come from qat\.prepare"):
        summary(tiny("bert"))


def test_quantisers_take_the_models_mode() -> None:
    student = prepare(tiny("bert").eval(), "bit_w1a1")
    assert not any(m.training for m in student.modules())
    assert all(m.training for m in prepare(tiny("bert").train(), "bit_w1a1").modules())


def test_learned_quantisers_need_data_first() -> None:
    student = prepare(tiny("vit"), load_recipe("bit_w1a1"))
    # ten learned quantisers a layer; the grid of the stream, and one behind each of five layer norms
    assert len(uninitialised(student)) == 2 * 10 + 6
    initialise(student, [batch_of("vit")])
    assert uninitialised(student) == []


def test_packed_sequences_are_refused() -> None:
    # positions that start anew make transformers mask one text from the other
    student = prepare(tiny("gpt2"), load_recipe("kd_w2a8"))
    ids = torch.randint(0, 40, (1, 6))
    with pytest.raises(ValueError, match="packed sequences cannot run on an integer machine"):
        student(input_ids=ids, position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]]))


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("family", FAMILIES)
def test_every_recipe_has_a_summary(family: str, name: str) -> None:
    recipe = load_recipe(name)
    if recipe.channel_scaling is not None and family == "bert":
        pytest.skip("no channel scales in a post-LN model")
    rows = {row.name: row for row in summary(prepare(tiny(family), recipe))}
    operands = [row for row in rows.values() if row.role == "attention"]
    assert len(operands) == 2
    if recipe.quantization.attention.map == "bool":
        assert operands[0].input == "q:BIPOLAR k:BIPOLAR v:BIPOLAR p:UNIPOLAR"
        assert operands[0].range == "unit"
        assert operands[0].reason == ""


def test_a_restored_model_can_be_trained_whatever_froze_the_student() -> None:
    student = prepare(tiny("gpt2"), load_recipe("quadapter_w8a8"))
    student.requires_grad_(False)
    assert all(p.requires_grad for p in restore(student).parameters())
