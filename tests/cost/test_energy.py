"""Prices, joint uncertainty and provenance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hwsim.config.load import load_machine
from hwsim.engine.draws import DRAWS, draw_position
from hwsim.engine.energy import Count, Ledger, Prices, waiting_counts
from hwsim.engine.ratio import ratio
from hwsim.errors import DataError


def ledger(machine: str, *counts: Count) -> Ledger:
    return Ledger(Prices(load_machine(machine)), [("node", c) for c in counts])


def test_band_of_one_quantity_is_its_log_uniform_percentiles() -> None:
    # dram_bit: 8 .. 31 pJ, nominal 10.9
    band = ledger("int8_edge", Count("dram", "load_bit", "weight", 1000)).total
    assert band.nominal == pytest.approx(10900)
    assert band.low == pytest.approx(8000 * (31 / 8) ** 0.05, rel=0.05)
    assert band.high == pytest.approx(8000 * (31 / 8) ** 0.95, rel=0.05)


def test_shared_quantities_move_together() -> None:
    # Reads and writes of both memories are one unknown: the band of a sum is the sum of the bands.
    read = Count("memory:weight_sram", "read", "weight", 10)
    write = Count("memory:activation_sram", "write", "output", 10)
    parts = [ledger("int8_edge", c).total for c in (read, write)]
    both = ledger("int8_edge", read, write).total
    assert both.high == pytest.approx(math.fsum(p.high for p in parts))
    assert both.low == pytest.approx(math.fsum(p.low for p in parts))


def test_independent_quantities_do_not() -> None:
    bits = Count("dram", "load_bit", "weight", 100)
    reads = Count("memory:weight_sram", "read", "weight", 30)
    parts = [ledger("int8_edge", c).total for c in (bits, reads)]
    both = ledger("int8_edge", bits, reads).total
    assert both.high < 0.99 * math.fsum(p.high for p in parts)


def test_machines_that_share_a_quantity_share_its_draw() -> None:
    names = {
        Prices(load_machine(m)).price("dram", "load_bit").name for m in ("xnor_edge", "int8_edge")
    }
    assert len(names) == 1
    own = {Prices(load_machine(m)).price("dma", "bit").name for m in ("xnor_edge", "int8_edge")}
    assert len(own) == 2  # not declared as shared


def test_draws_are_seeded_and_depend_on_the_name_alone() -> None:
    assert np.array_equal(draw_position("a"), draw_position("a"))
    assert not np.array_equal(draw_position("a"), draw_position("b"))
    assert draw_position("a").shape == (DRAWS,)
    assert not np.array_equal(draw_position("a"), draw_position("a", seed=1))


def test_femtojoules_and_milliwatts_become_picojoules() -> None:
    prices = Prices(load_machine("toy"))
    assert prices.price("array:main", "lane_op:INT8xINT8").pj == pytest.approx(0.1)
    # 0.1 mW at 100 MHz: 1e-4 J/s * 1e-8 s = 1 pJ
    assert prices.price("memory:buffer", "leakage_cycle").pj == pytest.approx(1.0)


def test_unknown_actions_have_no_price() -> None:
    prices = Prices(load_machine("toy"))
    for component, action in (("memory:buffer", "erase"), ("array:main", "nap"), ("fan", "turn")):
        with pytest.raises(KeyError):
            prices.price(component, action)


def test_waiting_is_paid_by_every_unit_that_waits() -> None:
    counts = waiting_counts(load_machine("toy"), 100, {"array:main": 40})
    found = {(c.component, c.action): c.count for c in counts}
    assert found["array:main", "idle_cycle"] == 60
    assert found["vector", "idle_cycle"] == 100
    assert found["memory:buffer", "leakage_cycle"] == 100


def test_share_on_assumed_figures() -> None:
    mixed = ledger(
        "int8_edge",
        Count("dram", "load_bit", "weight", 100),  # kind: model
        Count("dma", "bit", "weight", 100),  # kind: assumed
    )
    assert mixed.share_assumed_frac() == pytest.approx(3 / (3 + 1090))
    assert ledger("int8_edge").share_assumed_frac() == 0.0


def test_what_two_energies_share_cancels_in_their_ratio() -> None:
    bits = ledger("int8_edge", Count("dram", "load_bit", "weight", 1000))
    twice = ledger("xnor_edge", Count("dram", "load_bit", "weight", 500))
    same = ratio(bits, twice)  # the same unknown on both machines
    assert (same.band.low, same.band.nominal, same.band.high) == pytest.approx((2, 2, 2))
    assert same.movers == ()


def test_the_band_and_the_movers_of_a_ratio_by_hand() -> None:
    # 1,000 bits of DRAM (8 .. 31 pJ, nominal 10.9) over the same and 100 reads of 64 KiB-like words.
    bits = Count("dram", "load_bit", "weight", 1000)
    reads = Count("memory:weight_sram", "read", "weight", 100)
    first, second = ledger("int8_edge", bits), ledger("int8_edge", bits, reads)
    found = ratio(first, second)
    prices = Prices(load_machine("int8_edge"))
    dram, sram = prices.price("dram", "load_bit"), prices.price("memory:weight_sram", "read")
    drawn = {
        p.name: p.quantity.low * (p.quantity.high / p.quantity.low) ** draw_position(p.name)
        for p in (dram, sram)
    }
    wanted = 1000 * drawn[dram.name] / (1000 * drawn[dram.name] + 100 * drawn[sram.name])
    assert found.band.low == pytest.approx(np.percentile(wanted, 5))
    assert found.band.high == pytest.approx(np.percentile(wanted, 95))
    nominal_pj = 10900 / (10900 + 100 * sram.pj)
    assert found.band.nominal == pytest.approx(nominal_pj)
    # Both bounds are far from a ratio of the bands.
    assert found.band.high < first.total.high / second.total.low
    (mover, other) = found.movers
    assert {mover.name, other.name} == {"dram_bit", "sram_access"}
    low_pj = 8000 * (31 / 8) ** 0.05
    at_low = {m.name: m.at_low for m in found.movers}
    assert at_low["dram_bit"] == pytest.approx(low_pj / (low_pj + 100 * sram.pj))
    swings = [abs(math.log(m.at_high / m.at_low)) for m in found.movers]
    assert swings == sorted(swings, reverse=True)
    with pytest.raises(DataError, match="not zero below the line"):
        ratio(first, ledger("int8_edge"))
