"""Messages for models with unions, whose tags pydantic mixes into the path of an error."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from hwsim.config.load import load_spec
from hwsim.errors import ConfigError


class Strict(BaseModel):
    """Base of the models here."""

    model_config = ConfigDict(strict=True, extra="forbid")


class New(Strict):
    """A model whose tag is spelled like its own key."""

    family: str
    options: dict[str, int | float | str] = Field(default_factory=dict)


class Pretrained(Strict):
    """The other member of the union."""

    checkpoint: str


class Left(Strict):
    """A member of a union without tags: each member finds the other's key unknown."""

    left: int


class Top(Strict):
    """The other member."""

    top: int


def _tag(data: Any) -> str:
    return "family" if "family" in data else "checkpoint"


class Run(Strict):
    """The document."""

    model: Annotated[
        Annotated[New, Tag("family")] | Annotated[Pretrained, Tag("checkpoint")],
        Discriminator(_tag),
    ]
    size: int = 1
    plain: Left | Top | None = None


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (
            "model: {family: vit, famly: 3}\n",
            [
                "1:22: model.famly: must be a known key (family, options), not 'famly';"
                " did you mean 'family'?"
            ],
        ),
        (
            "model:\n  family: vit\n  options: {patch: [2]}\n",
            ["3:20: model.options.patch: must be a whole number or a number or text, not a list"],
        ),
        ("model: {family: 3}\n", ["1:17: model.family: must be text, not 3"]),
        (
            "model: {family: vit, checkpoint: x}\n",
            ["1:22: model.checkpoint: must be a known key (family, options), not 'checkpoint'"],
        ),
        (
            "model: {family: vit}\nplain: {left: 1, top: 2}\n",
            [
                "2:9: plain.left: must be a known key (left, top), not 'left'",
                "2:18: plain.top: must be a known key (left, top), not 'top'",
            ],
        ),
        ("model: {}\n", ["1:1: model.checkpoint: must be given: this key is missing"]),
        (
            "model: {chekpoint: x}\nsize: many\n",
            [
                "1:9: model.chekpoint: must be a known key; did you mean 'checkpoint'?"
                " (that one is missing)",
                "2:7: size: must be a whole number, not 'many'",
            ],
        ),
        ("size: 1\n", ["1:1: model: must be given: this key is missing"]),
    ],
)
def test_one_message_a_fault_with_the_documents_own_path(
    text: str, faults: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_spec(path, Run)
    assert list(caught.value.faults) == [f"{path}:{fault}" for fault in faults]
