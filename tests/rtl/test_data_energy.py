"""Energy at the activity of the data: the stated one at the reference, counts by naive loops, numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import LENGTHS, attention, export

from hwsim.arch.component import ActivityReference
from hwsim.config.load import load_machine
from hwsim.engine.cost import cost
from hwsim.engine.energy import Prices
from hwsim.rtl.activity import activity
from hwsim.rtl.data_energy import Switched, data_energy

CASES = {
    "xnor": ("xnor_edge", "BIPOLAR", "BIPOLAR"),
    "ternary": ("ternary_edge", "INT8", "TERNARY"),
    "bit_serial": ("bitserial_edge", "INT4", "BIPOLAR"),
}


def stated(toggle_rate: float, fixed_frac: float) -> list[str]:
    text = f"{{toggle_rate: {toggle_rate}, fixed_frac: {fixed_frac}, source: test}}"
    return [f"arrays.{array}.energy.activity={text}" for array in ("main", "dot")]


def test_by_hand() -> None:
    # 10 of 40 loaded bits flip at one port, 2 of 20 at the other; 80 + 80 bits stand at the lanes in all beats.
    ports = Switched(40, 10, 80), Switched(20, 2, 80)
    reference = ActivityReference(toggle_rate=0.5, fixed_frac=0.2, source="x")
    found = data_energy("n", "main", ports, 100, 3.0, 0.5, reference)
    assert found.lane_activity == 12 / 160
    assert found.stated_pj == 100 * 3 + 60 * 0.5
    lanes = 300 * (0.2 + 0.8 * (12 / 160) / 0.5)
    registers = 20 * (0.2 + 0.8 * 0.25 / 0.5) + 10 * (0.2 + 0.8 * 0.1 / 0.5)
    assert found.data_pj == pytest.approx(lanes + registers)


@pytest.mark.parametrize("case", CASES)
def test_counts_and_the_stated_energy_are_those_of_the_cost_model(case, tmp_path):
    name, a, w = CASES[case]
    model = export(tmp_path / "model", attention(a, w))
    found = activity(model, name, 1, stated(0.4, 0.3))
    machine = load_machine(name)
    rows = {row.node: row for row in cost(model.graph, machine, LENGTHS[0]).steady.operators}
    assert len(found.energies) == len(found.ports) / 2
    prices = Prices(machine)
    for e in found.energies:
        own = [
            c for c in rows[e.node].counts
            if c.component == f"array:{e.array}" and not c.action.startswith("accumulator")
            and not c.action.endswith("_cycle")
        ]  # fmt: skip
        assert e.stated_pj == pytest.approx(prices.nominal_pj(own), rel=1e-12)
        product = found.session.product(e.node, found.session.length)
        shown = [0, 0]
        for step in product.steps():
            weight = np.ones((len(step.n), len(step.k)), np.int8)  # no beat is empty
            for beat in product.beats(step, weight):
                shown[0] += len(beat.m) * len(beat.k) * product.operands[0].pass_bits
                shown[1] += len(beat.n) * len(beat.k) * product.operands[1].pass_bits
        ports = [p for p in found.ports if p.node == e.node]
        assert [p.presented_bits for p in ports] == shown
        assert e.lane_activity == sum(p.toggles for p in ports) / sum(shown)


def test_only_the_data_s_share_follows_the_data(tmp_path):
    model = export(tmp_path / "model", attention("INT8", "TERNARY"))
    fixed, free, half = (
        activity(model, "ternary_edge", 1, stated(rate, share)).energies
        for rate, share in ((0.5, 1.0), (0.5, 0.0), (0.25, 0.0))
    )
    for a, b, c in zip(fixed, free, half, strict=True):
        assert a.data_pj == pytest.approx(a.stated_pj)
        assert 0 < b.data_pj < b.stated_pj  # operands that stay flip nothing
        assert c.data_pj == pytest.approx(2 * b.data_pj)


def test_a_machine_that_states_no_activity_is_priced_as_before(tmp_path):
    model = export(tmp_path / "model", attention("INT8", "TERNARY"))
    assert activity(model, "ternary_edge", 1).energies == ()
    one, other = load_machine("ternary_edge"), load_machine("ternary_edge", stated(0.5, 0.0))
    assert one.sha256 != other.sha256
    costs = [cost(model.graph, m).steady.ledger.total for m in (one, other)]
    assert costs[0] == costs[1]
