"""The result of `hwsim decode`: the tokens, what each one cost, and the cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.engine.cost import CostReport
from hwsim.engine.decode_cost import StepCost
from hwsim.engine.draws import DRAWS, SEED
from hwsim.report.plain import Table, say
from hwsim.report.result import code_sha256, package_version
from hwsim.report.table import bytes_text, energy_text, time_text

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = "hwsim/decode/1"


@dataclass(frozen=True)
class Decoded:
    """What `hwsim.decode` returns.

    Attributes:
        prompt, tokens: ids given, ids generated.
        logits: int64 [tokens, V], the codes that each token was chosen from; `logits_scale` is their scale.
        prefill: cost of the pass over the prompt, which also gives the first token.
        steps: cost of each step after it: one fewer than tokens.
        cache: `bytes` of the tokens held at the end, `bytes_per_token`, `bytes_longest` at the longest sequence.
    """

    model: str
    model_sha256: str
    machine: str
    machine_sha256: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logits: npt.NDArray[np.int64]
    logits_scale: float | None
    prefill: CostReport
    steps: tuple[StepCost, ...]
    cache: Mapping[str, float]

    @property
    def time_to_first_token_s(self) -> dict[str, float]:
        """Seconds from the prompt to the first token: `cold`, and with resident constants on chip."""
        return self.prefill.latency_s

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second after the first one, a batch of 1; None without a step."""
        seconds = sum(s.latency_s for s in self.steps)
        return len(self.steps) / seconds if self.steps else None

    def to_json(self) -> dict[str, Any]:
        """Return plain data: all but the logits, of which the chosen codes are there."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "machine": self.machine,
            "batch": 1,
            "prompt": list(self.prompt),
            "tokens": list(self.tokens),
            "logit_codes": self.logits.max(axis=1).tolist(),
            "logits_scale": self.logits_scale,
            "time_to_first_token_s": self.time_to_first_token_s,
            "tokens_per_s": self.tokens_per_s,
            "prefill": {
                "cycles": self.prefill.latency_cycles,
                "energy_pj": self.prefill.energy_pj.to_json(),
                "energy_cold_pj": self.prefill.cold.ledger.total.to_json(),
                "memory": self.prefill.memory,
            },
            "steps": [s.to_json() for s in self.steps],
            "cache": {"memory": "dram", **self.cache},
            "hashes": {
                "model": self.model_sha256,
                "machine": self.machine_sha256,
                "code": code_sha256(),
            },
            "provenance": {
                "package_version": package_version(),
                "energy_draws": DRAWS,
                "energy_seed": SEED,
            },
            "not_modelled": list(self.prefill.not_modelled),
        }

    def render(self, console: Console) -> None:
        """Print the tokens, the totals and a row a step."""
        ids = " ".join(map(str, self.tokens))
        say(
            console,
            f"{self.model} ({self.model_sha256[:12]}) on {self.machine} ({self.machine_sha256[:12]}), batch 1",
        )
        say(console, f"{len(self.prompt)} prompt tokens, {len(self.tokens)} generated: {ids}")
        for scenario, seconds in self.time_to_first_token_s.items():
            cycles = self.prefill.latency_cycles[scenario]
            say(
                console,
                f"time to first token, {scenario}: {cycles:,} cycles = {time_text(seconds)}",
            )
        say(console, f"energy of the prefill: {energy_text(self.prefill.energy_pj.nominal)}")
        if self.tokens_per_s is not None:
            say(console, f"then {self.tokens_per_s:,.1f} tokens a second")
        say(
            console,
            f"key-value cache in DRAM: {self.cache['bytes_per_token']:,.6g} bytes a token,"
            f" {bytes_text(int(self.cache['bytes']))} at the end,"
            f" {bytes_text(int(self.cache['bytes_longest']))} at the longest sequence",
        )
        if self.steps:
            say(console, self._table())
        say(console, "not modelled: " + "; ".join(self.prefill.not_modelled))

    def _table(self) -> Any:
        table = Table(title="Steps, steady")
        for name in ("position", "token", "cycles", "time", "energy (5 .. 95 %)", "cache", "from DRAM", "to DRAM"):  # fmt: skip
            table.add_column(name, justify="right")
        for token, s in zip(self.tokens[1:], self.steps, strict=True):
            band = s.energy_pj
            spread = f"{energy_text(band.low)} .. {energy_text(band.high)}"
            table.add_row(
                str(s.position), str(token), f"{s.cycles:,}", time_text(s.latency_s),
                f"{energy_text(band.nominal)} ({spread})", bytes_text(s.cache_bytes),
                bytes_text(s.traffic_bytes.get("dram_load", 0)), bytes_text(s.traffic_bytes.get("dram_store", 0)),
            )  # fmt: skip
        return table
