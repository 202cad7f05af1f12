"""`hwsim conformance` on arrays of a third party: a good one, and one for every promise that can be broken."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from hwsim import registry
from hwsim.cli import main
from hwsim.config.load import load_machine
from hwsim.conformance import check_array

PACKAGE = '''
from dataclasses import replace
from typing import Literal

import numpy as np

from hwsim.arch.component import ArraySpec
from hwsim.arch.work import Fetches
from hwsim.arch.int_array import IntArray
from hwsim.graph.numeric import NumericProfile
from hwsim.registry import register


class NibbleSpec(ArraySpec):
    kind: Literal["nibble"]
    nibbles_per_cycle: int


@register("array", "nibble")
class Nibble(IntArray):
    """8-bit products in two or four steps of 4 bits."""

    spec_class = NibbleSpec

    def passes(self, a, w):
        steps = -(-a.bits // 4) * -(-w.bits // 4)
        return -(-steps // self.spec.nibbles_per_cycle)

    def profile(self, a, w):
        s = self.spec
        return NumericProfile(s.accumulator_bits, s.overflow, s.lanes)


def broken(kind):
    """Register a copy of Nibble that breaks one promise."""

    def decorate(cls):
        spec = type("Spec", (NibbleSpec,), {"__annotations__": {"kind": Literal[kind]}})
        return register("array", kind)(type(cls.__name__, (cls, Nibble), {"spec_class": spec}))

    return decorate


@broken("wrong_product")
class WrongProduct:
    """The last lane of a full block is lost."""

    def _exact(self, a, w, a_dtype, w_dtype):
        a = np.array(a)
        a[:, self.spec.lanes - 1 :: self.spec.lanes] = 0
        return super()._exact(a, w, a_dtype, w_dtype)


@broken("wrong_type")
class WrongType:
    def _exact(self, a, w, a_dtype, w_dtype):
        return super()._exact(a, w, a_dtype, w_dtype).astype(np.int64)


@broken("wrong_accumulator")
class WrongAccumulator:
    """Adds eight products at a time, and says four."""

    def profile(self, a, w):
        s = self.spec
        return NumericProfile(s.accumulator_bits, s.overflow, s.lanes // 2)


@broken("wrong_cycles")
class WrongCycles:
    """Forgets that the last block of K may be part of one."""

    def cycles(self, m, n, k, a, w):
        return super().cycles(m, n, max(1, k // self.spec.lanes) * self.spec.lanes, a, w)


@broken("free_weights")
class FreeWeights:
    """Counts weights once although every block of rows fetches them again."""

    def work(self, m, n, k, a, w):
        work = super().work(m, n, k, a, w)
        reads = tuple((bits, 1) for bits, _ in work.weight.reads)
        return replace(work, weight=replace(work.weight, reads=reads))


@broken("from_nowhere")
class FromNowhere:
    """Never fetches a weight, in the beats as in their sum."""

    def work(self, m, n, k, a, w):
        return replace(super().work(m, n, k, a, w), weight=Fetches())

    def schedule(self, m, n, k, a, w):
        for beat in super().schedule(m, n, k, a, w):
            yield replace(beat, work=replace(beat.work, weight=Fetches()))


@broken("faster_when_larger")
class FasterWhenLarger:
    """A full block takes no time to start, a partial one does, in the beats as in their sum."""

    def cycles(self, m, n, k, a, w):
        return sum(beat.cycles for beat in self.schedule(m, n, k, a, w))

    def schedule(self, m, n, k, a, w):
        for beat in super().schedule(m, n, k, a, w):
            full = len(beat.k) == self.spec.lanes
            yield beat if full else replace(beat, cycles=beat.cycles + 1)


@broken("lost_beat")
class LostBeat:
    def schedule(self, m, n, k, a, w):
        yield from list(super().schedule(m, n, k, a, w))[1:]


@broken("free_action")
class FreeAction:
    """Does something that has no price."""

    def work(self, m, n, k, a, w):
        return replace(super().work(m, n, k, a, w), own=(("carry", m * n if k else 0),))

    def schedule(self, m, n, k, a, w):
        passes, seen = self.passes(a, w), 0
        for beat in super().schedule(m, n, k, a, w):
            first = beat.k.start == 0 and seen % passes == 0
            seen += 1
            carries = len(beat.m) * len(beat.n) if first else 0
            yield replace(beat, work=replace(beat.work, own=(("carry", carries),)))
'''
SET = "arrays.main.nibbles_per_cycle=3"
BROKEN = {
    "wrong_product": {"products"},
    "wrong_type": {"products"},
    "wrong_accumulator": {"accumulators"},
    "wrong_cycles": {"cycles"},
    "free_weights": {"counts"},
    "from_nowhere": {"counts"},
    "faster_when_larger": {"cycles"},
    "lost_beat": {"beats", "cycles", "counts"},
    "free_action": {"energy"},
}
"""kind -> the checks that must fail, and no others"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that can be imported, whose kinds are forgotten after the test."""
    (tmp_path / "their_arrays.py").write_text(PACKAGE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    registry.kinds("array")
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.delitem(sys.modules, "their_arrays", raising=False)
    importlib.invalidate_caches()
    return "their_arrays"


def failures(kind: str) -> dict[str, list[str]]:
    machine = load_machine("toy", [f"arrays.main.kind={kind}", SET])
    checks = check_array(machine.arrays["main"], machine, ("INT8",))
    return {check.name: check.faults for check in checks if check.faults}


def test_a_good_array_keeps_every_promise(package: str) -> None:
    importlib.import_module(package)
    assert failures("nibble") == {}


@pytest.mark.parametrize("kind", BROKEN)
def test_every_broken_promise_is_found_and_no_other(kind: str, package: str) -> None:
    importlib.import_module(package)
    assert set(failures(kind)) == BROKEN[kind]


def test_a_fault_says_where_it_is(package: str) -> None:
    importlib.import_module(package)
    faults = failures("free_action")["energy"]
    assert faults[0].startswith("INT8 x INT8, M x N x K = ")
    assert faults[0].endswith(": action 'carry' must have a price: action_fj has none")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["hwsim", "conformance", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


FEW = "arrays.main.formats=[{activation: TERNARY, weight: TERNARY}]"


def test_the_command_ends_with_0_or_1(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, f"{package}:Nibble", "--set", SET, "--set", FEW) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("array main of toy: nibble, 4 x 4 x 8\n  products ")
    assert shown.endswith("\nok\n")
    assert run(monkeypatch, f"{package}:FreeWeights", "--set", SET, "--set", FEW) == 1
    shown = capsys.readouterr().out
    assert "FAIL in " in shown
    assert "the beats, not" in shown
    assert shown.endswith("\nFAIL\n")


def test_an_array_can_be_checked_where_a_machine_has_it(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = "arrays.dot.formats=[{activation: TERNARY, weight: TERNARY}]"
    assert run(monkeypatch, "int", "--machine", "xnor_edge", "--set", few) == 0
    assert "array dot of xnor_edge: int" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["their_arrays:Nible"], "their_arrays:Nible: must be MODULE:CLASS that can be imported"),
        (["no_such_module:X"], "must be MODULE:CLASS that can be imported: No module named"),
        (["their_arrays:NibbleSpec"], "must be a subclass of hwsim.arch.component.ArrayComponent"),
        (["hwsim.arch.component:ArrayComponent"], "must be registered: decorate it with @register"),
        (["ternry"], "did you mean 'ternary'?; or give MODULE:CLASS"),
        (["their_arrays:Nibble"], "arrays.main.nibbles_per_cycle: must be given"),
        (
            ["lut", "--machine", "toy"],
            "machine toy must have an array of kind 'lut', not main: int",
        ),
    ],
)
def test_mistakes_are_told_apart_from_violations(
    arguments: list[str],
    text: str,
    package: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert text in capsys.readouterr().err


def test_an_installed_array_is_found_by_its_kind(tmp_path: Path) -> None:
    (tmp_path / "their_arrays.py").write_text(PACKAGE, encoding="utf-8")
    info = tmp_path / "their_arrays-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-arrays\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bitwright.arrays]\nnibble = their_arrays\n")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom hwsim.cli import main\nmain()"
    )
    command = ["conformance", "nibble", "--set", SET, "--set", FEW]
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nok\n")
