"""`hwsim new`: a file that extends a machine is that machine, changed as asked, and what it offers to change may be changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from hwsim.cli import app
from hwsim.config.compose import compose, difference
from hwsim.config.dump import to_flow, to_yaml
from hwsim.config.load import load_machine, machine_files
from hwsim.config.source import parse_yaml
from hwsim.config.starter import write_starter
from hwsim.errors import ConfigError

OFFERED = re.compile("#(  )?\\w+:")
SHIPPED = [path.stem for path in machine_files()]


def described(file: Path | str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Return all that a machine is, but for what it is called."""
    spec = load_machine(file, overrides or []).spec.model_dump(mode="json")
    return {key: value for key, value in spec.items() if key not in ("name", "description")}


@pytest.mark.parametrize("base", SHIPPED)
def test_as_written_and_with_all_that_it_offers_it_is_the_machine_that_it_extends(
    base: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    write_starter(file, base)
    assert load_machine(file).spec.name == "mine"
    assert described(file) == described(base)
    lines = file.read_text(encoding="utf-8").splitlines()
    offered = [line for line in lines if OFFERED.match(line)]
    assert offered[0].startswith("#clock_hz: ")
    uncovered = "\n".join(
        line[1:] if line in offered and not line.startswith("#dram") else line for line in lines
    )
    file.write_text(uncovered, encoding="utf-8")
    assert described(file) == described(base)


@pytest.mark.parametrize("base", ["ternary_edge", "toy", "bitserial_edge"])
def test_every_size_that_it_offers_may_be_another(base: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    write_starter(file, base)
    lines = file.read_text(encoding="utf-8").splitlines()
    offered = "\n".join(line[1:] for line in lines if OFFERED.match(line))
    known = parse_yaml(offered, "offered").data
    for section in ("arrays", "memories"):
        for name, part in known.get(section, {}).items():
            for size, value in part.items():
                doubled = (
                    f"{section}.{name}.{size}={value * 2 if isinstance(value, int) else '512KiB'}"
                )
                load_machine(file, [doubled])
    load_machine(file, [f"dram.preset={known['dram']['preset']}"])


@pytest.mark.parametrize(
    "overrides",
    [
        ["memories.weight_sram.capacity_bytes=1MiB", "dram.preset=lpddr5_6400_x16"],
        ["arrays.main.formats.0.activation=UINT4", "clock_hz=100000000"],
        ["arrays.main.energy.lane_op_fj.value=30", "technology.voltage_v=0.7"],
        ["idle.clock_pj_per_cycle={value: 1, kind: assumed, source: mine}"],
        ["clock_hz=300000000"],
    ],
    ids=lambda overrides: overrides[0].partition("=")[0],
)  # fmt: skip
def test_what_is_set_is_written(overrides: list[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    write_starter(file, "ternary_edge", overrides)
    assert described(file) == described("ternary_edge", overrides)
    second = tmp_path / "below" / "second.yaml"
    second.parent.mkdir()
    write_starter(second, str(file))
    assert described(second) == described(file)


NAMES = st.sampled_from(["a", "b", "kind", "preset"])
VALUES = st.recursive(
    st.one_of(
        st.integers(-3, 3), st.sampled_from(["x", "1", "no", ""]), st.lists(st.integers(0, 2))
    ),
    lambda inside: st.dictionaries(NAMES, inside, max_size=3),
    max_leaves=8,
)
TREES = st.dictionaries(NAMES, VALUES, max_size=4)


def _with_keys_of(base: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """Return the changed data with the base's keys that it lacks: `extends:` cannot take a key away."""
    whole = dict(changed)
    for key, below in base.items():
        above = whole.setdefault(key, below)
        if (
            isinstance(below, dict)
            and isinstance(above, dict)
            and not {"kind", "preset"} & above.keys()
        ):
            whole[key] = _with_keys_of(below, above)
    return whole


@given(TREES, TREES)
def test_a_base_and_the_difference_are_the_changed_data(
    tmp_path_factory: pytest.TempPathFactory, base: dict[str, Any], changed: dict[str, Any]
) -> None:
    changed = _with_keys_of(base, changed)
    folder = tmp_path_factory.mktemp("composed")
    (folder / "base.yaml").write_text(to_yaml({"z": 0, **base}), encoding="utf-8")
    own = {"extends": "base.yaml", **difference(base, changed)}
    text = "\n".join(f"{key}: {to_flow(value)}" for key, value in own.items())
    (folder / "top.yaml").write_text(text, encoding="utf-8")
    assert compose(folder / "top.yaml").data == {"z": 0, **changed}


def test_the_command_writes_checks_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["new", "mine.yaml", "--extends", "ternary_edge"]
    result = CliRunner().invoke(app, [*command, "--set", "clock_hz=100000000"])
    assert result.exit_code == 0
    assert "mine: ok, 22 nm at 0.8 V, 100 MHz" in result.stdout
    before = Path("mine.yaml").read_text(encoding="utf-8")
    assert isinstance(CliRunner().invoke(app, command).exception, ConfigError)
    assert Path("mine.yaml").read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("file", "base", "override", "fault"),
    [
        ("mine.txt", "toy", "clock_hz=1", r"mine\.txt: the name must end in \.yaml"),
        ("none/mine.yaml", "toy", "clock_hz=1", r"mine\.yaml: cannot be written: No such file"),
        (
            "we ird.yaml",
            "toy",
            "clock_hz=1",
            r"we ird\.yaml: a machine is called as its file; .* not 'we ird'",
        ),
        ("mine.yaml", "tyo", "clock_hz=1", "did you mean 'toy'"),
        ("mine.yaml", "toy", "clck_hz=1", "did you mean 'clock_hz'"),
        ("mine.yaml", "toy", "clock_hz", "must be PATH=VALUE"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_written(
    file: str, base: str, override: str, fault: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=fault):
        write_starter(tmp_path / file, base, [override])
    assert list(tmp_path.iterdir()) == []
