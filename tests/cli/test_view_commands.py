"""`python -m hwsim run --trace`, `explain`, `diff` and `plot` as a user meets them."""

from __future__ import annotations

import json

import pytest

from hwsim.graph.serialize import load

OK, USER_ERROR = 0, 2


def test_run_writes_a_timeline_of_each_scenario(hwsim, export, tmp_path):
    files = tmp_path / "steady.json", tmp_path / "new" / "cold.json"
    done = hwsim(
        "run", export, "--machine", "ternary_edge", "--cost", "--json", tmp_path / "run.json",
        "--trace", files[0], "--trace-cold", files[1],
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (OK, "")
    result = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    for file, name in zip(files, ("steady", "cold"), strict=True):
        data = json.loads(file.read_text(encoding="utf-8"))
        cycles = result["latency_cycles"][name]
        assert data["otherData"]["cycles"] == cycles
        assert data["otherData"]["name"] == f"sentences on ternary_edge, {name}"
        operators = [e for e in data["traceEvents"] if e["ph"] == "X" and e["tid"] == 1]
        assert sum(e["dur"] for e in operators) == cycles
        assert f"{file}: " in done.stdout
    assert "1 us = 1 core cycle" in done.stdout


def test_explain_agrees_with_run(hwsim, export, tmp_path):
    run, file = tmp_path / "run.json", tmp_path / "explain.json"
    hwsim("run", export, "--machine", "int8_edge", "--cost", "--json", run)
    result = json.loads(run.read_text(encoding="utf-8"))
    row = next(o for o in result["operators"] if o["op"] == "linear")
    explain = ("explain", export, "--machine", "int8_edge", "--operator", row["node"])
    done = hwsim(*explain, "--json", file)
    assert (done.returncode, done.stderr) == (OK, "")
    data = json.loads(file.read_text(encoding="utf-8"))
    assert data["cycles"]["total"] == row["cycles"]
    assert data["energy_pj"] == row["energy_pj"]
    assert row["node"] in done.stdout
    cold = next(o for o in result["cold_operators"] if o["node"] == row["node"])
    hwsim(*explain, "--cold", "--json", file)
    data = json.loads(file.read_text(encoding="utf-8"))
    assert (data["scenario"], data["cycles"]["total"]) == ("cold", cold["cycles"])


def test_explain_names_the_nearest_operator(hwsim, export):
    done = hwsim("explain", export, "--machine", "int8_edge", "--operator", "logits.code")
    assert (done.returncode, done.stdout) == (USER_ERROR, "")
    assert done.stderr == "sentences: has no operator 'logits.code'; did you mean 'logits.codes'?\n"


def test_costs_say_which_length_they_are_of(hwsim, export, tmp_path):
    """Samples that run may be shorter than what the model was built for: the same question, two costs."""
    built = json.loads((export / "graph.json").read_text(encoding="utf-8"))["max_length"]
    whole = hwsim("run", export, "--machine", "int8_edge", "--cost").stdout
    file = tmp_path / "run.json"
    lengths = load(export).samples.lengths
    longest = int(lengths.max())
    before = int(lengths.argmax())  # so many samples are shorter
    count = max(before, 1)
    ran = hwsim("run", export, "--machine", "int8_edge", "--samples", count, "--json", file).stdout
    assert json.loads(file.read_text(encoding="utf-8"))["sequence_length"] == longest
    assert longest < built
    assert f"sentences on int8_edge, an inference of {built} tokens" in whole
    assert f"note: costs are those of the longest inference that the model was built for, {built} tokens" in whole  # fmt: skip
    assert f"sentences on int8_edge, an inference of {longest} tokens" in ran
    assert (
        f"note: costs are those of the longest of the {len(lengths)} samples, {longest} tokens"
        in ran
    )
    asked = hwsim("run", export, "--machine", "int8_edge", "--cost", "--length", built - 1).stdout
    assert f"sentences on int8_edge, an inference of {built - 1} tokens" in asked
    sides = ("diff", "int8_edge", "ternary_edge", "--model", export)
    assert f"an inference of {built - 1} tokens" in hwsim(*sides, "--length", built - 1).stdout
    beyond = hwsim(*sides, "--length", built + 1)
    assert (beyond.returncode, beyond.stdout) == (USER_ERROR, "")
    assert beyond.stderr == f"the sequence length must be 1 to {built}, not {built + 1}\n"
    compared = hwsim("diff", "int8_edge", "ternary_edge", "--model", export).stdout
    assert f"sentences, steady, an inference of {built} tokens: A = int8_edge" in compared
    assert "was built for" in compared


def test_diff_of_machines_and_of_their_results(hwsim, export, tmp_path):
    file = tmp_path / "diff.json"
    wide = "dram.bandwidth_bytes_per_s=6400000000"
    machines = ("diff", "int8_edge", "ternary_edge", "--model", export, "--set-b", wide)
    done = hwsim(*machines, "--json", file)
    assert (done.returncode, done.stderr) == (OK, "")
    assert f"B = ternary_edge {wide}" in done.stdout.replace("\n", " ")
    data = json.loads(file.read_text(encoding="utf-8"))
    assert data["energy_ratio"]["low"] < data["energy_ratio"]["high"]
    results = []
    for name, more in (("int8_edge", ()), ("ternary_edge", ("--set", wide))):
        results.append(tmp_path / f"{name}.json")
        hwsim("run", export, "--machine", name, "--cost", *more, "--json", results[-1])
    done = hwsim("diff", *results, "--json", file)
    assert (done.returncode, done.stderr) == (OK, "")
    again = json.loads(file.read_text(encoding="utf-8"))
    assert again["energy_ratio"] is None
    assert again["operators"] == data["operators"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("toy", "toy"), "give --model MODEL"),
        (("toy", "x.json"), "two machines or two results must be compared, not one of each"),
        (("x.json", "y.json", "--set-a", "clock_hz=1"), "are for machines, not for results"),
        (("x.json", "y.json", "--length", 3), "are for machines, not for results"),
        (("x.json", "y.json"), "x.json: must be a result of `hwsim run --json`"),
    ],
)
def test_diff_says_what_is_missing(hwsim, arguments, text):
    done = hwsim("diff", *arguments)
    assert (done.returncode, done.stdout) == (USER_ERROR, "")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_results_of_other_models_are_not_compared(hwsim, export, tmp_path):
    file, other = tmp_path / "run.json", tmp_path / "other.json"
    hwsim("run", export, "--machine", "int8_edge", "--cost", "--json", file)
    result = json.loads(file.read_text(encoding="utf-8"))
    result["hashes"]["model"] = "00" * 32
    other.write_text(json.dumps(result), encoding="utf-8")
    done = hwsim("diff", file, other)
    assert (done.returncode, done.stdout) == (USER_ERROR, "")
    assert "model: " in done.stderr


def test_plot_writes_its_figures(hwsim, export, tmp_path):
    pytest.importorskip("matplotlib")
    done = hwsim("plot", export, "--machine", "int8_edge", "--out", tmp_path / "new")
    assert (done.returncode, done.stderr) == (OK, "")
    written = sorted(p.name for p in (tmp_path / "new").iterdir())
    names = ("cycles_by_operator", "energy_by_operator", "roofline")
    assert written == [f"{n}.{e}" for n in names for e in ("png", "svg")]
    assert [line.rpartition("/")[2] for line in sorted(done.stdout.splitlines())] == written


def test_breakeven_names_the_value_and_both_totals(hwsim, export, tmp_path):
    file = tmp_path / "even.json"
    ask = ("breakeven", "int8_edge", "ternary_edge", "--model", export)
    done = hwsim(*ask, "--over", "arrays.dot.energy.lane_op_fj", "--json", file)
    assert (done.returncode, done.stderr) == (OK, "")
    data = json.loads(file.read_text(encoding="utf-8"))
    assert (data["schema_version"], data["exact"], data["by"]) == (
        "hwsim/breakeven/1",
        True,
        "energy",
    )
    (crossing,) = data["crossings"]
    assert (crossing["wins_below"], crossing["wins_above"]) == ("ternary_edge", "int8_edge")
    assert crossing["band"][0] < crossing["value"] < crossing["band"][1]
    assert f"at {crossing['value']:,.6g}: A " in done.stdout
    assert "below: ternary_edge wins; from there on: int8_edge wins" in done.stdout


def test_breakeven_refuses_an_unknown_key(hwsim, export):
    ask = ("breakeven", "int8_edge", "ternary_edge", "--model", export)
    done = hwsim(*ask, "--over", "dram.energy_pjs_per_bit")
    assert (done.returncode, done.stdout) == (USER_ERROR, "")
    assert done.stderr == (
        "'dram.energy_pjs_per_bit' must be a number of a machine, or sequence_length;"
        " none of int8_edge and ternary_edge has this; did you mean 'dram.energy_pj_per_bit'?\n"
    )


def test_sensitivity_lists_and_draws_every_unknown(hwsim, export, tmp_path):
    pytest.importorskip("matplotlib")
    file, out = tmp_path / "s.json", tmp_path / "figures"
    done = hwsim("sensitivity", "ternary_edge", "--model", export, "--json", file, "--out", out)
    assert (done.returncode, done.stderr) == (OK, "")
    data = json.loads(file.read_text(encoding="utf-8"))
    assert (data["quantity"], data["sides"], data["keys"]) == ("energy_pj", ["ternary_edge"], [])
    names = [bar["name"] for bar in data["unknowns"]]
    assert {"idle_clock", "sram_access"} < set(names)
    assert all(bar["at_low"] < data["nominal"] < bar["at_high"] for bar in data["unknowns"])
    assert names[0] in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["tornado.png", "tornado.svg"]


def test_equal_area_says_what_it_changed_or_what_is_not_stated(hwsim, export):
    ask = ("diff", "int8_edge", "ternary_edge", "--model", export, "--equal-area")
    done = hwsim(*ask)
    assert (done.returncode, done.stderr) == (OK, "")
    assert done.stdout.startswith(
        "equal area: A 729,500 um2, B 723,500 um2 -> 728,625 um2: arrays.main.cols=18,"
    )
    done = hwsim("diff", "toy", "ternary_edge", "--model", export, "--equal-area")
    assert (done.returncode, done.stdout) == (USER_ERROR, "")
    assert done.stderr.startswith("machine toy must state area_um2 of every part; array:main, ")
