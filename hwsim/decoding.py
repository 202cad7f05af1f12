"""Decoding: a causal graph run one token at a time, with the codes of keys and values kept.

A `Decoder` holds the caches; the graph of each step is `hwsim.graph.decode_view`, run by whoever runs whole
graphs: the reference or a machine. What a step computes equals the last row of one pass over all tokens, bit
for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.arch.machine import Machine
from hwsim.engine.execute import execute, numeric_profiles
from hwsim.errors import DataError, GraphError
from hwsim.graph.decode_view import caches, check_position, decode_view, prefill_view
from hwsim.graph.ir import QuantGraph

Array = npt.NDArray[Any]
Executor = Callable[
    [QuantGraph, Mapping[str, Array], npt.NDArray[np.int64] | None], Iterator[tuple[str, Array]]
]
"""graph, inputs, lengths -> every tensor in execution order"""


def on_machine(machine: Machine) -> Executor:
    """Return the executor that is a machine."""
    return lambda graph, inputs, lengths: execute(graph, machine, inputs, lengths)


def on_reference(machine: Machine) -> Executor:
    """Return the executor that is the reference, with the accumulators of a machine where they matter."""
    from hwsim import reference

    def run(
        graph: QuantGraph, inputs: Mapping[str, Array], lengths: npt.NDArray[np.int64] | None
    ) -> Iterator[tuple[str, Array]]:
        profiles = numeric_profiles(graph, machine, graph.max_length)
        return reference.execute(graph, inputs, lengths, profiles)

    return run


class Decoder:
    """Some sequences of one length on their way, in step.

    Args:
        graph: a causal graph.
        run: what executes it.
        batch: how many sequences.

    Attributes:
        position: tokens that the caches hold.
        caches: cached tensor -> codes [B, *shape], tokens along the cache's axis.

    Raises:
        GraphError: the graph cannot be decoded.
    """

    def __init__(self, graph: QuantGraph, run: Executor, batch: int = 1) -> None:
        self.graph = graph
        self.position = 0
        self._run = run
        self._layout = caches(graph)
        self.caches: dict[str, Array] = {
            c.tensor: np.zeros((batch, *c.bind(0)), np.int64) for c in self._layout
        }

    def prefill(self, ids: npt.NDArray[np.int64]) -> Array:
        """Fill empty caches from prompts [B, T] in one pass; return the logits' codes [B, T, V].

        Raises:
            GraphError: the caches are not empty, or the prompt is longer than the graph was built for.
        """
        if self.position:
            raise GraphError(f"a prefill needs empty caches; these hold {self.position} tokens")
        check_position(self.graph, ids.shape[1] - 1)
        view = prefill_view(self.graph)
        lengths = np.full(len(ids), ids.shape[1], np.int64)
        made = {
            name: codes
            for name, codes in self._run(view, {view.inputs[0]: ids}, lengths)
            if name in view.outputs
        }
        self.caches = {name: made[name] for name in self.caches}
        self.position = ids.shape[1]
        return made[self.graph.outputs[0]]

    def step(self, ids: npt.NDArray[np.int64]) -> dict[str, Array]:
        """Decode one token of each sequence, ids [B]; return every tensor of the step's graph, [B, *shape].

        Raises:
            GraphError: the graph was built for no such position.
        """
        view = decode_view(self.graph, self.position)
        inputs = {c.past: self.caches[c.tensor] for c in self._layout}
        inputs[view.inputs[0]] = ids[:, None]
        made = dict(self._run(view, inputs, None))
        self.caches = {c.tensor: made[c.extended] for c in self._layout}
        self.position += 1
        return made


def generate(
    decoder: Decoder, prompt: npt.NDArray[np.int64], tokens: int
) -> tuple[list[int], npt.NDArray[np.int64]]:
    """Continue one prompt greedily; the lowest id wins a tie.

    Args:
        decoder: with empty caches, for one sequence.
        prompt: ids [T].
        tokens: how many to generate; the first comes from the prefill, each other one from a step.

    Returns:
        the generated ids, and the codes of the logits that each was chosen from, [tokens, V].

    Raises:
        DataError: the prompt is empty, holds ids that the model does not know, or leaves too little room.
    """
    _check_prompt(decoder.graph, prompt, tokens)
    rows = [decoder.prefill(prompt[None])[0, -1]]
    ids = [int(rows[0].argmax())]
    while len(ids) < tokens:
        made = decoder.step(np.array(ids[-1:], np.int64))
        rows.append(made[decoder.graph.outputs[0]][0, -1])
        ids.append(int(rows[-1].argmax()))
    return ids, np.stack(rows).astype(np.int64)


def _check_prompt(graph: QuantGraph, prompt: npt.NDArray[np.int64], tokens: int) -> None:
    if len(prompt) == 0:
        raise DataError("the prompt must have at least one token id, has none")
    if tokens < 1:
        raise DataError(f"tokens must be at least 1, is {tokens}")
    known = vocabulary(graph)
    wrong = [int(i) for i in prompt if not 0 <= i < known]
    if wrong:
        raise DataError(f"prompt: token ids must be 0 to {known - 1}, not {wrong[0]}")
    room = graph.max_length - len(prompt) + 1  # the last token generated is never read
    if tokens > room:
        raise DataError(
            f"a prompt of {len(prompt)} tokens leaves room for {max(room, 0)} new ones, not {tokens}: the model was"
            f" built for {graph.max_length} positions; give a shorter prompt or ask for fewer tokens"
        )


def vocabulary(graph: QuantGraph) -> int:
    """Return how many token ids a graph knows: the fewest rows of the tables that they address."""
    tables = [n for n in graph.nodes if n.op == "embedding" and n.inputs[0] == graph.inputs[0]]
    return min(int(graph.constant(n, "weight").shape[0]) for n in tables)
