"""`extends:` and `--set`: what wins, what is replaced as a whole, and who is blamed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hwsim.config.compose import compose
from hwsim.config.load import (
    build_machine,
    changed_machine,
    list_machines,
    load_machine,
    machine_bases,
)
from hwsim.errors import ConfigError


def write(folder: Path, **files: str) -> Path:
    """Write files by name and return the first."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder / f"{next(iter(files))}.yaml"


def test_mappings_merge_and_the_rest_is_replaced(tmp_path: Path) -> None:
    top = write(
        tmp_path,
        top="extends: base\na: {x: 1}\nl: [3]\n",
        base="a: {x: 0, y: 2}\nl: [1, 2]\nz: 5\n",
    )
    document = compose(top)
    assert document.data == {"a": {"x": 1, "y": 2}, "l": [3], "z": 5}
    assert str(document.place(("a", "x"))) == f"{top}:2:8"
    assert str(document.place(("a", "y"))) == f"{tmp_path / 'base.yaml'}:1:14"


def test_a_mapping_that_states_its_kind_replaces_the_whole(tmp_path: Path) -> None:
    top = write(
        tmp_path,
        top="extends: base.yaml\nq: {value: 9, kind: assumed}\n",
        base="q: {value: 1, low: 0.5, high: 2, kind: model}\n",
    )
    assert compose(top).data["q"] == {"value": 9, "kind": "assumed"}


def test_a_user_file_may_extend_the_shipped_one_of_the_same_name(tmp_path: Path) -> None:
    path = write(tmp_path, toy="extends: toy\nclock_hz: 7\n")
    assert load_machine(path).spec.clock_hz == 7


@pytest.mark.parametrize(
    "files", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "a"}]
)
def test_a_circle_is_named(files: dict[str, str], tmp_path: Path) -> None:
    path = write(tmp_path, **{name: f"x: 1\nextends: {base}\n" for name, base in files.items()})
    last = tmp_path / f"{list(files)[-1]}.yaml"
    circle = " -> ".join(f"{name}.yaml" for name in [*files, "a"])
    with pytest.raises(ConfigError) as caught:
        compose(path)
    assert caught.value.faults == (f"{last}:2:10: extends: must not come back to itself: {circle}",)


def test_a_base_that_is_not_there_gets_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, m="extends: base/edge_platfrom\n")
    with pytest.raises(
        ConfigError, match=r"m\.yaml:1:10: extends: .*did you mean 'base/edge_platform'"
    ):
        load_machine(path)


def test_faults_in_a_base_point_into_the_base(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        m="extends: mine\nclock_hz: 0\n",
        mine="extends: toy\ndma: {channels: none, overhead_cycles: 1}\n",
    )
    with pytest.raises(ConfigError) as caught:
        load_machine(path)
    assert sorted(caught.value.faults) == [
        f"{path}:2:11: clock_hz: must be greater than 0, not 0",
        f"{tmp_path / 'mine.yaml'}:2:17: dma.channels: must be a whole number, not 'none'",
    ]


def test_overrides_reach_mappings_lists_and_new_keys() -> None:
    spec = load_machine(
        "toy",
        [
            "arrays.main.rows=2",
            "arrays.main.formats.1.activation=UINT4",
            "not_modelled=[a, b]",
            "dma.energy_pj_per_bit={value: 1.5, kind: assumed, source: test}",
        ],
    ).spec
    assert spec.arrays["main"].formats[1].activation == "UINT4"
    assert spec.not_modelled == ["a", "b"]
    assert spec.dma.energy_pj_per_bit.value == 1.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rows", "--set rows: must be PATH=VALUE"),
        ("a..b=1", "--set a..b=1: must be PATH=VALUE"),
        ("name.x=1", "--set name.x=1: name is 'toy', so it has no key 'x'"),
        (
            "arrays.main.formats.9.weight=INT4",
            "--set arrays.main.formats.9.weight=INT4: arrays.main.formats is a list of 2",
        ),
        ("clock_mhz=5", "--set clock_mhz=5: clock_mhz: must be a known key"),
        (
            "arrays.main.energy.lane_op_fj=3",
            "--set arrays.main.energy.lane_op_fj=3: arrays.main.energy.lane_op_fj:"
            " must be a mapping with value, kind and source",
        ),
        ("arrays.main.rows=x", "--set arrays.main.rows=x: arrays.main.rows: must be a whole"),
    ],
)
def test_a_wrong_override_is_blamed_itself(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_machine("toy", [override])
    (fault,) = caught.value.faults
    assert fault.startswith(message), fault


def test_a_new_size_needs_new_numbers_or_a_function_or_insistence() -> None:
    with pytest.raises(ConfigError) as caught:
        load_machine("toy", ["memories.buffer.capacity_bytes=16KiB"])
    (fault,) = caught.value.faults
    assert re.match(
        r"--set memories.buffer.capacity_bytes=16KiB: memories.buffer.capacity_bytes:"
        r" must come with new read_pj, write_pj, leakage_mw, with `scaling:`",
        fault,
    )
    insisted = load_machine(
        "toy", ["memories.buffer.capacity_bytes=16KiB", "memories.buffer.fixed=true"]
    )
    assert insisted.memories["buffer"].read_pj.value == 1.0
    # The edge machines state the function: four times the capacity is 4^0.78 times the access energy.
    here, there = (
        load_machine("xnor_edge", [f"memories.weight_sram.capacity_bytes={size}"])
        for size in ("64KiB", "256KiB")
    )
    ratio = there.memories["weight_sram"].read_pj.value / here.memories["weight_sram"].read_pj.value
    assert ratio == pytest.approx(4**0.78, rel=1e-12)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (
            "memories: {weights_sram: {capacity_bytes: 1MiB}}",
            "2:12: memories.weights_sram: a new memory beside the inherited activation_sram, weight_sram;"
            " did you mean 'weight_sram'?",
        ),
        (
            "arrays: {mian: {rows: 8}}",
            "2:10: arrays.mian: a new array beside the inherited main, dot; did you mean 'main'?",
        ),
    ],
)
def test_a_slip_in_an_inherited_name_is_told_before_all_that_it_lacks(
    entry: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: ternary_edge\n{entry}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_machine(path)
    first, *others = caught.value.faults
    assert first == f"{path}:{says}"
    assert others


def test_an_incomplete_part_is_called_new_only_beside_others_of_another_file(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_machine("ternary_edge", ["memories.weight_sram.capacity_bytes=none"])
    assert "a new memory" not in str(caught.value)
    alone = tmp_path / "alone.yaml"
    alone.write_text("memories: {a: {capacity_bytes: 1KiB}, b: {}}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_machine(alone)
    assert "memories.a.read_pj: must be given" in str(caught.value)
    assert "a new memory" not in str(caught.value)


def test_an_array_of_another_size_scales_area_or_is_refused() -> None:
    twice = load_machine("xnor_edge", ["arrays.main.rows=16"]).arrays["main"]
    once = load_machine("xnor_edge").arrays["main"]
    assert twice.area_um2 is not None
    assert once.area_um2 is not None
    assert twice.area_um2.value == 2 * once.area_um2.value
    with pytest.raises(ConfigError, match=r"arrays\.dot\.cols: must come with new area_um2"):
        load_machine("xnor_edge", ["arrays.dot.cols=8"])


def test_every_shipped_machine_loads_and_says_what_it_is() -> None:
    shipped = [*list_machines(published=False), *list_machines(published=True)]
    for name, description in shipped:
        machine = load_machine(name)
        assert machine.spec.name == name
        assert description == machine.spec.description
        assert machine.spec.not_modelled


def test_settings_as_data_are_overrides_as_text() -> None:
    texts = [
        "clock_hz=200000000",
        "memories.weight_sram.capacity_bytes=64KiB",
        "arrays.main.formats=[{activation: INT8, weight: TERNARY}]",
        "dma.energy_pj_per_bit={value: 0.1, kind: assumed, source: why}",
        "dram.preset=hbm2",
    ]
    settings: list[tuple[str, object]] = [
        ("clock_hz", 200_000_000),
        ("memories.weight_sram.capacity_bytes", "64KiB"),
        ("arrays.main.formats", [{"activation": "INT8", "weight": "TERNARY"}]),
        ("dma.energy_pj_per_bit", {"value": 0.1, "kind": "assumed", "source": "why"}),
        ("dram.preset", "hbm2"),
    ]
    bases = machine_bases("ternary_edge")
    before = repr(bases.data)
    made = build_machine(changed_machine(bases, settings))
    assert made.sha256 == load_machine("ternary_edge", texts).sha256
    assert repr(bases.data) == before
    with pytest.raises(ConfigError) as error:
        build_machine(changed_machine(bases, [("dma.energy_pj_per_bit", {"valeu": 1})]))
    assert "dma.energy_pj_per_bit={'valeu': 1}: dma.energy_pj_per_bit" in str(error.value)
    with pytest.raises(ConfigError, match="must be PATH=VALUE"):
        changed_machine(bases, [("dma..channels", 1)])


def test_a_name_that_no_file_system_takes_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"extends: {'x' * 3000}\nname: y\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="extends: must be a YAML file beside this one"):
        load_machine(path)
    with pytest.raises(ConfigError, match="machine must be a YAML file or one of"):
        load_machine("y" * 4000)
