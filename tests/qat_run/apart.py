"""Real processes for tests that share a gradient or are killed.

They are forked from a server that has imported torch but computed nothing (autograd's threads survive no fork),
so that each starts in no time.
"""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

PRELOADED = [
    "qat.loop",
    "qat.chain",
    "sklearn.datasets",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.vit.modeling_vit",
]
TIMEOUT_S = 120.0


def start(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Start a process; `target` is a function of a module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_run, args=(target, args))
    process.start()
    return process


def _run(target: Callable[..., None], args: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    target(*args)


def together(target: Callable[..., None], count: int, *args: Any) -> None:
    """Run `target` in `count` processes that form a group, as `torchrun` would, and wait for all of them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    members = [start(_member, rank, count, port, target, args) for rank in range(count)]
    for member in members:
        member.join(TIMEOUT_S)
    codes = [member.exitcode for member in members]
    for member in members:
        member.kill()
    assert codes == [0] * count


def _member(
    rank: int, count: int, port: int, target: Callable[..., None], args: tuple[Any, ...]
) -> None:
    from qat import processes

    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in place.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    target(*args)
    processes.leave()
