"""`python -m hwsim run` and `verify` as a user meets them: output, files and exit codes."""

from __future__ import annotations

import json
import shutil

import pytest

OK, UNEQUAL, USER_ERROR = 0, 1, 2


def test_exit_codes_of_a_real_process(hwsim_process, export):
    """A tensor unequal, a user's mistake: what a script can rely on.

    Everything equal is the end of the process in tests/validation/test_random_models.py.
    """
    flip = ("--inject", "B:logits.codes:0:50")
    flipped = hwsim_process("verify", export, "--machine", "int8_edge", *flip)
    assert (flipped.returncode, flipped.stderr) == (UNEQUAL, "")
    assert "logits.codes (requant): 12 elements differ" in flipped.stdout
    mistaken = hwsim_process("verify", export, "--machine", "int8_egde", *flip)
    assert (mistaken.returncode, mistaken.stdout) == (USER_ERROR, "")
    assert "did you mean 'int8_edge'?" in mistaken.stderr


def test_run_reports_accuracy_cycles_energy_and_memory(hwsim, export, tmp_path):
    file = tmp_path / "new" / "result.json"
    done = hwsim("run", export, "--machine", "ternary_edge", "--json", file)
    assert (done.returncode, done.stderr) == (OK, "")
    result = json.loads(file.read_text(encoding="utf-8"))

    accuracy = result["accuracy"]
    assert accuracy["metric"] == "accuracy"
    assert accuracy["total"] == 12
    assert accuracy["correct"] == round(accuracy["value"] * 12)
    low, high = accuracy["wilson_95"]
    assert 0 <= low <= accuracy["value"] <= high <= 1

    assert set(result["latency_cycles"]) == {"cold", "steady"}
    assert set(result["latency_s"]) == {"cold", "steady"}
    assert result["latency_cycles"]["cold"] >= result["latency_cycles"]["steady"] > 0
    energy = result["energy_pj"]
    assert 0 < energy["low"] < energy["nominal"] < energy["high"]
    assert result["energy_by_component_pj"]
    assert result["energy_by_operator_pj"]

    nodes = json.loads((export / "graph.json").read_text(encoding="utf-8"))["nodes"]
    rows = {row["node"]: row for row in result["operators"]}
    assert set(rows) <= {n["name"] for n in nodes}
    for node in nodes:
        if node["op"] in ("linear", "matmul", "softmax", "layer_norm"):
            row = rows[node["name"]]
            assert 0 < row["utilisation_frac"] <= 1
            assert row["binding"]

    memory = result["memory"]
    assert memory["weight_bytes"] > 0
    assert memory["peak_activation_bytes"] > 0
    assert memory["traffic_bytes"]
    hashes = result["hashes"]
    manifest = json.loads((export / "manifest.json").read_text(encoding="utf-8"))
    assert hashes["model"] == manifest["model_sha256"]
    assert all(len(hashes[k]) >= 7 for k in ("model", "machine", "code"))
    for name, size in result["file_bytes"].items():
        assert (export / name).stat().st_size == size


def test_fewer_samples(hwsim, export, tmp_path):
    file = tmp_path / "result.json"
    done = hwsim("run", export, "--machine", "int8_edge", "--samples", 5, "--json", file)
    assert done.returncode == OK
    assert json.loads(file.read_text(encoding="utf-8"))["accuracy"]["total"] == 5
    done = hwsim("verify", export, "--machine", "int8_edge", "--samples", 5, "--json", file)
    assert done.returncode == OK
    assert json.loads(file.read_text(encoding="utf-8"))["samples"] == 5
    assert hwsim("run", export, "--machine", "int8_edge", "--samples", 0).returncode == USER_ERROR


def test_cost_needs_no_samples(hwsim, export, tmp_path):
    from hwsim.graph.serialize import load, save

    bare = tmp_path / "bare"
    save(bare, load(export).graph)
    file = tmp_path / "result.json"
    done = hwsim("run", bare, "--machine", "int8_edge", "--cost", "--json", file)
    assert (done.returncode, done.stderr) == (OK, "")
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["accuracy"] is None
    assert result["latency_cycles"]["cold"] > 0
    for verb in ("run", "verify"):
        done = hwsim(verb, bare, "--machine", "int8_edge")
        assert done.returncode == USER_ERROR
        assert done.stderr.startswith(f"{bare}: carries no samples to run")


def test_verify_finds_nothing_in_a_whole_machine(hwsim, export, tmp_path):
    file = tmp_path / "verify.json"
    done = hwsim("verify", export, "--machine", "xnor_edge", "--json", file)
    assert (done.returncode, done.stderr) == (OK, "")
    result = json.loads(file.read_text(encoding="utf-8"))
    nodes = json.loads((export / "graph.json").read_text(encoding="utf-8"))["nodes"]
    assert result["ok"] is True
    assert result["unequal"] == []
    assert result["tensors"] == len(nodes)
    assert result["samples"] == 12
    assert f"rung B: 0 unequal of {len(nodes)} tensors" in done.stdout
    assert "rung C (RTL): not run" in done.stdout
    assert "rungs A1-A3: no record in this export" in done.stdout


def test_verify_prints_the_record_of_the_export(hwsim, export, tmp_path):
    from hwsim.graph.serialize import load, save
    from hwsim.rungs import OperatorCheck, RungRecord

    record = RungRecord(samples=540, operator_samples=256, a2_agreement=0.9981, a3_agreement=0.94)
    record.a1 = [OperatorCheck("x.acc", "linear", elements=10, differing=1, largest=3)]
    model = load(export)
    recorded = tmp_path / "recorded"
    save(recorded, model.graph, model.samples, record.to_json())
    done = hwsim("verify", recorded, "--machine", "int8_edge")
    assert done.returncode == OK, "rung B holds; a failed rung A is printed, not hidden"
    assert "rungs A1-A3 FAIL" in done.stdout
    assert "540 samples" in done.stdout
    assert "A1 x.acc (linear): 1 of 10 elements differ, by up to 3" in done.stdout
    assert "A3 agreement with the plain student 0.9400 is below" in done.stdout


def test_a_flip_that_shows_ends_with_one(hwsim, export, tmp_path):
    file = tmp_path / "verify.json"
    inject = "B:logits.codes:0:50"
    done = hwsim("verify", export, "--machine", "int8_edge", "--inject", inject, "--json", file)
    assert (done.returncode, done.stderr) == (UNEQUAL, "")
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["ok"] is False
    assert result["inject"] == inject
    assert [u["tensor"] for u in result["unequal"]] == ["logits.codes"]
    assert f"injected: {inject}, in the machine's memory only" in done.stdout
    assert "logits.codes (requant): 12 elements differ" in done.stdout


def test_a_flip_that_changes_nothing_ends_with_zero(hwsim, export):
    done = hwsim("verify", export, "--machine", "int8_edge", "--inject", "B:logits.codes:0:0")
    assert done.returncode == OK
    assert "the flip is masked: it changes no tensor on these samples" in done.stdout


@pytest.mark.parametrize(
    ("inject", "text"),
    [
        ("B:logits.codes:0", "--inject must be FIELD:NODE:INDEX:BIT"),
        ("bias:logits.codes:0:0", "FIELD must be one of"),
        ("B:logits.code:0:0", "did you mean 'logits.codes'?"),
        ("B:logits.codes:999:0", "has elements 0 to 4, not 999"),
        ("B:logits.codes:0:64", "logits.codes.B is INT64, its bits are 0 to 63, not 64"),
    ],
)
def test_a_malformed_injection_ends_with_two(hwsim, export, inject, text):
    done = hwsim("verify", export, "--machine", "int8_edge", "--inject", inject)
    assert (done.returncode, done.stdout) == (USER_ERROR, "")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_machine_names_the_nearest(hwsim, export):
    for verb in ("run", "verify"):
        done = hwsim(verb, export, "--machine", "int8_egde")
        assert (done.returncode, done.stdout) == (USER_ERROR, "")
        assert "did you mean 'int8_edge'?" in done.stderr
        assert "Traceback" not in done.stderr


def test_no_model(hwsim, tmp_path):
    done = hwsim("run", tmp_path / "nothing", "--machine", "int8_edge")
    assert done.returncode == USER_ERROR
    assert f"{tmp_path / 'nothing' / 'manifest.json'}: no such file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_damaged_weights_are_named(hwsim, export, tmp_path, damage):
    folder = tmp_path / "damaged"
    shutil.copytree(export, folder)
    weights = folder / "weights.safetensors"
    data = weights.read_bytes()
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(data[: len(data) // 2])
    else:
        weights.write_bytes(data[:-3] + bytes([data[-3] ^ 4]) + data[-2:])
    for verb in ("run", "verify"):
        done = hwsim(verb, folder, "--machine", "int8_edge")
        assert (done.returncode, done.stdout) == (USER_ERROR, "")
        assert done.stderr.startswith(
            f"{weights}: {'missing' if damage == 'missing' else 'altered or truncated'}"
        )
        assert len(done.stderr.splitlines()) == 1


def test_a_narrow_accumulator_is_one_message(hwsim, export):
    narrow = ("--set", "arrays.main.accumulator_bits=8")
    done = hwsim("run", export, "--machine", "int8_edge", *narrow)
    assert done.returncode == USER_ERROR
    assert "more than its accumulator_bits 8; the operator's static bound is" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = hwsim(
        "verify", export, "--machine", "int8_edge", *narrow, "--set", "arrays.main.overflow=wrap"
    )
    assert done.returncode == OK
    assert "numeric profile:" in done.stdout
    assert "8 bits, wrap, chunks of 16" in done.stdout


def test_run_at_an_operating_point(hwsim, export, tmp_path):
    slow = (
        "{name: slow, voltage_v: 0.5, clock_hz: 100000000, dynamic_scale: 0.25, leakage_scale: 0.5}"
    )
    run = ("run", export, "--machine", "int8_edge", "--cost", "--set", f"operating_points=[{slow}]")
    results = []
    for i, options in enumerate(((), ("--operating-point", "slow"))):
        file = tmp_path / f"{i}.json"
        done = hwsim(*run, "--json", file, *options)
        assert done.returncode == OK
        assert ("operating point slow" in done.stdout) == bool(options)
        results.append(json.loads(file.read_text(encoding="utf-8")))
    own, other = results
    assert own["operating_point"] is None
    assert other["operating_point"] == {"name": "slow", "voltage_v": 0.5, "clock_hz": 100_000_000}
    assert other["clock_hz"] == 100_000_000
    assert other["energy_pj"]["nominal"] < own["energy_pj"]["nominal"]
    assert (
        other["latency_cycles"]["cold"] < own["latency_cycles"]["cold"]
    )  # the DRAM is as fast as before
    assert other["hashes"]["machine"] != own["hashes"]["machine"]
    refused = hwsim(*run, "--operating-point", "slwo")
    assert refused.returncode == USER_ERROR
    assert "did you mean 'slow'" in refused.stderr
