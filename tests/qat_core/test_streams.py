"""Grids of the residual stream: their step, what sets it, and where they lie in a model."""

import copy

import pytest
import torch
from tiny_models import FAMILIES, batch_of, tiny

from hwsim.errors import ConfigError, GraphError
from qat import ops
from qat.quantizers.grid import HEADROOM, MEMORY, StreamGrid
from qat.quantizers.lifecycle import after_update, initialise
from qat.recipe import load_recipe
from qat.student import prepare, restore


@pytest.mark.parametrize(
    ("largest", "scale"),
    # INT8: 127 codes; largest * 1.25 / 127, up to the next power of two
    [
        (1.0, 2.0**-6),
        (100.0, 1.0),
        (127 / HEADROOM, 2.0),
        (126.9 / HEADROOM, 1.0),
        (1e-3, 2.0**-16),
    ],
)
def test_the_step_is_the_power_of_two_above_the_largest_value(largest: float, scale: float) -> None:
    grid = StreamGrid("INT8").train()
    grid(torch.tensor([[-largest, largest / 3]]), None)
    grid.follow()
    assert grid.scale.item() == scale


def test_values_go_to_the_nearest_multiple_and_saturate() -> None:
    x = torch.tensor([0.49, 0.5, -0.5, -0.51, 126.6, 127.6, -128.6, 1e9])
    got = ops.snap(x, torch.tensor([1.0]), "INT8")
    assert got.tolist() == [0.0, 1.0, 0.0, -1.0, 127.0, 127.0, -128.0, 127.0]
    assert ops.snap(x / 8, torch.tensor([0.125]), "INT8").tolist() == [v / 8 for v in got.tolist()]


def test_the_gradient_passes_inside_the_range_only() -> None:
    x = torch.tensor([-129.0, -128.0, 0.3, 127.0, 127.2], requires_grad=True)
    ops.snap(x, torch.tensor([1.0]), "INT8").backward(torch.arange(1.0, 6.0))
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 0.0]


def test_sums_of_two_values_on_a_grid_are_exact_in_float32() -> None:
    grid = StreamGrid("INT16").train()
    a, b = torch.randn(1000) * 3, torch.randn(1000) * 3
    grid(a.abs() + b.abs(), None)
    grid.follow()
    total = grid(a, None) + grid(b, None)
    assert torch.equal(total, grid(total, None))
    codes = total.double() / grid.scale.double()
    assert torch.equal(codes, codes.round())


def test_a_range_forgets_slowly_and_padding_does_not_set_it() -> None:
    grid = StreamGrid("INT16").train()
    valid = torch.tensor([[True, False]])
    x = torch.tensor([[[1.0, 2.0], [50.0, 60.0]]])
    grid(x, valid)
    grid.follow()
    assert grid.amax.item() == 2.0
    for _ in range(3):
        grid(x / 100, valid)
        grid.follow()
    assert grid.amax.item() == pytest.approx(2.0 * MEMORY**3)
    grid(x, None)
    grid.follow()
    assert grid.amax.item() == 60.0


def test_a_range_changes_between_updates_only_and_forgets_once_an_update() -> None:
    grid = StreamGrid("INT16").train()
    grid(torch.full((1,), 2.0), None)
    grid.follow()
    scale = grid.scale.clone()
    for value in (0.01, 500.0, 0.01):  # three branches, or three micro-batches
        grid(torch.full((1,), value), None)
        assert torch.equal(grid.scale, scale)
    grid.follow()
    assert grid.amax.item() == 500.0
    for _ in range(3):
        grid(torch.full((1,), 0.01), None)
    grid.follow()
    assert grid.amax.item() == pytest.approx(500.0 * MEMORY)
    grid.follow()  # nothing was seen since
    assert grid.amax.item() == pytest.approx(500.0 * MEMORY)


def test_in_evaluation_the_step_is_a_constant_and_survives_a_checkpoint() -> None:
    grid = StreamGrid("INT16").train()
    grid(torch.ones(2, 3), None)
    grid.follow()
    grid.eval()
    scale = grid.scale.clone()
    grid(torch.full((2, 3), 1e6), None)
    grid.follow()
    assert torch.equal(grid.scale, scale)
    other = StreamGrid("INT16").eval()
    other.load_state_dict(grid.state_dict())
    other(torch.full((2, 3), 1e6), None)
    assert torch.equal(other.scale, scale)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_norm_reads_and_writes_a_grid(family: str) -> None:
    student = prepare(tiny(family), load_recipe("bit_w1a1"))
    initialise(student, [batch_of(family)])
    norms = {n: m for n, m in student.named_modules() if isinstance(m, torch.nn.LayerNorm)}
    assert len(norms) == 5  # two layers of two, and one at an end
    seen = {}
    for name, norm in norms.items():
        norm.register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: (args[0], output)})
        )
    student.eval()(**batch_of(family))
    grids = list(student.stream_grids)
    for before, after in seen.values():
        for value in (before, after):
            on = [g for g in grids if torch.equal(ops.snap(value, g.scale, g.fmt), value)]
            assert on, "on no grid"


def test_a_post_ln_branch_shares_the_grid_of_the_stream_that_it_is_added_to() -> None:
    student = prepare(tiny("bert"), load_recipe("bit_w1a1"))
    assert len(student.stream_grids) == 6  # embeddings, and one behind each of 5 layer norms
    hooks = {
        name: [h.grid for h in module._forward_hooks.values() if hasattr(h, "grid")]
        for name, module in student.named_modules()
    }
    branch = hooks["bert.encoder.layer.0.attention.output.dense"]
    stream = hooks["bert.embeddings.LayerNorm"]
    assert branch == stream
    assert len(stream) == 1


def test_a_copy_has_its_own_grids_and_a_restored_model_none() -> None:
    student = prepare(tiny("vit"), load_recipe("bit_w1a1"))
    initialise(student, [batch_of("vit")])
    scales = [g.scale.clone() for g in student.stream_grids]
    other = copy.deepcopy(student).train()
    other(pixel_values=batch_of("vit")["pixel_values"] * 1000)
    after_update(other)
    assert all(torch.equal(g.scale, s) for g, s in zip(student.stream_grids, scales, strict=True))
    assert any(not torch.equal(g.scale, s) for g, s in zip(other.stream_grids, scales, strict=True))
    plain = restore(student)
    assert not hasattr(plain, "stream_grids")
    assert not any("grid" in name for name in plain.state_dict())
    plain(**batch_of("vit"))


def test_the_patch_projection_is_a_convolution_on_codes() -> None:
    model = tiny("vit")
    student = prepare(model, load_recipe("bit_w1a1")).eval()
    pixels = batch_of("vit")["pixel_values"]
    patch = student.vit.embeddings.patch_embeddings.projection
    got = patch(pixels)
    codes, scale = patch.input_quantizer(pixels, None)
    w_codes, w_scale = patch.weight_quantizer(patch.weight.flatten(1))
    weight = (w_codes.double() * w_scale.double()[:, None]).view_as(patch.weight)
    want = torch.nn.functional.conv2d(
        codes.double() * scale.double(), weight, patch.bias.double(), patch.stride
    )
    assert got.shape == want.shape
    assert torch.allclose(got.double(), want, rtol=1e-6, atol=1e-7)
    float_out = model.vit.embeddings.patch_embeddings.projection(pixels)
    assert (got - float_out).abs().max() < 0.05 * float_out.abs().max()


def test_a_patch_projection_with_padding_is_refused() -> None:
    model = tiny("vit")
    model.vit.embeddings.patch_embeddings.projection.padding = (1, 1)
    with pytest.raises(GraphError, match="a patch projection must have no padding"):
        prepare(model, load_recipe("bit_w1a1"))


def test_the_gradient_of_patches_is_the_transpose() -> None:
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda t: ops.patches(t, [2, 4], [2, 4]), (x,))
    torch.autograd.gradcheck(lambda t: ops.patches(t, [3, 2], [1, 2]), (x,))


@pytest.mark.parametrize("fmt", ["INT24", "UINT16", "TERNARY", "INT4"])
def test_formats_that_float32_could_not_add_exactly_are_refused(fmt: str) -> None:
    with pytest.raises(ConfigError, match=f"residual must have format INT8 to INT20, not {fmt}"):
        load_recipe("bit_w1a1", [f"quantization.residual={fmt}"])


def test_a_patch_projection_with_one_side_only_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"roles\.patch must have both weight and input"):
        load_recipe("bit_w1a1", ["quantization.roles.patch.input=null"])
