"""Train transformers to 8, 2 and 1 bits, and hand their integer graph to `hwsim`.

>>> student = qat.prepare(model, "bit_w1a1")                               # doctest: +SKIP
>>> trainer = qat.DistillationTrainer(model=student, teacher=model, ...)   # doctest: +SKIP
>>> trainer.train(resume_from_checkpoint=True)                             # doctest: +SKIP
>>> graph = qat.export(student, calibration=rows, out="model")             # doctest: +SKIP
>>> print(qat.summary(student))                                            # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qat.exporter import export
    from qat.hf.trainer import DistillationTrainer
    from qat.overview import summary
    from qat.student import prepare

__all__ = ["DistillationTrainer", "export", "prepare", "summary"]

_HOMES = {
    "DistillationTrainer": "qat.hf.trainer",
    "export": "qat.exporter",
    "prepare": "qat.student",
    "summary": "qat.overview",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `import qat` waits for neither torch nor transformers."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'qat' has no attribute {name!r}")
