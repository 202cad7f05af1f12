"""The ledger file: what a crash leaves behind, which attempt counts."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.ledger import (
    FILE_NAME,
    FINAL,
    Attempt,
    Ledger,
    LedgerError,
    Status,
    attempts_in,
    read,
    view,
)


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


def test_torn_last_line_is_survived_at_every_byte(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", attempt("a"), attempt("b")).read_bytes()
    second = whole.index(b"\n") + 1
    for kept in range(second, len(whole) + 1):
        folder = tmp_path / str(kept)
        folder.mkdir()
        path = folder / FILE_NAME
        path.write_bytes(whole[:kept])
        # the text of b is whole if at most its newline is missing
        there = ["a", "b"] if kept >= len(whole) - 1 else ["a"]
        assert [a.id for a in attempts_in(path)] == there
        with Ledger(folder) as ledger:
            assert [a.id for a in ledger.attempts] == there
            ledger.append(attempt("c"))
        assert path.read_bytes() == b"".join(attempt(k).to_line().encode() for k in [*there, "c"])


@given(rest=st.binary(min_size=1, max_size=40).filter(lambda b: b"\n" not in b))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_whatever_a_crash_left_at_the_end_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, rest: bytes
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    path = write(folder, attempt("a"))
    whole = path.read_bytes()
    path.write_bytes(whole + rest)
    assert read(path) == [attempt("a")]
    assert path.read_bytes() == whole + rest  # whoever only reads changes nothing
    Ledger(folder).close()
    assert path.read_bytes() == whole


def test_reading_holds_one_line_at_a_time(tmp_path: Path) -> None:
    count = 300
    big = replace(attempt(), result={"y": "x" * 20_000})
    path = write(tmp_path, *[big] * count)
    tracemalloc.start()
    try:
        assert sum(1 for _ in attempts_in(path)) == count
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 10


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


HISTORIES = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["ok", "refused", "failed"])), max_size=12
)


@given(HISTORIES)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_view_is_what_one_finds_by_looking_through_all(
    history: Sequence[tuple[str, Status]],
) -> None:
    attempts = [attempt(node, i, status) for i, (node, status) in enumerate(history)]
    wanted = {}
    for node in {a.id for a in attempts}:
        tries = [a for a in attempts if a.id == node]
        final = [a for a in tries if a.status in FINAL]
        wanted[node] = (final or tries)[-1]
    assert view(iter(attempts)) == wanted


def test_attempt_numbers_go_on_after_reopening(tmp_path: Path) -> None:
    write(tmp_path, attempt("a", 1, "failed"))
    with Ledger(tmp_path) as ledger:
        assert ledger.next_attempt("a") == 2
        assert ledger.next_attempt("b") == 1
