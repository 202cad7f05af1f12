"""A tiny Hugging Face classifier, its tokenizer and its sentences; nothing is downloaded."""

from __future__ import annotations

import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "is", "good", "bad", "very", "not"]  # fmt: skip


@cache
def tokenizer() -> Any:
    """A BERT tokenizer of twelve words."""
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocab.txt"
        vocabulary.write_text("\n".join(WORDS) + "\n")
        return BertTokenizerFast(vocab=str(vocabulary), model_max_length=16)


def classifier(dropout: float = 0.0, layers: int = 2) -> BertForSequenceClassification:
    """Width 16, two classes, random weights."""
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        initializer_range=0.3,
        num_labels=2,
        id2label={0: "bad", 1: "good"},
        label2id={"bad": 0, "good": 1},
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForSequenceClassification(config).eval()


def texts(count: int, seed: int) -> list[dict[str, Any]]:
    """Sentences of three to nine words; those that say `good` have label 1."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        label = chance.randrange(2)
        words = chance.choices(["the", "film", "is", "very", "not"], k=chance.randrange(2, 9))
        words.insert(chance.randrange(len(words)), ("bad", "good")[label])
        rows.append({"text": " ".join(words), "label": label})
    return rows


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """The same, tokenised."""
    return [{**tokenizer()(row["text"]), "labels": row["label"]} for row in texts(count, seed)]
