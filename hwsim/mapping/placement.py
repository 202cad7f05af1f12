"""The mapper of a graph: the best way through the sets of activations that are on chip.

Groups run in a fixed order with a barrier after each, so what a group costs depends on the past through
nothing but the homes of live tensors: where its operands are, and how many bytes are left
for its tiles. An additive objective is therefore solved exactly by dynamic programming, group by group over
such sets of homes. The sets are taken in the order of A* (Hart, Nilsson, Raphael, 1968): least sum of the cost so far
and of the rooflines of the groups left; a group is mapped in given places only when its roofline there is
the least, so that most are never mapped in places that cannot matter. A tensor has one home for its whole life: the memory that feeds the rows, one behind it, or DRAM. Where an attention starts,
running it one head at a time is one more choice.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from hwsim.engine.memory_plan import MemoryPlan, Program, room
from hwsim.errors import CapacityError
from hwsim.mapping.mapper import Mapper, Mapping
from hwsim.mapping.objective import Worth
from hwsim.mapping.problems import Places, ProblemMaker
from hwsim.mapping.site import DRAM, Site

STATE_LIMIT = 256
"""Sets followed after a group. Where there are more, the best are, and the gap is reported."""


@dataclass(frozen=True, slots=True)
class State:
    """What the rest of an inference depends on.

    Attributes:
        homes: live storage roots that are on chip, each with the memory.
        heads: blocks that the attention in progress runs in; 1 outside.
    """

    homes: frozenset[tuple[str, str]]
    heads: int = 1


@dataclass(frozen=True)
class Step:
    """The best way into a state: what came before, and what the last group did."""

    worth: Worth
    before: Step | None
    state: State
    places: Places
    mapping: Mapping | None

    def back(self) -> list[Step]:
        """Return all steps, the first group's first."""
        steps: list[Step] = []
        step: Step | None = self
        while step is not None and step.mapping is not None:
            steps.append(step)
            step = step.before
        return steps[::-1]


@dataclass(frozen=True)
class Way:
    """What the next group may do after a step: where it would lead, not mapped yet.

    `live` are the bytes of activations in each memory meanwhile.
    """

    before: Step
    state: State
    places: Places
    live: dict[str, int]


@dataclass(frozen=True)
class Path:
    """What a search came to: the last step, or None with the last group that was reached and its states.

    `bound` is what no way can beat; without an end, the least estimate that was left out (inf if none).
    """

    end: Step | None
    bound: float
    depth: int
    states: list[State]


@dataclass(frozen=True)
class Placement:
    """A mapped graph.

    Attributes:
        plan: where everything is.
        places: the places of each group's tensors.
        mappings: the mapping of each group.
        worth: what was minimised.
        bound: what no mapping of the whole space can beat; equal to `worth[0]` where the search was exact.
    """

    plan: MemoryPlan
    places: tuple[Places, ...]
    mappings: tuple[Mapping, ...]
    worth: Worth
    bound: float

    @property
    def gap_frac(self) -> float:
        """Return (found - bound) / bound."""
        return (self.worth[0] - self.bound) / self.bound if self.bound > 0 else 0.0


class Placer:
    """Places and maps one graph with given resident constants."""

    def __init__(self, maker: ProblemMaker, mapper: Mapper) -> None:
        self._maker, self._mapper = maker, mapper
        self._least: dict[tuple[int, Places], float] = {}
        stores = maker.program.stores
        self._resident_bytes = sum(stores[name].bytes for name in maker.resident)
        self._room_behind = {
            level: maker.site.capacity_bytes(level)
            - sum(stores[name].bytes for name, home in maker.backed.items() if home == level)
            for level in maker.site.levels[1:]
        }

    @property
    def _program(self) -> Program:
        return self._maker.program

    @property
    def _site(self) -> Site:
        return self._maker.site

    def place(self, cutoff: float = math.inf) -> Placement | None:
        """Return the best mapping of the graph, or None where all are worse than `cutoff`.

        Raises:
            CapacityError: an operator does not fit wherever its tensors are put.
        """
        limit = STATE_LIMIT
        while True:
            path = self._search(cutoff, limit)
            if path.end is not None:
                return self._placement(path.end, path.bound)
            if math.isinf(path.bound):
                raise self._refusal(path.depth, path.states)
            if path.bound > cutoff:
                return None
            limit *= 2  # what was left out may be all that fits

    def _search(self, cutoff: float, limit: int) -> Path:
        """Follow the least estimate first: what a way has cost, and what the groups left cost at least."""
        groups, rest = len(self._program.groups), self.rooflines
        nowhere = Step((0.0, 0.0), None, State(frozenset()), Places((), DRAM), None)
        queue: list[tuple[Worth, int, int, Step | Way]] = [((rest[0], 0.0), 0, 0, nowhere)]
        ways = 1  # tells apart what is otherwise equal
        done: set[tuple[int, State]] = set()
        states: list[list[State]] = [[] for _ in range(groups)]
        left_out = math.inf
        # By how much the mappings of each group may be worse than the best of their space.
        slack = [0.0] * groups
        while queue:
            (estimate, _), minus_i, _, step = heapq.heappop(queue)
            i = -minus_i
            if estimate > cutoff:
                left_out = min(left_out, estimate)
                break
            if (i, step.state) in done:
                continue
            if isinstance(step, Way):  # only now that its roofline does not exclude it
                mapping = self.at(i - 1, step.places, step.live)
                if mapping is not None:
                    slack[i - 1] = max(slack[i - 1], mapping.worth[0] - mapping.bound)
                    before = step.before.worth
                    worth = before[0] + mapping.worth[0], before[1] + mapping.worth[1]
                    new = Step(worth, step.before, step.state, step.places, mapping)
                    heapq.heappush(queue, ((worth[0] + rest[i], worth[1]), -i, ways, new))
                    ways += 1
                continue
            if i == groups:
                least = min(estimate, left_out) - math.fsum(slack)
                return Path(step, max(rest[0], least), i, [])
            if len(states[i]) == limit:
                left_out = min(left_out, estimate)
                continue
            done.add((i, step.state))
            states[i].append(step.state)
            for way in self._ways(i, step):
                if (i + 1, way.state) not in done:
                    least = step.worth[0] + self._least_at(i, way.places) + rest[i + 1]
                    heapq.heappush(queue, ((least, step.worth[1]), -i - 1, ways, way))
                    ways += 1
        depth = max((i for i in range(groups) if states[i]), default=0)
        return Path(None, left_out, depth, states[depth])

    @cached_property
    def rooflines(self) -> list[float]:
        """What the groups from each one on cost at least: [groups + 1], the whole graph's first."""
        rest = [0.0]
        for i in reversed(range(len(self._program.groups))):
            rest.append(rest[-1] + self.least(i))
        return rest[::-1]

    def least(self, index: int) -> float:
        """Return what a group costs at least, wherever its activations are: its roofline."""
        head = self._program.groups[index].head
        near = self._site.activation
        return self._least_at(index, Places((near,) * len(head.inputs), near))

    def _least_at(self, index: int, places: Places) -> float:
        """Return its roofline with its tensors in given places."""
        if (index, places) not in self._least:
            problem = self._maker.pose(index, places).problem
            self._least[index, places] = self._mapper.least(problem, places.heads)
        return self._least[index, places]

    def at(self, index: int, places: Places, live: dict[str, int]) -> Mapping | None:
        """Map a group with its tensors in given places and so many bytes of activations in each memory."""
        if any(live.get(level, 0) > size for level, size in self._room_behind.items()):
            return None
        posed = self._maker.pose(index, places)
        live_bytes = live.get(self._site.activation, 0)
        free = room(self._site, self._resident_bytes + posed.transient_bytes, live_bytes)
        if min(free.values()) < 0:
            return None
        found = self._mapper.best(posed.problem, free, places.heads)
        if found is None or not any(posed.arriving):
            return found
        return found.then(self._mapper.arrival(posed.arriving), 1)

    def _ways(self, i: int, before: Step) -> Iterator[Way]:
        """Yield what a group can do after a state."""
        program, group = self._program, self._program.groups[i]
        for heads in self._heads(i, before.state):
            for output in self._output_places(i):
                homes = dict(before.state.homes)
                if output != DRAM:
                    homes[group.output] = output
                live: dict[str, int] = {}
                for root, home in homes.items():
                    live[home] = live.get(home, 0) + program.bytes_of(root, heads)
                inputs = tuple(homes.get(program.roots[t], DRAM) for t in group.head.inputs)
                places = Places(inputs, output, heads)
                alive = frozenset((r, h) for r, h in homes.items() if program.life[r][1] > i)
                inside = any(c.start <= i < c.stop - 1 for c in program.chains)
                state = State(alive, heads if inside else 1)
                yield Way(before, state, places, live)

    def _heads(self, i: int, state: State) -> tuple[int, ...]:
        """Return the numbers of blocks that a group may run in: a choice where an attention starts."""
        for chain in self._program.chains:
            if i == chain.start:
                shape = self._maker.graph.tensors[self._program.groups[i].output]
                heads = math.prod(shape.bind(self._program.length)[:-2])
                return (1, heads) if heads > 1 else (1,)
        return (state.heads,)

    def _output_places(self, i: int) -> tuple[str, ...]:
        external = self._program.groups[i].output in self._program.external
        return (DRAM,) if external else self._site.activation_homes

    def _placement(self, best: Step, bound: float) -> Placement:
        steps = best.back()
        mappings = tuple(s.mapping for s in steps if s.mapping is not None)
        plan = MemoryPlan(
            self._program,
            self._maker.resident,
            self._maker.backed,
            {
                g.output: s.places.output
                for g, s in zip(self._program.groups, steps, strict=True)
                if s.places.output != DRAM
            },
            tuple(s.places.heads for s in steps),
        )
        return Placement(plan, tuple(s.places for s in steps), mappings, best.worth, bound)

    def _refusal(self, i: int, states: list[State]) -> CapacityError:
        """Say what a group lacks in the state that leaves it most room."""
        program, group = self._program, self._program.groups[i]

        def near_bytes(s: State) -> int:
            near = (root for root, home in s.homes if home == self._site.activation)
            return sum(program.bytes_of(root, s.heads) for root in near)

        lightest = min(states, key=near_bytes)
        live, homes = near_bytes(lightest), dict(lightest.homes)
        inputs = tuple(homes.get(program.roots[t], DRAM) for t in group.head.inputs)
        posed = self._maker.pose(i, Places(inputs, DRAM, lightest.heads))
        free = room(self._site, self._resident_bytes, live)
        weight = self._site.weight
        if posed.transient_bytes > free[weight]:
            return CapacityError(
                f"{group.head.name}: its constants need {posed.transient_bytes} bytes of memory"
                f" {weight} and {free[weight]} are free, {posed.transient_bytes - free[weight]} too few"
            )
        free[weight] -= posed.transient_bytes
        return self._mapper.capacity_error(posed.problem, free, group.head.name)
