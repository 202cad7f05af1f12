"""Golden vectors of one contraction: what its array receives in a compute step, and what must come out.

Every number is that of the bit-accurate run: operands and codes are tensors that the machine computed, and
accumulators are the array's own sums over K up to the end of the tile. `docs/for-chip-builders.md` has the
layout of the files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hwsim.arch.encoding import bit_patterns, encoding_of
from hwsim.arch.machine import Machine
from hwsim.errors import DataError, nearest
from hwsim.graph.dtype import int_
from hwsim.graph.serialize import Model
from hwsim.report.plain import say
from hwsim.rtl import TILE_LIMIT
from hwsim.rtl.epilogue import positions_behind
from hwsim.rtl.memh import WordFile, write_words
from hwsim.rtl.product import Array, MappedProduct, Operand, Step
from hwsim.rtl.session import Session
from hwsim.rtl.words import BEAT_FIELDS, beat_words, operand_words

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = "hwsim/vectors/1"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Vectors:
    """The vectors of one contraction and one sample.

    Args:
        session: the model on its machine, mapped for this sample's length.
        product: the contraction.
        sample: number of the sample.
        tensors: every tensor of the sample, [1, *shape].
    """

    session: Session
    product: MappedProduct
    sample: int
    tensors: dict[str, Array]

    @cached_property
    def operands(self) -> tuple[Array, Array]:
        """Codes [batch, M, K] and [batch, N, K]."""
        return self.product.codes(self.tensors)

    @cached_property
    def results(self) -> Array:
        """The contraction's own tensor, accumulators as they are read out: [batch, M, N]."""
        batch, m, n, _ = self.product.shape
        return self.tensors[self.product.node.name].reshape(batch, m, n)

    @cached_property
    def codes(self) -> Array | None:
        """What the operators behind the array make of `results`, where they stand: [batch, M, N]."""
        if not self.product.fused:
            return None
        final = self.tensors[self.product.fused[-1]].reshape(-1)
        codes = np.empty(self.results.size, final.dtype)
        codes[positions_behind(self.product, self.tensors)] = final
        return codes.reshape(self.results.shape)

    def accumulators(self, step: Step, k: int) -> Array:
        """Return what the accumulators of a step hold once K positions up to `k` are summed: [tm, tn]."""
        a, w = (x[step.batch] for x in self.operands)
        if k == 0:
            return np.zeros((len(step.m), len(step.n)), np.int64)
        return self.product.array.accumulators(
            np.ascontiguousarray(a[step.m.start : step.m.stop, :k]),
            np.ascontiguousarray(w[step.n.start : step.n.stop, :k]),
            *self.product.types,
            where=f"operator {self.product.node.name}",
        )

    def write(self, folder: Path, steps: Sequence[Step]) -> dict[str, Any]:
        """Write the vectors of some compute steps, and return the manifest, which is written last."""
        tiles = [self._write_step(folder, step) for step in steps]
        manifest = {**self._describe(), "tiles": tiles}
        text = json.dumps(manifest, indent=2) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        return manifest

    def _describe(self) -> dict[str, Any]:
        p, session = self.product, self.session
        batch, m, n, k = p.shape
        spec = p.array.spec
        out = p.graph.tensors[p.fused[-1] if p.fused else p.node.name].dtype
        activation, weight = p.operands
        return {
            "schema": SCHEMA,
            "model": session.model.name,
            "machine": session.machine.name,
            "hashes": session.hashes(),
            "operator": {"name": p.node.name, "op": p.node.op, "fused": list(p.fused)},
            "sample": self.sample,
            "sequence_length": session.length,
            "product": {"batch": batch, "m": m, "n": n, "k": k},
            "mapping": {"tile": list(p.tile), "order": p.order, "block": list(p.block)},
            "array": {
                "name": p.array.name,
                "kind": spec.kind,
                "block": list(p.array.block(*p.types)),
                "passes": p.array.passes(*p.types),
                "pipeline_depth_cycles": spec.pipeline_depth_cycles,
                "zero_skipping": spec.zero_skipping,
            },
            "activation": activation.to_json(),
            "weight": weight.to_json(),
            "accumulator": {"bits": spec.accumulator_bits, "overflow": spec.overflow},
            "result": {"type": p.graph.tensors[p.node.name].dtype.name},
            "codes": {"type": out.name, "encoding": encoding_of(out)} if p.fused else None,
            "beat_fields": [{"name": name, "bits": bits} for name, bits in BEAT_FIELDS],
            "bit_order": "LSB first: position 0 of a word is in its least significant bits",
        }

    def _write_step(self, folder: Path, step: Step) -> dict[str, Any]:
        p = self.product
        a, w = (x[step.batch] for x in self.operands)
        a, w = a[step.m.start : step.m.stop], w[step.n.start : step.n.stop]
        a, w = a[:, step.k.start : step.k.stop], w[:, step.k.start : step.k.stop]
        beats = list(p.beats(step, w))
        name = f"tile_{step.index:05d}"
        files: dict[str, WordFile] = {}

        def put(what: str, words: Sequence[int], bits: int, *layout: str) -> None:
            where = f"{p.node.name}, sample {self.sample}, tile {step.index}: {what}"
            files[what] = write_words(folder, f"{name}/{what}.memh", words, bits, (where, *layout))

        for operand, codes in zip(p.operands, (a, w), strict=True):
            words = operand_words(operand, operand.patterns(codes), beats)
            put(operand.port, words, operand.width_bits, *_operand_layout(operand))
        fields = ", ".join(f"{field}:{bits}" for field, bits in BEAT_FIELDS)
        put("beats", beat_words(beats), sum(b for _, b in BEAT_FIELDS),
            f"a word a beat, fields with their bits, the first least significant: {fields}")  # fmt: skip
        have = p.array.spec.accumulator_bits
        rows = f"row-major: {len(step.m)} rows of {len(step.n)} columns, one a line"
        for what, end in (("start", step.k.start), ("accumulators", step.k.stop)):
            held = self.accumulators(step, end)
            put(what, _numbers(held, have), have, f"accumulators, two's complement, {rows}")
        complete = step.k.stop == p.shape[3]
        place = (step.batch, slice(step.m.start, step.m.stop), slice(step.n.start, step.n.stop))
        if complete:
            out = p.graph.tensors[p.node.name].dtype
            put("results", _numbers(self.results[place], out.bits), out.bits,
                f"accumulators as they are read out, {out}, two's complement, {rows}")  # fmt: skip
        if complete and self.codes is not None:
            out = p.graph.tensors[p.fused[-1]].dtype
            patterns = bit_patterns(self.codes[place], out, encoding_of(out))
            put("codes", [int(x) for x in patterns.reshape(-1)], out.bits,
                f"codes after {', '.join(p.fused)}: {out}, {encoding_of(out)}, {rows}")  # fmt: skip
        cycles = len(beats) * p.interval(step)
        return {
            "index": step.index,
            "batch": step.batch,
            **{x: [r.start, r.stop] for x, r in (("m", step.m), ("n", step.n), ("k", step.k))},
            "completes_k": complete,
            "beats": len(beats),
            "interval_cycles": p.interval(step),
            "busy_cycles": cycles,
            "done_cycle": cycles + p.array.spec.pipeline_depth_cycles,
            "files": {what: file.to_json() for what, file in files.items()},
        }


@dataclass(frozen=True)
class Written:
    """Vectors that were written."""

    folder: Path
    manifest: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the manifest."""
        return self.manifest

    def render(self, console: Console) -> None:
        """Print what was written, a line a tile."""
        m = self.manifest
        operator, array = m["operator"], m["array"]
        say(
            console,
            f"{operator['name']} of {m['model']} on {array['name']} of {m['machine']}"
            f" ({array['kind']}), sample {m['sample']}: {m['activation']['type']} x {m['weight']['type']}",
        )
        for tile in m["tiles"]:
            ranges = ", ".join(f"{x} {tile[x][0]}..{tile[x][1] - 1}" for x in "mnk")
            say(
                console,
                f"  tile {tile['index']}: batch {tile['batch']}, {ranges}; {tile['beats']} beats,"
                f" done at cycle {tile['done_cycle']}"
                + ("" if tile["completes_k"] else "; K goes on in a later tile"),
            )
        files = sum(len(tile["files"]) for tile in m["tiles"])
        say(console, f"{files} files and {MANIFEST} in {self.folder}")


def write_vectors(
    model: Model | Path | str,
    machine: Machine | str,
    operator: str,
    tile: int | Literal["all"],
    folder: Path,
    sample: int = 0,
    limit: int = TILE_LIMIT,
    overrides: Sequence[str] = (),
) -> Written:
    """Write the golden vectors of a contraction's tiles on one sample.

    Args:
        model: an export folder, or one that is loaded.
        machine: a shipped machine's name, a YAML file, or a loaded machine.
        operator: name of the contraction.
        tile: number of the compute step, or all of them.
        folder: where to; must not be there, or be empty.
        sample: number of a stored sample, whose length the mapping is for.
        limit: most tiles that `all` may be.
        overrides: `key=value` changes of the machine.

    Raises:
        DataError: there is no such operator, sample or tile, there are too many tiles, or the folder holds something.
        GraphError: the kind of array has beats of its own.
        OverflowRefused: an accumulator left its range under the rule `error`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: must be an empty folder, or not be there")
    session = Session(model, machine, overrides, range(sample, sample + 1))
    if operator not in session.rows:
        known = list(session.rows)
        raise DataError(
            f"operator must be a contraction of the model ({', '.join(known[:4])}, ...), not {operator!r}"
            f"{nearest(operator, known)}"
        )
    product = session.product(operator, session.length)
    if tile == "all":
        if product.tiles > limit:
            raise DataError(
                f"{operator} has {product.tiles} tiles, more than the limit of {limit}:"
                " give one number, or a higher --limit"
            )
    elif not 0 <= tile < product.tiles:
        raise DataError(f"{operator} has tiles 0 to {product.tiles - 1}, not {tile}")
    steps = [s for s in product.steps() if tile in ("all", s.index)]
    vectors = Vectors(session, product, sample, session.execute(sample))
    return Written(folder, vectors.write(folder, steps))


def _numbers(values: Array, bits: int) -> list[int]:
    """Return integers in two's complement."""
    return [int(x) for x in bit_patterns(values, int_(bits), "twos_complement").reshape(-1)]


def _operand_layout(operand: Operand) -> list[str]:
    row = "row" if operand.port == "activation" else "column"
    lines = [
        f"a word a beat: {operand.rows} {row}s x {operand.lanes} lanes of {operand.pass_bits} bits; {row} i, lane l in bits"
        f" (i*{operand.lanes} + l)*{operand.pass_bits} upwards; unused positions are 0",
        f"{operand.dtype}, {operand.encoding}",
    ]
    if operand.planes > 1:
        lines.append(f"{operand.planes} planes, the least significant first; beats.memh names them")
    return lines
