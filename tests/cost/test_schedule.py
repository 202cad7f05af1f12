"""Steps laid out again for the views: the same as those that were priced, with what each of them moved."""

from __future__ import annotations

import numpy as np
import pytest
from view_cases import Case

from hwsim.engine.schedule import Run, runs_of, split_of
from hwsim.mapping.gemm import GemmProblem
from hwsim.mapping.site import Site

NAMES = ("head by head", "spilled", "empty beats", "fused thresholds", "own rhythm")


def every_operator(case: Case):
    """Yield (operator, its runs) of both scenarios."""
    site = Site(case.machine)
    for scenario in (case.report.steady, case.report.cold):
        for operator in scenario.operators:
            yield operator, runs_of(operator, case.graph, site)


@pytest.mark.parametrize("name", NAMES)
def test_runs_add_up_to_what_was_reported(cases: dict[str, Case], name: str) -> None:
    for operator, runs in every_operator(cases[name]):
        if operator.mapping is None:
            assert runs == ()
            continue
        timeline = operator.mapping.timeline

        def total(of, runs: tuple[Run, ...] = runs) -> int:
            return sum(run.times * int(of(run)) for run in runs)

        assert sum(run.times for run in runs) == operator.blocks
        assert total(lambda r: r.record.cycles) == operator.cycles
        assert total(lambda r: len(r.index)) == operator.mapping.tiles
        assert total(lambda r: r.steps.compute.sum()) == timeline.array_busy
        assert total(lambda r: r.steps.post.sum()) == timeline.vector_busy
        assert total(lambda r: r.steps.load.sum() + r.steps.store.sum()) == timeline.bus_busy


@pytest.mark.parametrize("name", NAMES)
def test_what_a_step_moves_is_what_was_counted(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    link, moved_any = Site(case.machine).link, 0
    for operator, runs in every_operator(case):
        moved: dict[tuple[str, str], int] = {}
        for run in runs:
            for move in run.moves:
                assert [link.bus_cycles(int(b)) for b in move.bits] == move.cycles.tolist()
                key = (move.verb, move.operand)
                moved[key] = moved.get(key, 0) + run.times * int(move.bits.sum())
        counted: dict[tuple[str, str], int] = {}
        for c in operator.counts:
            if c.component == "dram":
                key = (c.action.removesuffix("_bit"), c.operand)
                counted[key] = counted.get(key, 0) + c.count
        assert {key: bits for key, bits in moved.items() if bits} == counted
        moved_any += len(counted)
    assert moved_any


@pytest.mark.parametrize("name", NAMES)
def test_tiles_cover_the_problem_once(cases: dict[str, Case], name: str) -> None:
    for _, runs in every_operator(cases[name]):
        for run in runs:
            assert len(np.unique(run.index, axis=0)) == len(run.index)
            p = run.problem
            whole = p.batch * p.m * p.n * p.k if isinstance(p, GemmProblem) else p.units
            assert run.sizes.prod(axis=1).sum() == whole


def test_cases_are_what_their_names_say(cases: dict[str, Case]) -> None:
    blocks = {o.blocks for o in cases["head by head"].report.steady.operators}
    assert blocks == {1, 8}
    assert cases["spilled"].report.memory["spills"]
    beats = [
        int(run.beats.sum() * run.times)
        for o, runs in every_operator(cases["empty beats"])
        for run in runs
        if run.beats is not None and o.node == "q"
    ]
    lanes = [c.count for o in cases["empty beats"].report.steady.operators if o.node == "q"
             for c in o.counts if c.action.startswith("lane_op")]  # fmt: skip
    assert beats
    assert 0 < lanes[0] < 12 * 32 * 32  # dense: every product once
    own = cases["own rhythm"]
    assert all(r.beats is None for o, runs in every_operator(own) for r in runs if o.node == "q")


@pytest.mark.parametrize("name", NAMES)
def test_every_cycle_goes_somewhere(cases: dict[str, Case], name: str) -> None:
    for operator, runs in every_operator(cases[name]):
        split = split_of(runs)
        assert split.computing == operator.compute_cycles
        assert split.waiting == operator.stall_cycles
        # By looking at one cycle after the other.
        slow = [0, 0, 0, 0]
        for run in runs:
            times = run.record.steps
            owner = np.full(run.record.cycles, 3)
            moving = tuple(move.row for move in run.moves)
            for rank, rows in ((2, moving), (1, (-2,)), (0, (-3,))):
                for begin, end in times[list(rows)][..., 2:].reshape(-1, 2):
                    if begin >= 0:
                        owner[begin:end] = rank
            for rank in range(4):
                slow[rank] += run.times * int((owner == rank).sum())
        assert [split.computing, split.vector, split.bus, split.other] == slow
