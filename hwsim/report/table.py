"""On the console: a result (totals, operators, energy by component, memory, what is left out), an export's sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from hwsim.report.plain import Table, say

TOP = 12
"""Operators shown, those with the most energy first."""

_ENERGY_STEPS = ((1e12, "J"), (1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ"))
_TIME_STEPS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def energy_text(pj: float) -> str:
    """Write an energy given in pJ with a unit that keeps it readable.

    >>> energy_text(50_179_487.2), energy_text(12.0)
    ('50.2 uJ', '12 pJ')
    """
    factor, unit = energy_unit(pj)
    return f"{pj / factor:.3g} {unit}"


def energy_unit(pj: float) -> tuple[float, str]:
    """Return the largest unit that an energy in pJ reaches, and how many pJ it is."""
    for factor, unit in _ENERGY_STEPS:
        if abs(pj) >= factor:
            return factor, unit
    return 1.0, "pJ"


def time_text(seconds: float) -> str:
    """Write a time with a unit that keeps it readable.

    >>> time_text(0.000485)
    '485 us'
    """
    for factor, unit in _TIME_STEPS:
        if abs(seconds) >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def bytes_text(count: int) -> str:
    """Write a number of bytes in binary units.

    >>> bytes_text(80048), bytes_text(512)
    ('78.2 KiB', '512 B')
    """
    if count >= 1 << 20:
        return f"{count / (1 << 20):.1f} MiB"
    return f"{count / (1 << 10):.1f} KiB" if count >= 1 << 10 else f"{count} B"


def length_text(tokens: int) -> str:
    """Write how long the costed inference is, for the end of a head; nothing where that decides nothing.

    >>> length_text(12), length_text(1)
    (', an inference of 12 tokens', '')
    """
    return f", an inference of {tokens:,} tokens" if tokens > 1 else ""


def print_result(result: Mapping[str, Any], console: Console | None = None, top: int = TOP) -> None:
    """Print a result as `Result.to_json` makes it, or with what `hwsim.run` adds to it.

    Args:
        result: the result.
        console: where to; the terminal when None.
        top: how many operators to list.
    """
    console = console or Console()
    say(console, _totals(result))
    say(console, _operators(result, top))
    say(console, _components(result))
    say(console, _memory(result))
    if result["memory"]["spills"]:
        say(console, _spills(result["memory"]["spills"], top))
    for note in result["notes"]:
        say(console, f"note: {note}")
    say(console, "not modelled: " + "; ".join(result["not_modelled"]))


def _band_text(band: Mapping[str, float]) -> str:
    low, high = energy_text(band["low"]), energy_text(band["high"])
    return f"{energy_text(band['nominal'])} ({low} .. {high})"


def _value_text(value: object) -> str:
    """Write a metric, an interval or a group of metrics on one line."""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value_text(v)}" for name, v in value.items())
    if isinstance(value, list | tuple):
        return " .. ".join(_value_text(v) for v in value)
    return str(value)


def _totals(result: Mapping[str, Any]) -> Table:
    title = f"{result['model']} on {result['machine']}{length_text(result['sequence_length'])}"
    table = Table(title=title, show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    accuracy = result["accuracy"]
    if accuracy is not None:
        for name, value in accuracy.items():
            table.add_row(str(name), _value_text(value))
    point = result["operating_point"]
    if point is not None:
        at = f"{point['voltage_v']:g} V, {point['clock_hz'] / 1e6:g} MHz"
        table.add_row(f"operating point {point['name']}", at)
    for scenario in ("steady", "cold"):
        cycles, seconds = result["latency_cycles"][scenario], result["latency_s"][scenario]
        table.add_row(f"latency, {scenario}", f"{cycles:,} cycles = {time_text(seconds)}")
    table.add_row("energy, steady (5 .. 95 %)", _band_text(result["energy_pj"]))
    table.add_row("energy, cold (5 .. 95 %)", _band_text(result["energy_cold_pj"]))
    table.add_row("of it on assumed figures", f"{result['share_assumed_frac']:.0%}")
    mapping = result["mapping"]
    gaps = ", ".join(f"{mapping[name]['gap_frac']:.2%} {name}" for name in ("steady", "cold"))
    table.add_row(f"mapped for {mapping['objective']}, at most above the best", gaps)
    for name, array in result["arrays"].items():
        share = f"{array['cycles_frac']:.1%} of cycles, {array['energy_frac']:.1%} of energy"
        table.add_row(f"array {name}", share)
    return table


def _operators(result: Mapping[str, Any], top: int) -> Table:
    rows = sorted(result["operators"], key=lambda o: (-o["energy_pj"]["nominal"], o["node"]))
    table = Table(title=f"Operators with the most energy ({min(top, len(rows))} of {len(rows)})")
    table.add_column("node", overflow="fold", min_width=30)  # the end of a name tells nodes apart
    table.add_column("operator")
    for name in ("cycles", "waiting", "bound by", "utilisation", "energy"):
        table.add_column(name, justify="right")
    for o in rows[:top]:
        table.add_row(
            o["node"],
            "+".join((o["op"], *(["..."] if o["fused"] else []))),
            f"{o['cycles']:,}",
            f"{o['stall_cycles']:,}",
            o["binding"],
            f"{o['utilisation_frac']:.1%}",
            energy_text(o["energy_pj"]["nominal"]),
        )
    return table


def _components(result: Mapping[str, Any]) -> Table:
    bands = result["energy_by_component_pj"]
    total = result["energy_pj"]["nominal"]
    table = Table(title="Energy by component, steady")
    table.add_column("component")
    table.add_column("share", justify="right")
    table.add_column("energy (5 .. 95 %)", justify="right")
    for name, band in sorted(bands.items(), key=lambda item: (-item[1]["nominal"], item[0])):
        share = band["nominal"] / total if total else 0.0
        table.add_row(name, f"{share:.1%}", _band_text(band))
    return table


def _memory(result: Mapping[str, Any]) -> Table:
    memory = result["memory"]
    table = Table(title="Memory", show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_row("weights, thresholds, tables", bytes_text(memory["weight_bytes"]))
    table.add_row("of them resident on chip", bytes_text(memory["resident_bytes"]))
    table.add_row("peak activations", bytes_text(memory["peak_activation_bytes"]))
    spills = memory["spills"]
    spilled = sum(spill["bytes"] for spill in spills.values())
    table.add_row("spilled to DRAM", f"{len(spills)} tensors, {bytes_text(spilled)}")
    cache = result.get("cache")
    if cache is not None:
        per_token = f"{cache['bytes_per_token']:,.6g} B a token"
        table.add_row(
            "key-value cache, decoding", f"{bytes_text(int(cache['bytes']))}, {per_token}"
        )
    for level, size in memory["traffic_bytes"].items():
        table.add_row(f"traffic {level}", bytes_text(size))
    return table


def _spills(spills: Mapping[str, Mapping[str, Any]], top: int) -> Table:
    """List what the spilled tensors cost; it is in the operators' numbers already."""
    rows = sorted(spills.items(), key=lambda item: (-item[1]["energy_pj"]["nominal"], item[0]))
    table = Table(
        title=f"Spilled to DRAM, the most energy first ({min(top, len(rows))} of {len(rows)})"
    )
    table.add_column("tensor", overflow="fold", min_width=30)
    for name in ("bytes", "written", "read", "cycles of the link", "energy"):
        table.add_column(name, justify="right")
    for name, spill in rows[:top]:
        table.add_row(
            name,
            *(bytes_text(spill[key]) for key in ("bytes", "written_bytes", "read_bytes")),
            f"{spill['cycles']:,}",
            energy_text(spill["energy_pj"]["nominal"]),
        )
    return table


def print_sizes(sizes: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the bytes of an export as `Sizes.to_json` makes them: constants, kinds, files.

    Args:
        sizes: the sizes.
        console: where to; the terminal when None.
    """
    console = console or Console()
    constants = Table(title=f"{sizes['model']}: constants in weights.safetensors")
    constants.add_column("name", overflow="fold", min_width=30)
    for name in ("operator", "role", "format"):
        constants.add_column(name)
    for name in ("shape", "bytes"):
        constants.add_column(name, justify="right")
    for c in sizes["constants"]:
        shape = " x ".join(str(d) for d in c["shape"])
        constants.add_row(c["name"], c["op"], c["role"], c["format"], shape, f"{c['bytes']:,}")
    say(console, constants)

    kinds = Table(title="By kind")
    for name in ("operator", "role", "format"):
        kinds.add_column(name)
    for name in ("constants", "elements", "bytes"):
        kinds.add_column(name, justify="right")
    for k in sizes["kinds"]:
        counts = (f"{k[name]:,}" for name in ("constants", "elements", "bytes"))
        kinds.add_row(k["op"], k["role"], k["format"], *counts)
    say(console, kinds)

    files = Table(title="Files", show_header=False)
    files.add_column("what")
    files.add_column("bytes", justify="right")
    for name, size in sizes["file_bytes"].items():
        files.add_row(name, f"{size:,}")
    files.add_row("names and places of the constants, of it", f"{sizes['header_bytes']:,}")
    for what, key in (("graph, weights and manifest", "model_bytes"), ("whole folder", "folder_bytes")):  # fmt: skip
        files.add_row(what, f"{sizes[key]:,} = {sizes[key] / (1 << 20):.2f} MiB")
    say(console, files)
