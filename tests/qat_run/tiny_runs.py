"""Tiny models and data: nothing is downloaded, nothing takes long."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from qat.config import RunConfig, run_config

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "row", "of", "sentence", "question"]
SMALL_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "patch_size": 4,
}
PANGRAM = "Sphinx of black quartz, judge my vow! "
SMALL_BERT: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
SMALL_GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 24}


@cache
def word_tokenizer() -> Any:
    """Return a BERT tokenizer of nine words and the ten digits."""
    from transformers import BertTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocab.txt"
        vocabulary.write_text("\n".join([*WORDS, *"0123456789"]) + "\n")
        return BertTokenizerFast(vocab=str(vocabulary))


def save_bert(folder: Path, classes: list[str] | None) -> Path:
    """Write a BERT of one tiny layer and its tokenizer: fine-tuned for some classes (one: a score), or without a head."""
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    if classes is None:
        BertModel(BertConfig(**SMALL_BERT)).save_pretrained(folder)
    else:
        config = BertConfig(**SMALL_BERT, id2label=dict(enumerate(classes)))
        BertForSequenceClassification(config).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def digits_run(recipe: Any = "float", **changes: Any) -> RunConfig:
    """Return a run of a tiny model on the digits; `train` keys given in `changes` are merged."""
    vit = {"family": "vit", "config": SMALL_VIT | {"hidden_dropout_prob": 0.1}}
    spec = {"batch_size": 16, "learning_rate": 3e-3, "evaluate_every": 4}
    return _run("digits", recipe, vit, spec, changes)


def text_run(folder: Path, recipe: Any = "float", **changes: Any) -> RunConfig:
    """Return a run of a tiny language model on a sentence, to be written into a folder, that is told again and again.

    A pangram of another author is the text out of distribution; `train` keys are merged.
    """
    near, far = folder / "fox.txt", folder / "far.txt"
    near.write_text("the quick brown fox jumps over the lazy dog. " * 80)
    far.write_text(PANGRAM * 20)
    task = {"name": "lm", "train": str(near), "dev": str(near), "block_tokens": 24}
    gpt2 = {"family": "gpt2", "config": SMALL_GPT2}
    spec = {"batch_size": 8, "learning_rate": 1e-2, "evaluate_every": 4}
    return _run(task | {"ood": {"pangram": str(far)}}, recipe, gpt2, spec, changes)


def _run(
    task: Any, recipe: Any, model: Any, spec: dict[str, Any], changes: dict[str, Any]
) -> RunConfig:
    if "teacher" not in changes and "model" not in changes:
        changes["model"] = model
    train = {"steps": 8, "log_every": 1} | spec | changes.pop("train", {})
    values = {"name": "tiny", "task": task, "recipe": recipe, "train": train, **changes}
    return run_config({"schema": "qat/run/1", **values})
