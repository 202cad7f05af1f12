"""Five lines from a Hugging Face classifier to its accuracy, energy and latency on a machine.

    python docs/examples/five_lines.py MODEL TRAIN.jsonl DEV.jsonl WORK

MODEL is a text classifier's folder (or hub id) with its tokenizer; the two files hold one JSON object a line,
`{"text": "...", "label": 0}`. WORK receives checkpoints and the integer model; run again, it resumes.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EvalPrediction,
    TrainingArguments,
)

import hwsim
import qat


def read(path: str, tokenizer: Any) -> list[dict[str, Any]]:
    """Read labelled texts and tokenise them."""
    rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    return [{**tokenizer(row["text"], truncation=True), "labels": row["label"]} for row in rows]


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the share of rows whose largest logit is the label's."""
    return {"accuracy": float(np.mean(prediction.predictions.argmax(-1) == prediction.label_ids))}


def main(checkpoint: str, train_file: str, dev_file: str, work: str) -> None:
    """Train, export, run."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    train, dev = read(train_file, tokenizer), read(dev_file, tokenizer)
    args = TrainingArguments(
        output_dir=f"{work}/checkpoints",
        num_train_epochs=3,
        per_device_train_batch_size=16,
        save_strategy="epoch",
        eval_strategy="epoch",
        report_to="none",
        use_cpu=True,
    )

    student = qat.prepare(model, "bit_w1a1")
    trainer = qat.DistillationTrainer(
        model=student, teacher=model, args=args, train_dataset=train, eval_dataset=dev,
        processing_class=tokenizer, compute_metrics=accuracy,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=True)
    graph = qat.export(
        student, calibration=train[:256], processing_class=tokenizer, out=f"{work}/model"
    )
    result = hwsim.run(graph, machine="xnor_edge", dataset=dev)

    print(qat.summary(student))
    result.render(Console(soft_wrap=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
