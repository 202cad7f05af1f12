"""Signs of a dying low-bit training are seen."""

from __future__ import annotations

import pytest
import torch
from tiny_models import batch_of, tiny

from qat.health import HealthMonitor
from qat.quantizers.lifecycle import initialise
from qat.recipe import load_recipe
from qat.student import prepare


def test_a_fresh_student_is_alive_and_flips_are_counted() -> None:
    batch = batch_of("bert")
    student = prepare(tiny("bert"), load_recipe("bit_w1a1"))
    initialise(student, [batch])
    monitor = HealthMonitor(student)
    first = monitor.measure(batch)
    assert first["alphas_at_floor"] == 0
    assert 0 < first["map_entropy_bits"] <= 1
    assert "flipped_signs" not in first
    with torch.no_grad():
        student.bert.encoder.layer[0].intermediate.dense.weight.mul_(-1)
    quantised = sum(
        m.weight.numel() for m in student.modules() if getattr(m, "weight_quantizer", None)
    )
    assert monitor.measure(batch)["flipped_signs"] == pytest.approx(16 * 32 / quantised)


def test_dead_steps_and_constant_bits_are_seen() -> None:
    batch = batch_of("vit")
    student = prepare(tiny("vit"), load_recipe("bit_w1a1"))
    initialise(student, [batch])
    monitor = HealthMonitor(student)
    before = monitor.measure(batch)["constant_bits"]
    dead = student.vit.layers[0].mlp.fc1.input_quantizer
    with torch.no_grad():
        dead.shift.fill_(100.0)
        dead.alpha.copy_(dead.floor)
    after = monitor.measure(batch)
    assert after["alphas_at_floor"] == pytest.approx(1 / 20)
    # 16 of all watched channels became constant, less those that were before or follow from it
    assert after["constant_bits"] > before


def test_an_outlier_channel_is_seen_in_front_of_its_scale_and_behind() -> None:
    batch, model = batch_of("gpt2"), tiny("gpt2")
    with torch.no_grad():
        model.transformer.h[1].ln_1.weight[3] = 100.0
    student = prepare(model, load_recipe("smoothquant_w8a8"))
    initialise(student, [batch])
    norm = student.transformer.h[1].ln_1
    norm.channel_scale.set(torch.ones(16).index_fill_(0, torch.tensor(3), 0.01))
    with torch.no_grad(), student.eval().step.record() as record:
        student(**batch)
        real = record.hidden[1][batch["attention_mask"].bool()]
        amax = torch.nn.functional.layer_norm(real, (16,)).abs().amax(0)
    found = HealthMonitor(student).measure(batch)
    by_hand = 100 * amax[3] / amax.index_fill(0, torch.tensor(3), 1e9).median()
    assert found["outlier_ratio_unscaled"] == pytest.approx(by_hand.item(), rel=1e-4)
    assert found["outlier_ratio"] < 4


def test_models_without_one_bit_parts_have_fewer_numbers() -> None:
    student = prepare(tiny("vit"), load_recipe("kd_w2a8"))
    monitor = HealthMonitor(student)
    assert monitor.measure(batch_of("vit")) == {}
    assert monitor.measure(batch_of("vit")) == {"flipped_signs": 0}


def test_bits_that_no_alpha_made_are_watched_too() -> None:
    batch = batch_of("bert")
    student = prepare(tiny("bert"), load_recipe("bibert_w1a1"))
    initialise(student, [batch])
    found = HealthMonitor(student).measure(batch)
    assert 0 < found["map_entropy_bits"] <= 1
    assert 0 <= found["constant_bits"] < 1
    with torch.no_grad():  # all queries and keys equal: every score is above 0, every bit 1
        for layer in student.bert.encoder.layer:
            for part in (layer.attention.self.query, layer.attention.self.key):
                part.bias.fill_(1e6)
    assert HealthMonitor(student).measure(batch)["map_entropy_bits"] == 0


def test_a_code_that_moves_is_no_flipped_sign() -> None:
    batch = batch_of("bert")
    student = prepare(tiny("bert"), load_recipe("w8a8"))
    monitor = HealthMonitor(student)
    monitor.measure(batch)
    with torch.no_grad():  # one entry: its codes and those of its row change, no sign does
        student.bert.encoder.layer[0].intermediate.dense.weight[0].mul_(
            torch.linspace(0.5, 1.0, 16)
        )
    assert monitor.measure(batch)["flipped_signs"] == 0
