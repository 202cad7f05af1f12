"""Does an array keep what it promises? Its products, time, counts and energy against slow definitions.

For arrays of one's own (docs/machine-files.md) and for ours alike. Every check goes through shapes around
the size of the array's block: 0, 1, one less, just that, one more, and random ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hwsim import reference
from hwsim.arch.component import ArrayComponent
from hwsim.arch.machine import Machine
from hwsim.arch.work import Beat, Work
from hwsim.engine.energy import Ledger, Prices, array_counts
from hwsim.errors import OverflowRefused
from hwsim.graph.dtype import DataType, parse
from hwsim.graph.numeric import Overflow

TYPES = ("BIPOLAR", "UNIPOLAR", "TERNARY", "INT2", "INT4", "INT8", "UINT8")
"""Operand types that are tried, narrow ones first."""
MOST_FAULTS = 3
"""Faults of one check that are shown."""
MULTIPLIED_SHAPES = 72
"""Shapes of the products that are compared, for each pair of types."""
WALKED_SHAPES = 24
"""Shapes whose beats are walked one by one, for each pair of types."""
NARROW_BITS = (3, 6, 10)
"""Accumulators so narrow that the overflow rule acts."""
RULES: tuple[Overflow, ...] = ("wrap", "clamp", "error")

Codes = npt.NDArray[Any]
Shape = tuple[int, int, int]


@dataclass
class Check:
    """One promise, how many cases it was held against, and those that broke it."""

    name: str
    cases: int = 0
    faults: list[str] = field(default_factory=list)

    def hold(self, kept: bool, fault: str) -> None:
        """Count a case, and note its fault where the promise was not kept."""
        self.cases += 1
        if not kept:
            self.faults.append(fault)

    def text(self) -> str:
        """Return one line, and one more for each of the first faults."""
        verdict = "ok" if not self.faults else f"FAIL in {len(self.faults)}"
        shown = [f"\n    {fault}" for fault in self.faults[:MOST_FAULTS]]
        return f"  {self.name:<13} {self.cases:>6} cases  {verdict}" + "".join(shown)


def format_pairs(component: type[ArrayComponent]) -> list[tuple[str, str]]:
    """Return the pairs of `TYPES` that a kind of array says it can multiply."""
    return [
        (a, w)
        for a, w in product(TYPES, repeat=2)
        if component.check_formats(parse(a), parse(w)) is None
    ]


def check_array(
    array: ArrayComponent, machine: Machine, types: Sequence[str] = TYPES, seed: int = 0
) -> list[Check]:
    """Hold one array of a machine against all promises.

    Args:
        array: the array.
        machine: the machine that it is in, which prices its actions.
        types: operand types to try; those that the array does not multiply are left out.
        seed: of the random shapes and codes.
    """
    rng = np.random.default_rng(seed)
    checks = {
        name: Check(name)
        for name in ("products", "accumulators", "beats", "cycles", "counts", "energy")
    }
    prices = Prices(machine)
    for a, w in ((parse(a), parse(w)) for a, w in product(types, repeat=2)):
        if not array.supports(a, w):
            continue
        shapes = _shapes(array.block(a, w), rng)
        for shape in shapes[:MULTIPLIED_SHAPES]:
            _products(checks["products"], array, a, w, shape, rng)
        _accumulators(checks["accumulators"], array, a, w, rng)
        for shape in shapes[:WALKED_SHAPES]:
            beats = list(array.schedule(*shape, a, w))
            _beats(checks["beats"], array, a, w, shape, beats)
            _cycles(checks["cycles"], array, a, w, shape, beats)
            _counts(checks["counts"], array, a, w, shape, beats)
            _arrivals(checks["counts"], array, a, w, shape, beats)
            _energy(checks["energy"], array, a, w, shape, prices)
    return list(checks.values())


def _shapes(block: Shape, rng: np.random.Generator) -> list[Shape]:
    """Return M x N x K around the sizes of a block, one random size of each, in random order."""
    sizes = [sorted({0, 1, d - 1, d, d + 1, int(rng.integers(1, 3 * d + 2))}) for d in block]
    m_sizes, n_sizes, k_sizes = sizes
    shapes = list(product(m_sizes, n_sizes, k_sizes))
    return [shapes[i] for i in rng.permutation(len(shapes))]


def _codes(dtype: DataType, shape: tuple[int, int], rng: np.random.Generator) -> Codes:
    """Draw codes as they lie in memory; the first row holds the code of the largest magnitude."""
    codes = rng.choice(np.array(dtype.levels), shape)
    codes[:1] = dtype.qmax if dtype.qmax == dtype.max_abs else dtype.qmin
    return codes.astype(np.uint8 if dtype.qmax > 127 else np.int8)


def _place(a: DataType, w: DataType, shape: Shape) -> str:
    return f"{a} x {w}, M x N x K = {shape[0]} x {shape[1]} x {shape[2]}"


def _operands(
    a: DataType, w: DataType, shape: Shape, rng: np.random.Generator
) -> tuple[Codes, Codes]:
    m, n, k = shape
    return _codes(a, (m, k), rng), _codes(w, (n, k), rng)


def _in_torch(codes: Codes) -> torch.Tensor:
    return torch.from_numpy(codes.astype(np.int64))


def _products(
    check: Check,
    array: ArrayComponent,
    a: DataType,
    w: DataType,
    shape: Shape,
    rng: np.random.Generator,
) -> None:
    """The product is int32 and equals the reference wherever the accumulator holds it."""
    x, y = _operands(a, w, shape, rng)
    want = reference.contract(_in_torch(x), _in_torch(y)).numpy()
    if not array.profile(a, w).fits(array.static_bound(None, shape[2], a, w)):
        return
    got = array.gemm(x, y, a, w)
    place = _place(a, w, shape)
    check.hold(got.dtype == np.int32, f"{place}: must give int32, not {got.dtype}")
    if got.shape != want.shape:
        check.hold(False, f"{place}: must give the shape {want.shape}, not {got.shape}")
        return
    wrong = np.argwhere(got != want)
    if not len(wrong):
        check.hold(True, place)
        return
    i, j = map(int, wrong[0])
    check.hold(False, f"{place}: element [{i}, {j}] must be {want[i, j]}, is {got[i, j]}")


def _accumulators(
    check: Check, array: ArrayComponent, a: DataType, w: DataType, rng: np.random.Generator
) -> None:
    """A narrow accumulator does what the reference does with the array's own numeric profile."""
    depth = array.block(a, w)[2]
    for bits, rule, k in product(NARROW_BITS, RULES, (1, depth + 1, 3 * depth)):
        changed = array.spec.model_copy(update={"accumulator_bits": bits, "overflow": rule})
        narrow = type(array)(array.name, changed)
        profile = narrow.profile(a, w)
        place = f"{_place(a, w, (2, 2, k))}, {bits} bits, {rule}"
        stated = (profile.accumulator_bits, profile.overflow) == (bits, rule)
        check.hold(stated, f"{place}: the numeric profile must be that of the description")
        x, y = _operands(a, w, (2, 2, k), rng)
        want: Codes | None
        got: Codes | None
        try:
            tensors = _in_torch(x), _in_torch(y)
            want = reference.contract_profile(*tensors, a, w, profile, "conformance").numpy()
        except OverflowRefused:
            want = None
        try:
            got = narrow.gemm(x, y, a, w)
        except OverflowRefused:
            got = None
        if want is None or got is None:
            same = want is None and got is None
            text = "the reference refuses it" if want is None else "the reference gives a result"
            check.hold(same, f"{place}: {text}, the array does not")
        else:
            check.hold(
                np.array_equal(got, want),
                f"{place}: must be {want.tolist()}, is {got.tolist()}",
            )


def _beats(
    check: Check, array: ArrayComponent, a: DataType, w: DataType, shape: Shape, beats: list[Beat]
) -> None:
    """The beats multiply every pair of codes once a pass, K ascending, within the block."""
    place, (rows, cols, lanes) = _place(a, w, shape), array.block(a, w)
    visits = np.zeros(shape, np.int64)
    reached = np.zeros(shape[:2], np.int64)
    for beat in beats:
        inside = len(beat.m) <= rows and len(beat.n) <= cols and len(beat.k) <= lanes
        check.hold(inside, f"{place}: a beat must stay within {rows} x {cols} x {lanes}: {beat}")
        block = np.ix_(beat.m, beat.n)
        check.hold(
            bool((reached[block] <= beat.k.start).all()),
            f"{place}: every element must be summed in ascending K: {beat}",
        )
        reached[block] = beat.k.start
        visits[np.ix_(beat.m, beat.n, beat.k)] += 1
    passes = array.passes(a, w)
    check.hold(
        bool((visits == passes).all()),
        f"{place}: every product must be formed {passes} times, once a pass; it is"
        f" {visits.min(initial=passes)} to {visits.max(initial=passes)} times",
    )


def _cycles(
    check: Check, array: ArrayComponent, a: DataType, w: DataType, shape: Shape, beats: list[Beat]
) -> None:
    """Cycles are those of the beats, grow with every dimension, and never beat the array's own size."""
    place, got = _place(a, w, shape), array.cycles(*shape, a, w)
    walked = sum(beat.cycles for beat in beats)
    check.hold(got == walked, f"{place}: cycles() must be the {walked} of the beats, not {got}")
    peak = math.prod(array.block(a, w))
    least = -(-math.prod(shape) * array.passes(a, w) // peak)
    check.hold(got >= least, f"{place}: at {peak} products a cycle it takes {least}, not {got}")
    for axis in range(3):
        more = list(shape)
        more[axis] += 1
        longer = array.cycles(more[0], more[1], more[2], a, w)
        check.hold(
            longer >= got,
            f"{place}: one more of {'MNK'[axis]} must not be faster: {longer} < {got}",
        )


def _counts(
    check: Check, array: ArrayComponent, a: DataType, w: DataType, shape: Shape, beats: list[Beat]
) -> None:
    """Counts are those of the beats, and every operand comes in at least once."""
    place, work = _place(a, w, shape), array.work(*shape, a, w)
    got, want = _tally([work]), _tally([beat.work for beat in beats])
    for name in sorted(got | want):
        check.hold(
            got.get(name, 0) == want.get(name, 0),
            f"{place}: {name} must be the {want.get(name, 0)} of the beats, not {got.get(name, 0)}",
        )
    m, n, k = shape
    if 0 not in shape:
        for operand, fetches, size in (
            ("activation", work.activation, m * k * a.bits),
            ("weight", work.weight, n * k * w.bits),
        ):
            check.hold(
                fetches.read_bits >= size,
                f"{place}: {operand} reads must be at least its {size} bits, not {fetches.read_bits}",
            )


def _arrivals(
    check: Check, array: ArrayComponent, a: DataType, w: DataType, shape: Shape, beats: list[Beat]
) -> None:
    """No beat uses a code that has not come in, and no lane does more than one product."""
    place, (m, n, k), bits = _place(a, w, shape), shape, array.operand_bits(a, w)
    used = (np.zeros((m, k), np.bool_), np.zeros((n, k), np.bool_))
    arrived = [0, 0]
    for beat in beats:
        products = len(beat.m) * len(beat.n) * len(beat.k)
        check.hold(
            0 < beat.work.lane_ops <= products,
            f"{place}: a beat of {products} products must take 1 to {products} lane operations: {beat}",
        )
        for operand, rows, fetches in (
            (0, beat.m, beat.work.activation),
            (1, beat.n, beat.work.weight),
        ):
            arrived[operand] += fetches.read_bits
            used[operand][np.ix_(rows, beat.k)] = True
            need = int(used[operand].sum()) * bits[operand]
            check.hold(
                arrived[operand] >= need,
                f"{place}: {('activations', 'weights')[operand]} of {need} bits are used, and"
                f" {arrived[operand]} bits were fetched until then: {beat}",
            )


def _tally(works: list[Work]) -> dict[str, int]:
    """Sum counts one by one: every read by its width, too."""
    total: dict[str, int] = {}

    def add(name: str, count: int) -> None:
        if count:
            total[name] = total.get(name, 0) + count

    for work in works:
        add("lane_ops", work.lane_ops)
        add("accumulator_updates", work.accumulator_updates)
        for operand, fetches in (("activation", work.activation), ("weight", work.weight)):
            add(f"{operand} register_bits", fetches.register_bits)
            for bits, times in fetches.reads:
                add(f"{operand} reads of {bits} bits", times)
        for action, count in work.own:
            add(action, count)
    return total


def _energy(
    check: Check, array: ArrayComponent, a: DataType, w: DataType, shape: Shape, prices: Prices
) -> None:
    """Every action has a price of at least 0, and the total is the sum of count x price."""
    place, work = _place(a, w, shape), array.work(*shape, a, w)
    want = [work.lane_ops * array.lane_op_fj(a, w).value]
    for action, count in (
        ("accumulator_update", work.accumulator_updates),
        ("operand_register_bit", work.activation.register_bits),
        ("operand_register_bit", work.weight.register_bits),
        *work.own,
    ):
        try:
            want.append(count * array.action_fj(action).value)
        except KeyError:
            check.hold(False, f"{place}: action {action!r} must have a price: action_fj has none")
            return
    counts = array_counts(array, a, w, [(1, work)])
    total = Ledger(prices, [("step", count) for count in counts]).total
    check.hold(min(want) >= 0, f"{place}: no energy may be negative: {min(want)} fJ")
    by_hand = math.fsum(want) * 1e-3
    check.hold(
        math.isclose(total.nominal, by_hand, rel_tol=1e-12, abs_tol=1e-15),
        f"{place}: the total must be {by_hand} pJ, the sum of count x price, not {total.nominal}",
    )
