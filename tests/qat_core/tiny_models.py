"""Tiny random models of each family, and a batch for each."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)

FAMILIES = ("vit", "bert", "gpt2")
_NO_DROPOUT_BERT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def tiny(family: str, seed: int = 0, num_labels: int = 3, layers: int = 2) -> PreTrainedModel:
    """Width 16, two heads, no dropout."""
    torch.manual_seed(seed)
    if family == "vit":
        return ViTForImageClassification(
            ViTConfig(
                hidden_size=16,
                num_hidden_layers=layers,
                num_attention_heads=2,
                intermediate_size=32,
                image_size=8,
                patch_size=4,
                num_channels=1,
                num_labels=num_labels,
                initializer_range=0.2,
                **_NO_DROPOUT_BERT,
            )
        )
    if family == "bert":
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=40,
                hidden_size=16,
                num_hidden_layers=layers,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=12,
                num_labels=num_labels,
                initializer_range=0.2,
                **_NO_DROPOUT_BERT,
            )
        )
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=40,
            n_embd=16,
            n_layer=layers,
            n_head=2,
            n_positions=12,
            initializer_range=0.2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def batch_of(family: str, seed: int = 1, padded: bool = True) -> dict[str, Tensor]:
    """Three samples; the texts have 6, 4 and 2 real tokens of 6 where `padded`."""
    generator = torch.Generator().manual_seed(seed)
    if family == "vit":
        return {"pixel_values": torch.randn(3, 1, 8, 8, generator=generator)}
    ids = torch.randint(1, 40, (3, 6), generator=generator)
    lengths = torch.tensor([6, 4, 2] if padded else [6, 6, 6])
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(6) < lengths[:, None]).long(),
    }
