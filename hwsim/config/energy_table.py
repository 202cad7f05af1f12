"""`energy: {from: table.csv}` of an array: unit energies from a table beside the machine file.

The columns are action, value, unit, low, high, kind and source; shared, scope, split and calibrated_by may follow. Each
row becomes the quantity that would else be written out, with the table's hash in its source, and every
fault points at the table's line and column.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from hwsim.config.source import Document, KeyPath, Place, dotted, scalar
from hwsim.errors import ConfigError, nearest

FROM = "from"
COLUMNS = ("action", "value", "unit", "low", "high", "kind", "source")
"""columns that every table has; a low or high may be empty"""
OPTIONAL = ("shared", "scope", "split", "calibrated_by")
_NUMBERS = ("value", "low", "high")
_FEMTOJOULES = {"fJ": Decimal(1), "pJ": Decimal(10) ** 3, "nJ": Decimal(10) ** 6}
_KEY = re.compile(r"^(?P<action>\w+?)_fj(_per_(?P<per>\w+))?$")


@dataclass(frozen=True, slots=True)
class _Cell:
    text: str
    place: Place


def with_energy_tables(document: Document) -> Document:
    """Return a document in which every table that an array's `energy` names is written out.

    A relative path starts at the file that names it; one of `--set` at the working directory.

    Raises:
        ConfigError: a table cannot be read or is wrong; all faults of all tables.
    """
    arrays = document.data.get("arrays")
    if not isinstance(arrays, dict):
        return document
    data = {**document.data, "arrays": dict(arrays)}
    values, keys = dict(document.values), dict(document.keys)
    faults: list[str] = []
    for name, array in arrays.items():
        energy = array.get("energy") if isinstance(array, dict) else None
        if not isinstance(energy, dict) or FROM not in energy:
            continue
        path = ("arrays", name, "energy")
        try:
            table = _Table.read(document, (*path, FROM), energy[FROM])
            quantities = table.quantities(_units(array.get("kind")), path)
            twice = next((key for key in quantities if key in energy), None)
            if twice is not None:
                raise ConfigError(
                    f"{document.place((*path, twice), of_key=True)}: {dotted((*path, twice))}: is given twice;"
                    f" the other is at {table.rows[quantities[twice].row][0].place}"
                )
        except ConfigError as error:
            faults += error.faults
            continue
        own = {key: value for key, value in energy.items() if key != FROM}
        written = {key: quantity.data for key, quantity in quantities.items()}
        data["arrays"][name] = {**array, "energy": {**own, **written}}
        for places in (values, keys):
            places.pop((*path, FROM), None)
        for key, quantity in quantities.items():
            values[(*path, key)] = keys[(*path, key)] = quantity.places["action"]
            for part in quantity.data:
                here = (*path, key, part)
                values[here] = keys[here] = quantity.places[part]
    if faults:
        raise ConfigError(faults)
    return Document(data, values, keys)


@dataclass(frozen=True, slots=True)
class _Quantity:
    row: int
    data: dict[str, Any]
    places: dict[str, Place]


def _units(kind: object) -> dict[str, tuple[str, str]]:
    """Return action -> (key of `energy`, what its energy is per) of a kind of array; of all where it is unknown."""
    from hwsim import registry
    from hwsim.arch.machine_spec import array_class

    kinds = [kind] if kind in registry.kinds("array") else registry.kinds("array")
    found: dict[str, tuple[str, str]] = {}
    for each in kinds:
        spec: Any = array_class(each).spec_class.model_fields["energy"].annotation
        for key in spec.model_fields:
            match = _KEY.match(key)
            if match is not None:
                found[match["action"]] = (key, match["per"] or "op")
    return found


@dataclass(frozen=True)
class _Table:
    """A table as text: the cells of its header and of its rows, with their places."""

    file: Path
    sha256: str
    header: list[_Cell]
    rows: list[list[_Cell]]

    @classmethod
    def read(cls, document: Document, at: KeyPath, name: object) -> _Table:
        place = document.place(at)
        if not isinstance(name, str) or not name.endswith(".csv"):
            raise ConfigError(f"{place}: {dotted(at)}: must be a .csv file, not {name!r}")
        file = (Path(place.origin).parent if place.line else Path()) / name
        try:
            raw = file.read_bytes()
            text = raw.decode("utf-8-sig")
        except OSError as error:
            raise ConfigError(
                f"{place}: {dotted(at)}: {file} cannot be read: {error.strerror}"
            ) from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file}: must be UTF-8 text: {error.reason}") from None
        rows = [row for row in _cells(text, str(file)) if any(cell.text for cell in row)]
        if not rows:
            raise ConfigError(f"{file}:1:1: must start with the columns {', '.join(COLUMNS)}")
        return cls(file, hashlib.sha256(raw).hexdigest(), rows[0], rows[1:])

    def quantities(self, units: dict[str, tuple[str, str]], path: KeyPath) -> dict[str, _Quantity]:
        """Return the quantities by key of `energy`.

        Raises:
            ConfigError: all faults of the table.
        """
        faults = list(self._header_faults())
        if faults:
            raise ConfigError(faults)
        found: dict[str, _Quantity] = {}
        for index, row in enumerate(self.rows):
            if len(row) != len(self.header):
                faults.append(
                    f"{row[0].place}: must have {len(self.header)} cells as the header has, not {len(row)}"
                )
                continue
            cells = {column.text: cell for column, cell in zip(self.header, row, strict=True)}
            try:
                key, quantity = self._quantity(index, cells, units)
            except ConfigError as error:
                faults += error.faults
                continue
            if key in found:
                first = self.rows[found[key].row][0].place
                faults.append(
                    f"{cells['action'].place}: action: {cells['action'].text!r} is given twice; the first is at {first}"
                )
            found[key] = quantity
        if faults:
            raise ConfigError(faults)
        return found

    def _header_faults(self) -> Iterator[str]:
        names = [cell.text for cell in self.header]
        known = (*COLUMNS, *OPTIONAL)
        wrong = [cell for cell in self.header if cell.text not in known]
        for cell in wrong:
            yield f"{cell.place}: must be a known column, not {cell.text!r}{nearest(cell.text, known)}"
        for index, cell in enumerate(self.header):
            if cell.text in names[:index]:
                yield f"{cell.place}: column {cell.text!r} is given twice"
        missing = [column for column in COLUMNS if column not in names]
        if missing and not wrong:
            yield f"{self.header[0].place}: must have the columns {', '.join(COLUMNS)}; lacks {', '.join(missing)}"

    def _quantity(
        self, index: int, cells: dict[str, _Cell], units: dict[str, tuple[str, str]]
    ) -> tuple[str, _Quantity]:
        action, unit = cells["action"], cells["unit"]
        if action.text not in units:
            raise ConfigError(
                f"{action.place}: action: must be one of {', '.join(units)}, not {action.text!r}"
                f"{nearest(action.text, list(units))}"
            )
        key, per = units[action.text]
        name, _, each = unit.text.partition("/")
        if name not in _FEMTOJOULES or each != per:
            fitting = ", ".join(f"{size}/{per}" for size in _FEMTOJOULES)
            shown = repr(unit.text) if unit.text else "an empty cell"
            raise ConfigError(
                f"{unit.place}: unit: of {action.text} must be one of {fitting}, not {shown}"
            )
        data: dict[str, Any] = {}
        faults = []
        for column, cell in cells.items():
            may_be_empty = column in ("low", "high", *OPTIONAL)
            if column in ("action", "unit") or (not cell.text and may_be_empty):
                continue
            if column not in _NUMBERS:
                data[column] = cell.text
            elif isinstance(scalar(cell.text), int | float) and not isinstance(
                scalar(cell.text), bool
            ):
                # Exact in decimal, then rounded once: the same float as the number in fJ would be.
                data[column] = float(Decimal(str(cell.text)) * _FEMTOJOULES[name])
            else:
                shown = repr(cell.text) if cell.text else "an empty cell"
                faults.append(f"{cell.place}: {column}: must be a number, not {shown}")
        if faults:
            raise ConfigError(faults)
        if data["source"]:
            data["source"] = f"{data['source']} [{self.file.name}, SHA-256 {self.sha256[:16]}]"
        places = {column: cell.place for column, cell in cells.items()}
        return key, _Quantity(index, data, places)


def _cells(text: str, origin: str) -> Iterator[list[_Cell]]:
    """Yield the rows of comma-separated text (RFC 4180), each cell with its place; blanks around it are dropped.

    Raises:
        ConfigError: a quoted cell has no end, or something behind its end.
    """
    line, start, position = 1, 0, 0  # `start` is where the line starts
    row: list[_Cell] = []
    while position < len(text):
        place = Place(origin, line, position - start + 1)
        if text[position] == '"':
            content = []
            while True:
                end = text.find('"', position + 1)
                if end < 0:
                    raise ConfigError(f"{place}: a quoted cell must end with a quotation mark")
                content.append(text[position + 1 : end])
                line += text.count("\n", position, end)
                start = max(start, text.rfind("\n", 0, end) + 1)
                position = end + 1
                if text[position : position + 1] != '"':
                    break
                content.append('"')
            cell = "".join(content)
        else:
            match = re.compile(r"[^,\r\n]*").match(text, position)
            cell = match[0] if match is not None else ""
            position += len(cell)
        row.append(_Cell(cell.strip(), place))
        behind = re.compile(r"[ \t]*(,|\r?\n|$)").match(text, position)
        if behind is None:
            raise ConfigError(
                f"{Place(origin, line, position - start + 1)}: must be a comma or the end of the line behind a cell"
            )
        position = behind.end()
        if behind[1] == ",":
            if position == len(text):
                row.append(_Cell("", Place(origin, line, position - start + 1)))
            continue
        line, start = line + 1, position
        yield row
        row = []
    if row:
        yield row
