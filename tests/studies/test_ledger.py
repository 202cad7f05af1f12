"""The ledger file: what a crash leaves behind, which attempt counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.ledger import Attempt, Ledger, LedgerError, Status, read, view


def attempt(node_id: str = "n", number: int = 1, status: Status = "ok") -> Attempt:
    return Attempt(node_id, number, status, "train", "a label", {"x": 1.5}, ("p",), {"y": "é"})


def write(folder: Path, *attempts: Attempt) -> Path:
    with Ledger(folder) as ledger:
        for one in attempts:
            ledger.append(one)
    return folder / "ledger.jsonl"


def test_round_trip(tmp_path: Path) -> None:
    made = [attempt("a"), attempt("b", 1, "failed"), attempt("b", 2)]
    path = write(tmp_path, *made)
    assert read(path) == made
    assert read(tmp_path / "absent.jsonl") == []


@given(cut=st.integers(1, 400))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_torn_last_line_is_survived_at_every_byte(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    path = write(folder, attempt("a"), attempt("b"))
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    kept = min(second + cut, len(whole))
    path.write_bytes(whole[:kept])
    with Ledger(folder) as ledger:
        # the text of b is whole if at most its newline is missing
        assert [a.id for a in ledger.attempts] == (["a", "b"] if kept >= len(whole) - 1 else ["a"])
        ledger.append(attempt("c"))
    assert [a.id for a in read(path)][-1] == "c"
    assert path.read_bytes().endswith(b"\n")


def test_damage_before_the_end_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, attempt("a"), attempt("b"))
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(LedgerError, match=r"ledger\.jsonl:1: not an attempt"):
        Ledger(tmp_path)
    with pytest.raises(LedgerError, match=":1:"):  # the lock was given back: the same error again
        Ledger(tmp_path)


def test_view_keeps_the_last_final_attempt_else_the_last() -> None:
    history = [
        attempt("a", 1, "failed"),
        attempt("a", 2, "failed"),
        attempt("b", 1, "ok"),
        attempt("b", 2, "failed"),
        attempt("c", 1, "failed"),
        attempt("c", 2, "refused"),
        attempt("d", 1, "ok"),
        attempt("d", 2, "ok"),
    ]
    chosen = {k: (a.attempt, a.status) for k, a in view(history).items()}
    assert chosen == {"a": (2, "failed"), "b": (1, "ok"), "c": (2, "refused"), "d": (2, "ok")}


def test_attempt_numbers_go_on_after_reopening(tmp_path: Path) -> None:
    write(tmp_path, attempt("a", 1, "failed"))
    with Ledger(tmp_path) as ledger:
        assert ledger.next_attempt("a") == 2
        assert ledger.next_attempt("b") == 1
