"""Validation: what is predicted, in which order things are looked at, how classes come about, the list that only grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hwsim.arch.machine import Machine
from hwsim.arch.operating_point import at_operating_point
from hwsim.arch.targets import QuestionSpec
from hwsim.cli import app
from hwsim.config.load import load_machine, load_workload, machines_folder
from hwsim.errors import ConfigError, DataError
from hwsim.report.validation import summary_lines
from hwsim.validation import judge
from hwsim.validation.lock import LOCK_NAME
from hwsim.validation.predict import PEAK_BLOCKS, Prediction, measure
from hwsim.workload import Workload

PUBLISHED = machines_folder() / "published"
PEAK = "workload: peak, mode: {activation: INT8, weight: INT8}"
ENERGY = f"{PEAK}, metric: fj_per_op, scope: core, includes: [array, memory]"
SOURCE = "source: made up"


def machine_file(folder: Path, *targets: str, more: str = "") -> Path:
    """Write a machine that is toy with these targets."""
    path = folder / "mine.yaml"
    listed = "".join(f"  - {{{target}}}\n" for target in targets)
    path.write_text(
        f"schema: hwsim/accelerator/1\nextends: toy\nname: mine\nvalidation:\n{listed}{more}",
        encoding="utf-8",
    )
    return path


def lock_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the predictions written down in a folder."""
    text = (folder / LOCK_NAME).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def question(**keys: object) -> QuestionSpec:
    """Return a question about the peak of toy."""
    mode = {"activation": "INT8", "weight": "INT8"}
    base = {"name": "q", "workload": "peak", "mode": mode, "scope": "core"}
    return QuestionSpec.model_validate({**base, **keys})


def predict(machine: Machine, asked: QuestionSpec, workload: Workload | None) -> Prediction:
    """Answer one question about a machine."""
    return measure(machine, asked, workload).predict(asked)


def test_a_peak_is_size_times_clock_and_its_energy_is_counted_by_hand() -> None:
    toy = load_machine("toy")
    gops = predict(toy, question(metric="gops"), None)
    assert gops.value == 2 * 4 * 4 * 8 * toy.spec.clock_hz / 1e9
    m, n, k = (b * size for b, size in zip(PEAK_BLOCKS, (4, 4, 8), strict=True))
    beats = 256 * 16 * 16
    array_fj = m * n * k * 100 + m * n * 16 * 10 + beats * (4 * 8 * 8 + 4 * 8 * 8) * 1.0
    asked = question(metric="fj_per_op", includes=["array"])
    # the array waits in no cycle of its own peak, so no idle clock is counted
    assert predict(toy, asked, None).value == pytest.approx(array_fj / (2 * m * n * k))
    both = question(metric="fj_per_op", includes=["array", "memory"])
    reads_pj = beats * (4 + 4) * 1.0  # 256 bits in words of 64, of either operand
    writes_pj = 256 * 16 * 2 * 2.0  # 16 results of 8 bits
    leakage_pj = 2 * 0.1 * beats * 10.0  # two memories of 0.1 mW, 10 ns a cycle
    memory_fj = (reads_pj + writes_pj + leakage_pj) * 1e3
    assert predict(toy, both, None).value == pytest.approx((array_fj + memory_fj) / (2 * m * n * k))


def test_tops_per_watt_is_the_inverse_and_keeps_its_band_in_order() -> None:
    ita = load_machine("ita")
    keys = {"includes": ["array"]}
    joules = predict(ita, question(metric="fj_per_op", **keys), None)
    watts = predict(ita, question(metric="tops_w", **keys), None)
    assert watts.value == pytest.approx(1e3 / joules.value)
    assert watts.low == pytest.approx(1e3 / joules.high)
    assert watts.low < watts.value < watts.high


def test_a_pipeline_is_as_fast_as_its_slowest_engine() -> None:
    machine = load_machine("finn_cnv")
    target = machine.spec.validation[0]
    workload = load_workload("cnv_w1a1")
    # vectors x rows / PE x columns / SIMD; the dense layers of 512 x 256 and 512 x 512 are the slowest
    assert predict(machine, target, workload).value == pytest.approx(299e6 / 32768)
    short = target.model_copy(update={"engines": target.engines[:-1]})
    with pytest.raises(ConfigError, match="must name one engine for each of the 9 layers"):
        predict(machine, short, workload)


def test_an_operating_point_scales_the_chip_and_not_the_dram() -> None:
    machine = load_machine("yodann").spec
    low = at_operating_point(machine, "low")
    assert low.clock_hz == 17_500_000
    assert low.technology.voltage_v == 0.6
    high_sram, low_sram = (m.memories["activations"] for m in (machine, low))
    assert low_sram.read_pj.value == pytest.approx(high_sram.read_pj.value / 4)
    assert low_sram.leakage_mw.value == pytest.approx(high_sram.leakage_mw.value / 4)
    energies = (m.arrays["main"].energy.lane_op_fj for m in (machine, low))
    assert next(energies).value == pytest.approx(4 * next(energies).value)
    assert low.dram.energy_pj_per_bit == machine.dram.energy_pj_per_bit
    with pytest.raises(ConfigError, match=r"yodann.*\(low\), not 'lo'; did you mean 'low'"):
        at_operating_point(machine, "lo")


def test_a_prediction_is_written_down_before_its_target_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = machine_file(tmp_path, f"name: peak, {ENERGY}, value: 50.0, {SOURCE}")
    at_comparison: list[int] = []

    def compare(*arguments: Any, **more: Any) -> Any:
        at_comparison.append(len(lock_lines(tmp_path)))
        return row(*arguments, **more)

    row = judge._row
    monkeypatch.setattr(judge, "_row", compare)
    judge.validate([str(path)])
    assert at_comparison == [1]


def test_a_changed_prediction_stands_beside_the_first_one(tmp_path: Path) -> None:
    target = f"name: peak, {ENERGY}, value: 50.0, {SOURCE}"
    path = machine_file(tmp_path, target)
    (first,) = judge.validate([str(path)]).rows
    assert not first.changed
    assert len(lock_lines(tmp_path)) == 1

    # another target value is no change of the machine, nor of its prediction
    machine_file(tmp_path, target.replace("50.0", "70.0"))
    (moved,) = judge.validate([str(path)]).rows
    assert (moved.ours, moved.changed) == (first.ours, False)
    assert lock_lines(tmp_path)[0]["machine_sha256"] == load_machine(path).sha256

    machine_file(tmp_path, target, more="arrays: {main: {pipeline_depth_cycles: 9}}\n")
    assert not judge.validate([str(path)]).changed  # the number is what counts

    louder = "{value: 110.0, kind: assumed, source: why}"
    machine_file(tmp_path, target, more=f"arrays: {{main: {{energy: {{lane_op_fj: {louder}}}}}}}\n")
    changed = judge.validate([str(path)])
    (row,) = changed.rows
    assert row.changed
    assert row.first == first.ours < row.ours
    assert row.first_error == pytest.approx(first.ours / 50 - 1)
    assert len(lock_lines(tmp_path)) == 1, "a changed prediction is never written silently"

    done = CliRunner().invoke(app, ["validate", str(path)])
    assert done.exit_code == 1
    assert "changed: mine, peak" in done.stdout
    assert "; first" in CliRunner().invoke(app, ["validate", "--markdown", str(path)]).stdout

    before = lock_lines(tmp_path)
    assert CliRunner().invoke(app, ["validate", "--record", str(path)]).exit_code == 0
    after = lock_lines(tmp_path)
    assert after[:1] == before
    assert len(after) == 2
    (recorded,) = judge.validate([str(path)]).rows
    assert not recorded.changed
    assert recorded.first == first.ours


def test_an_edited_line_is_refused(tmp_path: Path) -> None:
    path = machine_file(tmp_path, f"name: peak, {ENERGY}, value: 50.0, {SOURCE}")
    (tmp_path / LOCK_NAME).write_text('{"machine": "mine"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"predictions\.lock:1: must be one prediction as JSON"):
        judge.validate([str(path)])


CALIBRATED = (
    "arrays: {main: {energy: {lane_op_fj: {value: 100.0, kind: assumed, source: set,"
    " calibrated_by: peak}}}}\n"
)
WIDE = (
    "arrays: {main: {energy: {lane_op_fj: {value: 100.0, low: 20.0, high: 500.0, kind: assumed,"
    " source: a guess}}}}\n"
)


@pytest.mark.parametrize(
    ("target", "more", "standing", "why"),
    [
        (f"{PEAK}, metric: gops, scope: core", "", "arithmetic", "follows from size and clock"),
        (f"{ENERGY}, follows_from: the same", "", "arithmetic", "the same"),
        (ENERGY, CALIBRATED, "calibrated", "it set arrays.main.energy.lane_op_fj"),
        (f"{ENERGY}, unknown: [its clock]", "", "underdetermined", "no source for its clock"),
        (ENERGY, WIDE, "underdetermined", "the 5-95 % band spans a factor of"),
        (ENERGY, "", "predicted", "every input has a source"),
    ],
)
def test_classes_are_derived(
    tmp_path: Path, target: str, more: str, standing: str, why: str
) -> None:
    path = machine_file(tmp_path, f"name: peak, {target}, value: 50.0, {SOURCE}", more=more)
    (row,) = judge.validate([str(path)]).rows
    assert row.standing == standing
    assert row.why.startswith(why)


CITED = "arrays: {main: {energy: {lane_op_fj: {value: 1.0, kind: assumed, source: 'X, arXiv 2301.00001'}}}}\n"
TWO = (
    "arrays: {main: {energy: {lane_op_fj: {value: 1.0, kind: assumed, source: s, calibrated_by: peak},"
    " accumulator_update_fj: {value: 1.0, kind: assumed, source: s, calibrated_by: other}}}}\n"
)


@pytest.mark.parametrize(
    ("target", "more", "message"),
    [
        (f"{ENERGY}, standing: predicted", "", "must be a known key"),
        (
            ENERGY.replace("core", "datapath"),
            "",
            "must have a scope that contains what it includes",
        ),
        (
            f"{PEAK}, metric: fps, scope: core",
            "",
            "must ask for gops or an energy of a peak, not fps",
        ),
        (
            f"{PEAK}, metric: uj, scope: core",
            "",
            "must say what it includes where the metric is an",
        ),
        (f"{ENERGY}, baseline: pek", "", r"baseline: must name one of this machine \(other\)"),
        (f"{ENERGY}, operating_point: low", "", r"operating_point: .*\(none\), not 'low'"),
        (ENERGY.replace("INT8", "INT16", 1), "", "mode: must be formats that an array multiplies"),
        (ENERGY, CALIBRATED.replace("peak", "pea"), "calibrated_by: must name a peak .*'peak'"),
        (ENERGY, TWO, "must be 'peak', not 'other': one target at most may set constants"),
        (
            ENERGY,
            CITED,
            "must say `calibrated_by:` with the target that set it: it cites arXiv 2301",
        ),
    ],
)
def test_faults_of_a_target_are_found(tmp_path: Path, target: str, more: str, message: str) -> None:
    other = f"name: other, {ENERGY}, value: 1.0, source: 'paper, arXiv 2301.00001: table 1'"
    path = machine_file(
        tmp_path,
        f"name: peak, {target}, value: 50.0, source: 'paper, arXiv 2301.00001'",
        other,
        more=more,
    )
    with pytest.raises(ConfigError, match=message):
        load_machine(path)


def test_the_naive_baseline_is_operations_times_the_published_peak(tmp_path: Path) -> None:
    workload = tmp_path / "one.yaml"
    workload.write_text(
        "schema: hwsim/workload/1\nname: one\ndescription: d\nsource: s\nenergy_includes: e\n"
        "layers: [{name: a, gemm: {m: 8, n: 8, k: 16}, activation: INT8, weight: INT8, result: INT8}]\n",
        encoding="utf-8",
    )
    path = machine_file(
        tmp_path,
        f"name: peak, {ENERGY}, value: 50.0, {SOURCE}",
        "name: net, workload: one.yaml, metric: uj, scope: core, includes: [array], baseline: peak,"
        f" value: 0.2, {SOURCE}",
        f"name: time, workload: one.yaml, metric: cycles, scope: core, value: 100.0, {SOURCE}",
    )
    _, net, time = judge.validate([str(path)]).rows
    ops = 2 * 8 * 8 * 16
    assert net.naive == pytest.approx(ops * 50.0 / 1e9)
    assert net.naive_error == pytest.approx(ops * 50.0 / 1e9 / 0.2 - 1)
    # 1,024 products on 128 lanes are 8 cycles, 128 bytes at 64 bits a cycle 16
    assert time.naive == 16
    summary = judge.Validation((net, time)).summary()
    assert summary["predicted"] == summary["with_baseline"] == 2
    assert summary["median_naive_error"] == pytest.approx(
        (abs(net.naive_error) + abs(16 / 100 - 1)) / 2
    )


def test_a_run_is_measured_once_and_answers_all_its_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []

    def counted(machine: Machine, target: QuestionSpec, workload: Workload | None) -> Any:
        runs.append(target.name)
        return measure(machine, target, workload)

    monkeypatch.setattr(judge, "measure", counted)
    other = ENERGY.replace("activation: INT8", "activation: UINT8")
    path = machine_file(
        tmp_path,
        f"name: energy, {ENERGY}, value: 50.0, {SOURCE}",
        f"name: rate, {PEAK}, metric: gops, scope: core, value: 1.0, {SOURCE}",
        f"name: other formats, {other}, value: 50.0, {SOURCE}",
        more="arrays: {main: {formats: [{activation: INT8, weight: INT8}, {activation: UINT8, weight: INT8}]}}\n",
    )
    energy, rate, _ = judge.validate([str(path)]).rows
    assert runs == ["energy", "other formats"]
    toy = load_machine(path)
    for row, target in zip((energy, rate), toy.spec.validation, strict=False):
        assert row.ours == predict(toy, target, None).value


def test_a_group_with_many_targets_weighs_as_much_as_one_with_few(tmp_path: Path) -> None:
    """Errors of +0 %, +0 % and +0 % from one group, +100 % from another, +300 % from the machine's own."""
    ours = predict(load_machine("toy"), question(metric="fj_per_op", includes=["array", "memory"]), None).value  # fmt: skip
    path = machine_file(
        tmp_path,
        *(f"name: a{i}, {ENERGY}, value: {ours}, {SOURCE}, group: many" for i in range(3)),
        f"name: b, {ENERGY}, value: {ours / 2}, {SOURCE}, group: few",
        f"name: c, {ENERGY}, value: {ours / 4}, {SOURCE}",
    )
    found = judge.validate([str(path)])
    assert [r.group for r in found.rows] == ["many", "many", "many", "few", "mine"]
    summary = found.summary()
    assert (summary["predicted"], summary["groups"]) == (5, 3)
    assert summary["median_error"] == pytest.approx(0.0)
    assert summary["median_error_of_groups"] == pytest.approx(1.0)
    (line, *_) = summary_lines(found)
    assert "5 of 5 targets, from 3 groups of authors: median |error| 0.0%" in line
    assert line.endswith("of the groups' medians 100.0%.")


def test_machines_share_their_constants_across_the_node() -> None:
    chips = ["braintta", "ita", "tcn_cutie", "xne"]
    spreads = {load_machine(name).spec.memories["activations"].read_pj.shared for name in chips}
    assert spreads == {"sram_access"}
    for path in PUBLISHED.glob("*.yaml"):
        assert "extends: base/" in path.read_text(encoding="utf-8") or path.stem == "cutie"
        calibrations = {
            by
            for array in load_machine(path.stem).spec.arrays.values()
            for by in [array.energy.lane_op_fj.calibrated_by]
        }
        assert len(calibrations) == 1
