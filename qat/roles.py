"""Where the parts of a model family are: one small table per family, data only.

`*` stands for one component of a dotted module name (the layer number) or a part of one, `?` for one letter.
Adding a family is one more table; everything else is generic. A pattern that matches no module is an error, except those that the
family lists as optional.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hwsim.errors import GraphError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Edge:
    """A layer norm whose output goes into these linear layers and nowhere else, by their roles.

    A positive factor a channel can move from the weights of the linear layers into the layer norm without
    changing what the model computes.
    """

    norm: str
    linear: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """Role -> pattern of module names.

    Linear roles: `q k v o ffn1 ffn2` (or `qkv`, one fused projection), `pooler`, `classifier`, `patch` (the
    projection of image patches).
    Others: `attention` (the module that calls the attention function), `act` (feed-forward activation),
    `word_embedding`, `embeddings` (its output is the first hidden state), `layer`, and `post_attention_norm`
    (the layer norm that follows the attention block). All roles `*_norm` together are the layer norms;
    `embedding_parts` are the tables (or the patch projection) whose sum begins the residual stream.
    `norm` says whether a layer norm stands at the end of a branch's sum (`post`) or at its start (`pre`).
    `edges` are the layer norms that linear layers alone read, layer by layer. In a post-LN model there are
    none: each layer norm's output is the residual stream as well. A final layer norm in front of a tied output
    layer is none either: its weight is the embedding table, too.
    `positions` says where positions are counted from: 0, or the one behind the padding token's id (`after_pad`).
    """

    norm: Literal["post", "pre"]
    patterns: dict[str, str]
    edges: tuple[Edge, ...] = ()
    optional: frozenset[str] = frozenset({"pooler", "classifier", "patch", "word_embedding"})
    positions: Literal["from_zero", "after_pad"] = "from_zero"


_BERT = {
    "q": "*.encoder.layer.*.attention.self.query",
    "k": "*.encoder.layer.*.attention.self.key",
    "v": "*.encoder.layer.*.attention.self.value",
    "o": "*.encoder.layer.*.attention.output.dense",
    "ffn1": "*.encoder.layer.*.intermediate.dense",
    "act": "*.encoder.layer.*.intermediate.intermediate_act_fn",
    "ffn2": "*.encoder.layer.*.output.dense",
    "attention": "*.encoder.layer.*.attention.self",
    "embedding_norm": "*.embeddings.LayerNorm",
    "post_attention_norm": "*.encoder.layer.*.attention.output.LayerNorm",
    "post_feed_forward_norm": "*.encoder.layer.*.output.LayerNorm",
    "layer": "*.encoder.layer.*",
    "embeddings": "*.embeddings",
    "embedding_parts": "*.embeddings.*_embeddings",
    "word_embedding": "*.embeddings.word_embeddings",
    "pooler": "*.pooler.dense",
    "classifier": "classifier",
}

_VIT = {
    "q": "*.layers.*.attention.q_proj",
    "k": "*.layers.*.attention.k_proj",
    "v": "*.layers.*.attention.v_proj",
    "o": "*.layers.*.attention.o_proj",
    "ffn1": "*.layers.*.mlp.fc1",
    "act": "*.layers.*.mlp.activation_fn",
    "ffn2": "*.layers.*.mlp.fc2",
    "attention": "*.layers.*.attention",
    "pre_attention_norm": "*.layers.*.layernorm_before",
    "post_attention_norm": "*.layers.*.layernorm_after",
    "final_norm": "*.layernorm",
    "layer": "*.layers.*",
    "embeddings": "*.embeddings",
    "embedding_parts": "*.embeddings.patch_embeddings",
    "patch": "*.embeddings.patch_embeddings.projection",
    "pooler": "*.pooler.dense",
    "classifier": "classifier",
}

_VIT_EDGES = (
    Edge("pre_attention_norm", ("q", "k", "v")),
    Edge("post_attention_norm", ("ffn1",)),
)

FAMILIES: dict[str, Family] = {
    "bert": Family("post", _BERT),
    "roberta": Family(
        "post",
        {**_BERT, "pooler": "classifier.dense", "classifier": "classifier.out_proj"},
        positions="after_pad",
    ),
    "distilbert": Family(
        "post",
        {
            "q": "*.transformer.layer.*.attention.q_lin",
            "k": "*.transformer.layer.*.attention.k_lin",
            "v": "*.transformer.layer.*.attention.v_lin",
            "o": "*.transformer.layer.*.attention.out_lin",
            "ffn1": "*.transformer.layer.*.ffn.lin1",
            "act": "*.transformer.layer.*.ffn.activation",
            "ffn2": "*.transformer.layer.*.ffn.lin2",
            "attention": "*.transformer.layer.*.attention",
            "embedding_norm": "*.embeddings.LayerNorm",
            "post_attention_norm": "*.transformer.layer.*.sa_layer_norm",
            "post_feed_forward_norm": "*.transformer.layer.*.output_layer_norm",
            "layer": "*.transformer.layer.*",
            "embeddings": "*.embeddings",
            "embedding_parts": "*.embeddings.*_embeddings",
            "word_embedding": "*.embeddings.word_embeddings",
            "pooler": "pre_classifier",
            "classifier": "classifier",
        },
    ),
    "vit": Family("pre", _VIT, _VIT_EDGES),
    "deit": Family("pre", _VIT, _VIT_EDGES),
    "gpt2": Family(
        "pre",
        {
            "qkv": "*.h.*.attn.c_attn",
            "o": "*.h.*.attn.c_proj",
            "ffn1": "*.h.*.mlp.c_fc",
            "act": "*.h.*.mlp.act",
            "ffn2": "*.h.*.mlp.c_proj",
            "attention": "*.h.*.attn",
            "pre_attention_norm": "*.h.*.ln_1",
            "post_attention_norm": "*.h.*.ln_2",
            "final_norm": "*.ln_f",
            "layer": "*.h.*",
            "embeddings": "*.drop",
            "embedding_parts": "*.w?e",
            "word_embedding": "*.wte",
            "classifier": "score",
        },
        (Edge("pre_attention_norm", ("qkv",)), Edge("post_attention_norm", ("ffn1",))),
    ),
}


def family_of(model_type: str) -> Family:
    """The table of a model family.

    Raises:
        GraphError: the family has no table.
    """
    if model_type not in FAMILIES:
        known = sorted(FAMILIES)
        raise GraphError(
            f"model type must be one of {', '.join(known)}, not {model_type!r}"
            f"{nearest(model_type, known)}; a family is added by one table in qat/roles.py"
        )
    return FAMILIES[model_type]


def position_limit(config: PreTrainedConfig) -> int:
    """Return how many positions a sequence of a text model may have."""
    limit = int(config.max_position_embeddings)
    after_pad = family_of(config.model_type).positions == "after_pad"
    return limit - first_position(config) if after_pad else limit


def first_position(config: PreTrainedConfig) -> int:
    """Return the first position's number where they are counted from behind the padding token's id."""
    return int(config.pad_token_id) + 1


def match(family: Family, module_names: Iterable[str]) -> dict[str, list[str]]:
    """Role -> names of its modules, in the order of the model.

    Raises:
        GraphError: patterns that match nothing, all at once.
    """
    names = list(module_names)
    found: dict[str, list[str]] = {}
    for role, pattern in family.patterns.items():
        regex = re.compile(_regex(pattern))
        # A bare backbone (BertModel) has no prefix in front of its parts.
        bare = re.compile(_regex(pattern.removeprefix("*.")))
        found[role] = [n for n in names if regex.fullmatch(n) or bare.fullmatch(n)]
    missing = [
        f"role {role} ({family.patterns[role]})"
        for role, hits in found.items()
        if not hits and role not in family.optional
    ]
    if missing:
        raise GraphError(f"no module of the model matches {'; '.join(missing)}")
    return found


def edges(model_type: str, roles: dict[str, list[str]]) -> list[tuple[str, tuple[str, ...]]]:
    """Layer norm and linear layers of every edge of a model, by module names.

    Args:
        model_type: the family's key in `FAMILIES`.
        roles: role -> module names, from `match`.

    Raises:
        GraphError: the family has no such edge.
    """
    table = family_of(model_type).edges
    if not table:
        others = [name for name, family in FAMILIES.items() if family.edges]
        raise GraphError(
            f"{model_type}: no layer norm can take a scale a channel: each one's output is read by linear layers"
            " and added to the residual stream as well (post-LN), which would be scaled too; channel scales need"
            f" a pre-LN family: {', '.join(others)}"
        )
    found = []
    for edge in table:
        layers = zip(roles[edge.norm], *(roles[role] for role in edge.linear), strict=True)
        found += [(norm, tuple(linear)) for norm, *linear in layers]
    return found


def _regex(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", "[^.]+").replace(r"\?", "[^.]")
