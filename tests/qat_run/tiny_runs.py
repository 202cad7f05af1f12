"""Tiny models and data: nothing is downloaded, nothing takes long."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from qat.config import RunConfig, run_config

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "row", "of", "sentence", "question"]
SMALL_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "patch_size": 4,
}


@cache
def word_tokenizer() -> Any:
    """Return a BERT tokenizer of nine words and the ten digits."""
    from transformers import BertTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocab.txt"
        vocabulary.write_text("\n".join([*WORDS, *"0123456789"]) + "\n")
        return BertTokenizerFast(vocab=str(vocabulary))


def digits_run(recipe: Any = "float", **changes: Any) -> RunConfig:
    """Return a run of a tiny model on the digits; `train` keys given in `changes` are merged."""
    train = {
        "steps": 8,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "evaluate_every": 4,
        "log_every": 1,
    }
    values: dict[str, Any] = {
        "schema": "qat/run/1",
        "name": "tiny",
        "task": "digits",
        "recipe": recipe,
        "train": {**train, **changes.pop("train", {})},
        **changes,
    }
    if "teacher" not in changes and "model" not in changes:
        values["model"] = {"family": "vit", "config": SMALL_VIT | {"hidden_dropout_prob": 0.1}}
    return run_config(values)
