"""What a graph is to a memory: groups in order, lives and sizes, and the decisions on where things are.

Weights and the vector unit's constants: resident in the weight memory, or streamed each time from DRAM or
a memory behind that one. Activations: in the activation memory, in one behind it or in DRAM (a spill,
counted), each for its whole life. Which is which is decided by hwsim.mapping.placement; docs/machine.md, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from hwsim.errors import GraphError
from hwsim.graph.ir import Node, QuantGraph
from hwsim.graph.ops import OPERATORS
from hwsim.mapping.site import DRAM, Site
from hwsim.mapping.tile import row_bits, stored_bytes

FUSIBLE = ("requant", "threshold", "table")
"""Vector operators of one input, element by element, that may run on an array's output tile."""
SOFTMAX = ("softmax", "softmax_binary")
TILE_SHARE = 4
"""Into so many parts the weight memory is thought of as cut, where constants must leave room for tiles."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that run as one: an array operator with its epilogue, or a single vector operator."""

    nodes: tuple[Node, ...]

    @property
    def head(self) -> Node:
        """The first node."""
        return self.nodes[0]

    @property
    def output(self) -> str:
        """The tensor that the group writes."""
        return self.nodes[-1].name

    @property
    def unit(self) -> str:
        """`array` or `vector`."""
        return OPERATORS[self.head.op].unit


@dataclass(frozen=True, slots=True)
class Store:
    """A constant in memory. `used_bytes` is what one inference needs of it at least.

    An embedding table holds its row multipliers: one store, of which an inference reads a row a token.
    """

    name: str
    constants: tuple[str, ...]
    bytes: int
    used_bytes: int
    is_weight: bool


@dataclass(frozen=True)
class Program:
    """What runs in which order, and what exists when: everything that needs no decision.

    Attributes:
        length: the bound sequence length.
        groups: what runs, in order.
        chains: index ranges of the attentions that may run one head at a time.
        roots: tensor -> the tensor whose storage it is (views share their input's).
        life: root -> (first, last) group in which it exists; -1 before the first.
        sizes: root -> bytes.
        external: roots of the graph's inputs and outputs, which are in DRAM.
        stores: constants by store name.
        first_use: store name -> the first group that needs it.
        graph_liveness_bytes: peak of live tensors if every node ran by itself.
    """

    length: int
    groups: tuple[Group, ...]
    chains: tuple[range, ...]
    roots: Mapping[str, str]
    life: Mapping[str, tuple[int, int]]
    sizes: Mapping[str, int]
    external: frozenset[str]
    stores: Mapping[str, Store]
    first_use: Mapping[str, int]
    graph_liveness_bytes: int

    def bytes_of(self, root: str, heads: int) -> int:
        """Return the bytes of a root where the attention that it is inside runs `heads` times over."""
        return self.sizes[root] // heads if root in self._inside_attention else self.sizes[root]

    @cached_property
    def _inside_attention(self) -> frozenset[str]:
        return frozenset(self.groups[i].output for chain in self.chains for i in chain[:-1])


def make_program(graph: QuantGraph, length: int) -> Program:
    """Group, order and measure a graph.

    Args:
        graph: what runs.
        length: sequence length.
    """
    groups, chains = order_attention(graph, fuse(graph))
    roots = storage_roots(graph)
    life = _lifetimes(graph, groups, roots)
    stores = collect_stores(graph, length)
    first_use: dict[str, int] = {}
    for i, group in enumerate(groups):
        for name in (c for node in group.nodes for c in node.constants.values()):
            first_use.setdefault(name, i)
    return Program(
        length=length,
        groups=groups,
        chains=chains,
        roots=roots,
        life=life,
        sizes={
            root: stored_bytes(graph.tensors[root].dtype, graph.tensors[root].bind(length))
            for root in life
        },
        external=frozenset(roots[t] for t in (*graph.inputs, *graph.outputs)),
        stores=stores,
        first_use=first_use,
        graph_liveness_bytes=_graph_liveness(graph, roots, length),
    )


@dataclass(frozen=True)
class MemoryPlan:
    """The decisions on one inference.

    Attributes:
        program: what runs.
        resident: names of the stores that stay in the weight memory.
        backed: stores that stay in a memory behind it -> which.
        homes: storage roots that live on chip -> the memory.
        repeats: how many blocks each group is run in, one head at a time in attention; else 1.
    """

    program: Program
    resident: frozenset[str]
    backed: Mapping[str, str]
    homes: Mapping[str, str]
    repeats: tuple[int, ...]

    def resident_bytes(self) -> int:
        """Return the bytes of all resident stores."""
        return sum(self.program.stores[name].bytes for name in self.resident)

    @property
    def spilled(self) -> tuple[str, ...]:
        """Storage roots in DRAM that are neither input nor output of the graph."""
        p = self.program
        return tuple(r for r in p.life if r not in self.homes and r not in p.external)

    def spilled_bytes(self, root: str) -> int:
        """Return the bytes that a root takes in DRAM at a time."""
        first, _ = self.program.life[root]
        return self.program.bytes_of(root, self.repeats[max(first, 0)])

    def live_bytes(self, index: int, home: str) -> int:
        """Return the bytes of the activations in a memory, or in DRAM, while a group runs."""
        p = self.program
        return sum(
            p.bytes_of(root, self.repeats[max(first, 0)])
            for root, (first, last) in p.life.items()
            if first <= index <= last and self.homes.get(root, DRAM) == home
        )

    def backed_bytes(self, level: str) -> int:
        """Return the bytes of the constants that stay in a memory behind the weight memory."""
        stores = self.program.stores
        return sum(stores[name].bytes for name, home in self.backed.items() if home == level)

    def free_bytes(self, index: int, site: Site) -> dict[str, int]:
        """Return the bytes left for tiles in each memory while a group runs."""
        return room(site, self.resident_bytes(), self.live_bytes(index, site.activation))


def room(site: Site, constants: int, activations: int) -> dict[str, int]:
    """Return the bytes of each role memory that so many resident and live bytes leave; may be negative."""
    free = {m: site.capacity_bytes(m) for m in (site.activation, site.weight, site.output)}
    free[site.activation] -= activations
    free[site.weight] -= constants
    return free


def resident_choices(program: Program, site: Site) -> tuple[frozenset[str], ...]:
    """Return the sets of constants that may stay on chip, the largest first.

    Stores stand in line by bytes saved a byte held, then the smaller (a load has a fixed part), by name.
    A choice is as many of them, in that order, as fit what is not kept for tiles: nothing, a quarter, a half
    or all of the weight memory. In a memory that also holds activations, constants may take half.
    """
    capacity = site.capacity_bytes(site.weight) // (1 if site.weight != site.activation else 2)
    choices: list[frozenset[str]] = []
    for kept in (0, 1, 2, TILE_SHARE):
        budget = capacity - kept * capacity // TILE_SHARE
        chosen = frozenset(s.name for s in _that_fit(_line(program), budget))
        if chosen not in choices:
            choices.append(chosen)
    return tuple(choices)


def backed_choices(
    program: Program, site: Site, resident: frozenset[str]
) -> tuple[dict[str, str], ...]:
    """Return where constants that do not stay in the weight memory may stay behind it, the most first.

    The line goes on: as many stores as fit the nearest memory, then the next. In each, nothing, a quarter,
    a half or all of it is kept for activations. Without such a memory there is one choice, nothing.
    """
    choices: list[dict[str, str]] = []
    for kept in (0, 1, 2, TILE_SHARE):
        left = [s for s in _line(program) if s.name not in resident]
        homes: dict[str, str] = {}
        for level in site.constant_homes[1:-1]:
            capacity = site.capacity_bytes(level)
            chosen = _that_fit(left, capacity - kept * capacity // TILE_SHARE)
            homes |= {s.name: level for s in chosen}
            left = left[len(chosen) :]
        if homes not in choices:
            choices.append(homes)
    return tuple(choices)


def _line(program: Program) -> list[Store]:
    """Return all stores, those that save most bytes an inference for a byte held first."""
    stores = program.stores.values()
    return sorted(stores, key=lambda s: (-(s.used_bytes / max(s.bytes, 1)), s.bytes, s.name))


def _that_fit(line: Sequence[Store], budget: int) -> list[Store]:
    """Return as many stores from the front of a line as fit."""
    totals = accumulate(store.bytes for store in line)
    return [store for store, total in zip(line, totals, strict=True) if total <= budget]


def bind_length(graph: QuantGraph, sequence_length: int | None) -> int:
    """Return the sequence length to cost a graph at: the given one, else the longest it was built for.

    Raises:
        GraphError: the length is not positive, or longer than the graph was built for, or missing; the graph has none
            that could be chosen, and another one is asked for.
    """
    symbolic = any(isinstance(d, str) for t in graph.tensors.values() for d in t.shape)
    if not symbolic:
        only = max(graph.max_length, 1)
        if sequence_length not in (None, only):
            raise GraphError(
                f"the sequence length must be left out, not {sequence_length}: all inputs of this model are of one size"
            )
        return only
    length = graph.max_length if sequence_length is None else sequence_length
    if length <= 0 or (graph.max_length and length > graph.max_length):
        limit = f"1 to {graph.max_length}" if graph.max_length else "at least 1"
        raise GraphError(f"the sequence length must be {limit}, not {length}")
    return length


def fuse(graph: QuantGraph) -> tuple[Group, ...]:
    """Group each array operator with the element-wise operators that alone read its result.

    Views that only reorder elements may stand between: the result is written where the view puts it.
    Every other operator runs by itself; views do not run at all.
    """
    consumers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for t in node.inputs:
            consumers.setdefault(t, []).append(node)

    def sole_reader(tensor: str) -> Node | None:
        readers = consumers.get(tensor, [])
        if len(readers) != 1 or tensor in graph.outputs:
            return None
        if readers[0].op in ("reshape", "permute"):
            return sole_reader(readers[0].name)
        return readers[0]

    groups: list[Group] = []
    taken: set[str] = set()
    for node in graph.nodes:
        unit = OPERATORS[node.op].unit
        if unit == "view" or node.name in taken:
            continue
        chain = [node]
        while unit == "array":
            reader = sole_reader(chain[-1].name)
            if reader is None or reader.op not in FUSIBLE or row_constants(graph, reader):
                break
            chain.append(reader)
            taken.add(reader.name)
        groups.append(Group(tuple(chain)))
    return tuple(groups)


def row_constants(graph: QuantGraph, node: Node) -> tuple[str, ...]:
    """Return the constants that hold another row for every token: they pass by like an input.

    That is an `addend` [T, C] (positions) and a bias B [T, C] (positions folded into a requantisation).
    """
    names = (node.constants[role] for role in ("addend", "B") if role in node.constants)
    arrays = ((name, graph.constants[name].array) for name in names)
    return tuple(name for name, array in arrays if array.ndim == 2 and array.shape[0] > 1)


def order_attention(
    graph: QuantGraph, groups: Sequence[Group]
) -> tuple[tuple[Group, ...], tuple[range, ...]]:
    """Make every Q K^T -> softmax -> ... -> P V a run of neighbours, so that it can go head by head.

    Only chains in which each result has one reader count; what stands between them does not depend on
    them and moves before.

    Returns:
        the groups in their new order, and the index ranges of the chains.
    """
    readers: dict[str, list[Group]] = {}
    for group in groups:
        inside = {n.name for n in group.nodes}
        for t in dict.fromkeys(t for n in group.nodes for t in n.inputs if t not in inside):
            readers.setdefault(t, []).append(group)
    order = list(groups)
    chains: list[range] = []
    for start in groups:
        chain = _attention_chain(start, readers, graph)
        if not chain:
            continue
        first, last = order.index(chain[0]), order.index(chain[-1])
        between = [g for g in order[first : last + 1] if g not in chain]
        order[first : last + 1] = [*between, *chain]
        chains.append(range(last + 1 - len(chain), last + 1))
    return tuple(order), tuple(chains)


def _attention_chain(
    start: Group, readers: Mapping[str, list[Group]], graph: QuantGraph
) -> list[Group]:
    """Return the groups from a Q K^T to its P V, or nothing."""
    if start.head.op != "matmul" or len(start.nodes) > 1:
        return []
    chain = [start]
    while True:
        output = chain[-1].output
        following = readers.get(output, [])
        if len(following) != 1 or output in graph.outputs:
            return []
        group = following[0]
        chain.append(group)
        if group.head.op == "matmul":
            return chain if len(chain) > 2 and group.head.inputs[0] == output else []
        if group.head.op not in (SOFTMAX if len(chain) == 2 else FUSIBLE):
            return []


def storage_roots(graph: QuantGraph) -> dict[str, str]:
    """Map each tensor to the one whose storage it uses: its own, or through views its origin's."""
    roots = {name: name for name in graph.inputs}
    for node in graph.nodes:
        is_view = OPERATORS[node.op].unit == "view"
        roots[node.name] = roots[node.inputs[0]] if is_view else node.name
    return roots


def _lifetimes(
    graph: QuantGraph, groups: Sequence[Group], roots: Mapping[str, str]
) -> dict[str, tuple[int, int]]:
    """Return root -> (first, last) group index, in order of production; fused tensors have none."""
    life = {name: (-1, -1) for name in graph.inputs}
    for i, group in enumerate(groups):
        inside = {n.name for n in group.nodes}
        for t in (t for n in group.nodes for t in n.inputs if roots[t] not in inside):
            first, _ = life[roots[t]]
            life[roots[t]] = (first, i)
        life[group.output] = (i, i)
    for t in graph.outputs:
        first, _ = life[roots[t]]
        life[roots[t]] = (first, len(groups) - 1)
    return life


def collect_stores(graph: QuantGraph, length: int) -> dict[str, Store]:
    """List all constants as they stand in memory, rows padded to words."""
    stores: dict[str, Store] = {}

    def size(name: str) -> int:
        constant = graph.constants[name]
        return stored_bytes(constant.dtype, constant.array.shape)

    for node in graph.nodes:
        if node.op == "embedding":
            names = (node.constants["weight"], node.constants["M"])
            vocabulary = graph.constant(node, "weight").shape[0]
            row = size(names[0]) // vocabulary
            once = 0
            if graph.constant(node, "M").size > 1:  # a multiplier stands in each row
                row += row_bits(graph.constants[names[1]].dtype, 1) // 8
            else:
                once = size(names[1])
            held = vocabulary * row + once
            ids = graph.tensors[node.inputs[0]].elements(length)
            used = min(held, ids * row + once)
            stores[names[0]] = Store(names[0], names, held, used, True)
            continue
        for role, name in sorted(node.constants.items()):
            if name in stores:
                continue
            used = size(name)
            if name in row_constants(graph, node):
                rows = graph.constants[name].array.shape[0]
                used = used * min(rows, graph.tensors[node.name].bind(length)[-2]) // rows
            stores[name] = Store(name, (name,), size(name), used, role == "weight")
    return stores


def _graph_liveness(graph: QuantGraph, roots: Mapping[str, str], length: int) -> int:
    """Return the peak bytes of live tensors when every node runs by itself, nothing fused."""
    last = {roots[t]: i for i, n in enumerate(graph.nodes) for t in (*n.inputs, n.name)}
    last |= {roots[t]: len(graph.nodes) for t in graph.outputs}
    sizes = {
        r: stored_bytes(graph.tensors[r].dtype, graph.tensors[r].bind(length))
        for r in set(roots.values())
    }
    alive = set(graph.inputs)
    peak = 0
    for i, node in enumerate(graph.nodes):
        alive.add(roots[node.name])
        peak = max(peak, sum(sizes[r] for r in alive))
        alive = {r for r in alive if last.get(r, -1) > i}
    return peak
