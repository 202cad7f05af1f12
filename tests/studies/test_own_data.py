"""docs/studies.md, "A study on your own data": its two commands write the files that it shows, and these run."""

from __future__ import annotations

import random
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import hwsim.cli
from studies import new, sweep
from studies.space import load_study
from studies.table import load_results

PAGE = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```yaml (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^    (python -m (?:hwsim|studies.new) .*)$", PAGE, re.MULTILINE)
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = {"good": ["good", "great"], "bad": ["dull", "poor"]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table and a checkpoint: an encoder without a head."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    for name, count in (("train.tsv", 60), ("dev.tsv", 12)):
        rows = [
            f"the film was {draw.choice(words)}\t{verdict}"
            for _ in range(count // 2)
            for verdict, words in WORDS.items()
        ]
        Path(name).write_text("\n".join(["review\tverdict", *rows]) + "\n")
    vocabulary = [*MARKS, "the", "film", "was", *WORDS["good"], *WORDS["bad"]]
    Path("vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab="vocab.txt").save_pretrained("checkpoint")
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=64,
        )
    ).save_pretrained("checkpoint")
    return tmp_path


@pytest.mark.usefixtures("without_figures", "folder")
def test_the_pages_commands_write_its_files_and_these_run() -> None:
    for module, app in (("hwsim", hwsim.cli.app), ("studies.new", new.app)):
        command = next(line for line in COMMANDS if line.startswith(f"python -m {module} "))
        ended = CliRunner().invoke(app, shlex.split(command)[3:])
        assert ended.exit_code == 0, ended.output
    assert {name: Path(name).read_text(encoding="utf-8") for name in FILES} == FILES
    study = load_study(Path("reviews.yaml"), [])
    short = ["teacher", *(f"students.{i}" for i in range(len(study.students)))]
    settings = [f"{part}.train={{steps: 2, batch_size: 8}}" for part in short]
    with pytest.raises(typer.Exit) as end:
        sweep.main("reviews.yaml", workers=0, overrides=[*settings, "samples=4"])
    assert end.value.exit_code == 0
    results = load_results(Path("bitwright-runs/reviews"))
    assert {(r.student, r.machine) for r in results.rows} == {
        (student, machine)
        for student in ("W8A8", "W2A8", "W1A1")
        for machine in ("bitserial_edge", "my_edge")
    }
    assert {(r.status, r.unequal_tensors) for r in results.rows} == {("ok", 0)}
    page = Path("bitwright-runs/reviews/report.html").read_text(encoding="utf-8")
    assert "table train.tsv / dev.tsv, review -&gt; verdict" in page


def test_the_study_of_the_first_example_is_one(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(schema: .*?)```", PAGE, re.DOTALL)
    assert example is not None
    path = tmp_path / "sentiment.yaml"
    path.write_text(example[1], encoding="utf-8")
    assert load_study(path, []).samples == 32
