"""What became of each part of a model: formats, bytes, and why something is still float."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from hwsim.errors import ConfigError
from qat.attention import AttentionOperands
from qat.hf.quantizer import recipe_of
from qat.modules.norm import ChannelScale
from qat.quantizers.activation import (
    ActivationQuantizer,
    DynamicQuantizer,
    LearnedQuantizer,
    SignQuantizer,
)
from qat.quantizers.weight import WeightQuantizer
from qat.roles import family_of, match
from qat.student import is_prepared

FLOAT = "FLOAT32"
_PARTS = ("query", "key", "value", "probabilities")
_HEADER = ("module", "role", "weight", "input", "bytes", "why float")


@dataclass(frozen=True)
class SummaryRow:
    """One module with parameters, or the operands of one attention block."""

    name: str
    role: str
    """of `qat.roles`; empty where the family's table has none for it"""
    kind: str
    shape: tuple[int, ...]
    """of the weight"""
    weight: str
    """number type of the weight's codes, FLOAT32 where it is not quantised, empty where there is none"""
    granularity: str
    """of the weight's scale: `row` or `tensor`, empty where there is none"""
    input: str
    """number type of the input's codes; of attention operands all four: `q:INT8 k:INT8 v:INT8 p:UINT8`"""
    range: str
    """of the input's scale: `learned`, `unit`, `dynamic` or `frozen`, and `token` where it has one a token"""
    weight_bytes: int
    """Packed codes plus float32 scales; float32 for what is not quantised."""
    float_bytes: int
    """The same parameters in float32."""
    reason: str
    """why something here is float32; empty where nothing is"""


@dataclass(frozen=True)
class Summary:
    """Rows in the order of the model; prints as a table."""

    rows: tuple[SummaryRow, ...]
    recipe: str
    absent: tuple[str, ...]
    """roles that the recipe quantises and this model does not have"""

    def __iter__(self) -> Iterator[SummaryRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights; a table that two modules share is stored by each in its own format."""
        return sum(row.weight_bytes for row in self.rows)

    def __str__(self) -> str:
        cells = [_HEADER, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(_HEADER))]
        lines = [
            "  ".join(
                text.rjust(width) if name == "bytes" else text.ljust(width)
                for name, text, width in zip(_HEADER, line, widths, strict=True)
            ).rstrip()
            for line in cells
        ]
        plain = sum(row.float_bytes for row in self.rows)
        lines.append(f"recipe {self.recipe}: {self.weight_bytes:,} bytes, {plain:,} in float32")
        if self.absent:
            lines.append(
                f"the recipe's roles that this model does not have: {', '.join(self.absent)}"
            )
        return "\n".join(lines)


def summary(student: PreTrainedModel) -> Summary:
    """Return one row per parameter-holding module of a prepared model, and its attention operands.

    Raises:
        ConfigError: the model does not come from `qat.prepare`.
    """
    if not is_prepared(student):
        raise ConfigError(
            f"summary: the model must come from qat.prepare(model, recipe), this {type(student).__name__} does not"
        )
    family = family_of(student.config.model_type)
    names = [name for name, _ in student.named_modules()]
    found = match(family, names)
    roles = {name: role for role, hits in found.items() for name in hits}
    rows = []
    seen: dict[int, str] = {}
    for name, module in student.named_modules():
        if isinstance(module, AttentionOperands):
            rows.append(_operands_row(name, module, student))
        elif not isinstance(
            module, LearnedQuantizer | DynamicQuantizer | WeightQuantizer | ChannelScale
        ):
            parameters = dict(module.named_parameters(recurse=False))
            if parameters:
                rows.append(_row(name, roles.get(name, ""), module, student, seen))
    recipe = recipe_of(student)
    absent = []
    if recipe is not None:
        spec = recipe.quantization
        wanted = [*spec.roles, *(["word_embedding"] if spec.word_embedding else [])]
        absent = [role for role in wanted if not found.get(role) and role not in _FUSED]
    return Summary(tuple(rows), "none" if recipe is None else recipe.name, tuple(absent))


_FUSED = ("q", "k", "v")  # GPT-2 has them in one projection


def _row(
    name: str, role: str, module: nn.Module, student: PreTrainedModel, seen: dict[int, str]
) -> SummaryRow:
    parameters = dict(module.named_parameters(recurse=False))
    main = parameters.get("weight", next(iter(parameters.values())))
    quantizer: WeightQuantizer | None = getattr(module, "weight_quantizer", None)
    taken: ActivationQuantizer | None = getattr(module, "input_quantizer", None)
    float_bytes = size = sum(4 * p.numel() for p in parameters.values())
    if quantizer is not None:
        scales = main.shape[0] if quantizer.granularity == "row" else 1
        row_bytes = (main[0].numel() * quantizer.bits + 7) // 8
        size += main.shape[0] * row_bytes + 4 * scales - 4 * main.numel()
    owner = seen.setdefault(id(main), name)
    return SummaryRow(
        name=name,
        role=role,
        kind=type(module).__name__,
        shape=tuple(main.shape),
        weight=quantizer.fmt if quantizer else FLOAT,
        granularity=quantizer.granularity if quantizer else "",
        input=taken.fmt if taken else FLOAT,
        range=_range(taken) if taken else "",
        weight_bytes=size,
        float_bytes=float_bytes,
        reason=_reason(role, module, quantizer is None, taken is None, student)
        + (f"; its latent weight is that of {owner}" if owner != name else ""),
    )


def _operands_row(name: str, module: AttentionOperands, student: PreTrainedModel) -> SummaryRow:
    operands: dict[str, ActivationQuantizer | None] = {p: getattr(module, p) for p in _PARTS}
    formats = {part: q.fmt if q else FLOAT for part, q in operands.items()}
    if module.bool_map:
        del operands["probabilities"]  # the map itself is codes
        formats["probabilities"] = "UNIPOLAR"
    ranges = dict.fromkeys(_range(q) for q in operands.values() if q is not None)
    missing = [part for part, q in operands.items() if q is None]
    return SummaryRow(
        name=name,
        role="attention",
        kind="attention",
        shape=(),
        weight="",
        granularity="",
        input=" ".join(f"{part[0]}:{fmt}" for part, fmt in formats.items()),
        range=" ".join(ranges),
        weight_bytes=0,
        float_bytes=0,
        reason=f"{_recipe_says(student)} no {', '.join(missing)}" if missing else "",
    )


def _range(quantizer: ActivationQuantizer) -> str:
    if isinstance(quantizer, LearnedQuantizer):
        return "learned"
    if isinstance(quantizer, SignQuantizer):
        return "unit"
    if quantizer.granularity == "token":
        return "dynamic, token"
    return "frozen" if quantizer.is_frozen else "dynamic"


def _recipe_says(student: PreTrainedModel) -> str:
    recipe = recipe_of(student)
    return "a teacher quantises" if recipe is None else f"recipe {recipe.name} quantises"


def _reason(
    role: str, module: nn.Module, weight: bool, taken: bool, student: PreTrainedModel
) -> str:
    """Say why the weight, the input or both are float32."""
    if isinstance(module, nn.LayerNorm):
        recipe = recipe_of(student)
        grid = None if recipe is None else recipe.quantization.residual
        return (
            f"layer norm, {'its values on a grid of ' + grid if grid else '16 bits when exported'}"
        )
    if isinstance(module, nn.Embedding):
        if role == "word_embedding":
            return f"{_recipe_says(student)} no word embedding" if weight else ""
        return "added to the word embedding, 16 bits when exported"
    if not weight and not taken:
        return ""
    if not role:
        return "no role of the family's table; 8 bits when exported"
    if role == "embeddings":
        return "tokens and positions that are added; 16 bits when exported"
    sides = "no" if weight != taken else "neither"
    which = "weight nor input" if weight and taken else "weight" if weight else "input"
    return f"{_recipe_says(student)} {sides} {which} of {role}"


def _cells(row: SummaryRow) -> tuple[str, ...]:
    weight = f"{row.weight} per {row.granularity}" if row.granularity else row.weight
    taken = f"{row.input} {row.range}" if row.range else row.input
    if not row.range and row.kind in ("LayerNorm", "Embedding", "QuantEmbedding"):
        taken = ""
    return row.name, row.role, weight, taken, f"{row.weight_bytes:,}", row.reason
