"""docs/for-chip-builders.md: its struct is the layout that is written, and its table is read."""

from __future__ import annotations

import re
from pathlib import Path

from hwsim.config.load import load_machine
from hwsim.rtl.words import BEAT_FIELDS

PAGE = (Path(__file__).parents[2] / "docs" / "for-chip-builders.md").read_text(encoding="utf-8")


def test_the_struct_is_the_layout_of_beats() -> None:
    body = re.search(r"typedef struct packed \{(.*?)\} beat_t;", PAGE, re.DOTALL)
    assert body is not None
    members: list[tuple[str, int]] = []
    for high, names in re.findall(r"logic\s+(?:\[(\d+):0\])?\s*([\w, ]+);", body[1]):
        members += [(name.strip(), int(high or 0) + 1) for name in names.split(",")]
    assert tuple(reversed(members)) == BEAT_FIELDS
    assert f"logic [{sum(bits for _, bits in BEAT_FIELDS) - 1}:0] beats[BEATS]" in PAGE


def test_the_table_of_energies_is_read(tmp_path: Path) -> None:
    machine = re.search(r"```yaml\n(schema: .*?)```", PAGE, re.DOTALL)
    table = re.search(r"```text\n(action,.*?)```", PAGE, re.DOTALL)
    assert machine is not None
    assert table is not None
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "main.csv").write_text(table[1], encoding="utf-8")
    (tmp_path / "m.yaml").write_text(machine[1], encoding="utf-8")
    energy = load_machine(tmp_path / "m.yaml").spec.arrays["main"].energy
    assert (energy.lane_op_fj.low, energy.lane_op_fj.high) == (0.6, 3.1)
    assert energy.operand_register_fj_per_bit.value == 1.0
