"""`python -m studies.bench`: what quantised training costs beside float32, as ratios of things timed in turn.

No number here is a time by itself: machines differ, and one machine differs from minute to minute. Contenders run
one after the other, round after round, in one process with the same threads; a ratio is that of two neighbours, and
the median and the middle half of all rounds' ratios are reported. Runs in minutes, belongs in no test.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwsim.cli.errors import run_app
from hwsim.provenance import source_revision
from studies.host import describe_host
from studies.plan import write_atomically

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from qat.objective import Objective

SCHEMA = "studies/bench/1"
RECIPES = ("ti_g_w2a8", "bit_w1a1")
WIDTHS = (384, 1536)
"""of MiniLM: six linear layers go from one to the other and back"""
STACK_ROWS = 2048
WARM_UP = 3

app = typer.Typer(
    help="Ratios of things timed in turn in one process.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How much longer one thing takes than another: median, and the quartiles of the rounds."""

    name: str
    against: str
    median: float
    quartiles: tuple[float, float]
    rounds: int


@app.callback()
def _commands() -> None:
    """One subcommand for each thing that is timed."""


@app.command()
def qat(
    rounds: Annotated[int, typer.Option(min=3, help="How often each contender is timed.")] = 15,
    rows: Annotated[int, typer.Option(min=1, help="Sentences of a batch.")] = 32,
    tokens: Annotated[int, typer.Option(min=2, help="Their length.")] = 64,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE")] = None,
) -> None:
    """Time training steps of MiniLM students, and a stack of linear layers, against float32.

    Needs the extra `text`; with Brevitas installed its layers are timed beside ours.
    """
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    found = [*step_ratios(rounds, rows, tokens), *stack_ratios(rounds)]
    for r in found:
        low, high = r.quartiles
        typer.echo(f"{r.name} / {r.against}: {r.median:.2f} (middle half {low:.2f} to {high:.2f})")
    if out is not None:
        result = {
            "schema": SCHEMA,
            "name": "bench_qat",
            "date": datetime.now(UTC).date().isoformat(),
            "git_revision": source_revision(),
            "host": describe_host(),
            "threads": threads,
            "batch": {"rows": rows, "tokens": tokens},
            "torch": torch.__version__,
            "ratios": [asdict(r) for r in found],
        }
        write_atomically(out, json.dumps(result, indent=1) + "\n")


@app.command()
def cost(
    machines: Annotated[int, typer.Option(min=2, help="How many machines are drawn.")] = 40,
) -> None:
    """Count machines a second of one `hwsim.cost` call beside one call a machine."""
    from studies.bench_cost import rates

    for r in rates(machines):
        typer.echo(
            f"{r.graph}, {r.machines} machines: {r.together:.2f} a second in one call, {r.one_by_one:.2f} one by one,"
            f" {r.ratio:.2f} times as many"
        )


@app.command()
def ledger(
    rows: Annotated[int, typer.Option(min=1, help="Rows of the study, about.")] = 10_000,
    report: Annotated[bool, typer.Option(help="Build the report, too.")] = True,
) -> None:
    """Time reading, asking and reporting studies of invented numbers, one that trains and one of hardware alone."""
    from studies.bench_ledger import costs

    for c in costs(rows, report):
        page = "" if c.page_mb is None else f", a page of {c.page_mb:.1f} MB"
        typer.echo(
            f"{c.shape:10}{c.step:24}{c.seconds:8.2f} s {c.cpu_s:8.2f} s of CPU {c.peak_mb:8.0f} MB at most{page}"
        )


def bench_section(result: Mapping[str, Any]) -> list[str]:
    """Return the lines of a benchmark's section of the page of results, in Markdown."""
    batch = result["batch"]
    lines = [
        f"## {result['name']}",
        "",
        f"`python -m studies.bench qat`: {batch['rows']} sentences of {batch['tokens']} tokens, {result['threads']} thread(s),"
        f" torch {result['torch']}; revision `{(result['git_revision'] or 'unknown')[:12]}`, {result['date']},"
        f" {result['host']['processor']}. Ratios of things timed in turn, in one process.",
        "",
        "| | against | median | middle half |",
        "|---|---|---|---|",
    ]
    for r in result["ratios"]:
        low, high = r["quartiles"]
        lines.append(
            f"| {r['name']} | {r['against']} | {r['median']:.2f} | {low:.2f} to {high:.2f} |"
        )
    return [*lines, ""]


def in_turn(
    contenders: dict[str, Callable[[], object]], pairs: Sequence[tuple[str, str]], rounds: int
) -> list[Ratio]:
    """Time all contenders round after round; return the ratios of the pairs."""
    for run in contenders.values():
        for _ in range(WARM_UP):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    found = []
    for name, against in pairs:
        ratios = sorted(a / b for a, b in zip(seconds[name], seconds[against], strict=True))
        low, _, high = statistics.quantiles(ratios, n=4)
        found.append(Ratio(name, against, statistics.median(ratios), (low, high), rounds))
    return found


# -- whole steps ----------------------------------------------------------------------------------


def step_ratios(rounds: int, rows: int, tokens: int) -> list[Ratio]:
    """Teacher forward, student forward and backward: each recipe against float32.

    `float32` is the same two models as Hugging Face runs them by themselves (its own attention), with the logits and
    hidden states compared; `float32, same terms` has the recipe's own objective and no quantiser.
    """
    from transformers import AutoModelForSequenceClassification

    from qat.pretrained import MINILM, checkpoint_source
    from qat.recipe import load_recipe

    teacher = AutoModelForSequenceClassification.from_pretrained(
        checkpoint_source(MINILM), num_labels=2, attn_implementation="sdpa"
    )
    batch = random_batch(teacher.config.vocab_size, rows, tokens)
    contenders: dict[str, Callable[[], object]] = {"float32": plain_step(teacher, batch)}
    pairs = []
    for name in RECIPES:
        nothing = ["quantization={}", "activation_function=null", "method=null"]
        contenders[f"{name} step"] = recipe_step(teacher, load_recipe(name), batch)
        same = f"float32, terms of {name}"
        contenders[same] = recipe_step(teacher, load_recipe(name, nothing), batch)
        pairs += [(f"{name} step", "float32"), (f"{name} step", same)]
    return in_turn(contenders, pairs, rounds)


def random_batch(vocabulary: int, rows: int, tokens: int) -> dict[str, Tensor]:
    """Sentences of one length: padding would cost all contenders alike."""
    import torch

    ids = torch.randint(1000, vocabulary, (rows, tokens))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def recipe_step(
    teacher: PreTrainedModel, recipe: Any, batch: dict[str, Tensor]
) -> Callable[[], object]:
    """The recipe's loss and gradient in the longest phase of a run, where nothing is injected any more."""
    import copy

    from qat.objective import Objective
    from qat.quantizers.lifecycle import initialise
    from qat.student import prepare

    student = prepare(copy.deepcopy(teacher), recipe).train()
    initialise(student, [batch])
    objective: Objective = Objective(student, copy.deepcopy(teacher), recipe, total_steps=1000)

    def run() -> None:
        loss, _ = objective(batch, 500)
        loss.backward()
        student.zero_grad()

    return run


def plain_step(teacher: PreTrainedModel, batch: dict[str, Tensor]) -> Callable[[], object]:
    """Distillation of logits and hidden states between two models that nothing was done to."""
    import copy

    import torch
    from torch.nn.functional import cross_entropy, mse_loss

    wise, student = copy.deepcopy(teacher).eval(), copy.deepcopy(teacher).train()

    def run() -> None:
        with torch.no_grad():
            wanted = wise(**batch, output_hidden_states=True)
        got = student(**batch, output_hidden_states=True)
        loss = cross_entropy(got.logits, wanted.logits.softmax(-1))
        for ours, theirs in zip(got.hidden_states, wanted.hidden_states, strict=True):
            loss = loss + mse_loss(ours, theirs)
        loss.backward()
        student.zero_grad()

    return run


# -- a stack of linear layers ---------------------------------------------------------------------


def stack_ratios(rounds: int) -> list[Ratio]:
    """Forward and backward of six W2A8 linear layers against the same in float32; Brevitas beside ours."""
    import torch

    x = torch.randn(STACK_ROWS, WIDTHS[0])
    contenders = {
        "float32 stack": layers_step(float_stack(), x),
        "W2A8 stack": layers_step(our_stack(), x),
    }
    pairs = [("W2A8 stack", "float32 stack")]
    theirs = brevitas_stack()
    if theirs is None:
        typer.echo(
            "Brevitas is not installed (pip install brevitas==0.13.4): its layers are left out"
        )
    else:
        contenders["Brevitas W2A8 stack"] = layers_step(theirs, x)
        pairs.append(("Brevitas W2A8 stack", "float32 stack"))
    return in_turn(contenders, pairs, rounds)


def float_stack() -> nn.Sequential:
    """Six linear layers, WIDTHS[0] to WIDTHS[1] and back."""
    from torch import nn

    sizes = [WIDTHS, WIDTHS[::-1]] * 3
    return nn.Sequential(*(nn.Linear(a, b) for a, b in sizes))


def our_stack() -> nn.Sequential:
    """The same with ternary weights and 8-bit inputs, as `kd_w2a8` has them."""
    from torch import nn

    from qat.modules.linear import QuantLinear
    from qat.quantizers.activation import DynamicQuantizer
    from qat.quantizers.weight import WeightQuantizer
    from qat.step import StepState

    layers = []
    for layer in float_stack():
        assert isinstance(layer, nn.Linear)
        new = QuantLinear.from_float(layer, ("ffn1",), StepState())
        new.weight_quantizer = WeightQuantizer("TERNARY", "twn", "tensor", clip=2.5)
        new.input_quantizer = DynamicQuantizer("INT8", clip=2.5)
        layers.append(new)
    return nn.Sequential(*layers)


def brevitas_stack() -> nn.Sequential | None:
    """Brevitas' own ternary weights and 8-bit inputs; None where it is not installed."""
    try:
        from brevitas.nn import QuantLinear
        from brevitas.quant import Int8ActPerTensorFloat, SignedTernaryWeightPerTensorConst
    except ImportError:
        return None
    from torch import nn

    sizes = [WIDTHS, WIDTHS[::-1]] * 3
    return nn.Sequential(
        *(
            QuantLinear(
                a,
                b,
                bias=True,
                weight_quant=SignedTernaryWeightPerTensorConst,
                input_quant=Int8ActPerTensorFloat,
            )
            for a, b in sizes
        )
    )


def layers_step(stack: nn.Sequential, x: Tensor) -> Callable[[], object]:
    """Forward and backward through a stack in training mode, the input's gradient included."""
    stack.train()

    def run() -> None:
        value = x.detach().requires_grad_()
        stack(value).sum().backward()
        stack.zero_grad()

    return run


def main() -> None:
    """Entry point of `python -m studies.bench`."""
    run_app(app, "python -m studies.bench")


if __name__ == "__main__":
    main()
