"""Passes over steps, up and down: the same lines, in bounded passes, each continuing the last one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.formats.kinds import Kind, Step
from storage.session import replay
from storage.session.index import Index, scan
from storage.session.reader import Reader
from storage.session.replay import (
    START,
    Boundary,
    Pass,
    archive_form,
    backwards,
    find_boundary,
    forwards,
)
from tests.support.stores import StoreOnDisk, compaction, entry, event

KINDS: dict[str, Callable[[str], bytes]] = {"e": entry, "v": event, "c": compaction}
PLANS = st.text("eeevc", max_size=40)
"""A session, as one letter per step."""


def line(step: Step, _session_fd: int, _name: str) -> bytes | None:
    """A view's line; an event has none, so that some steps are without a line."""
    return None if step.kind is Kind.EVENT else step.data + b"\n"


def made(plan: str) -> list[bytes]:
    return [KINDS[letter](f"n{number}") for number, letter in enumerate(plan, 1)]


@contextmanager
def opened(steps: Sequence[bytes]) -> Iterator[tuple[Reader, Index]]:
    with TemporaryDirectory() as directory:
        session = StoreOnDisk(Path(directory) / "store").session("a_b_1", *steps)
        fd = os.open(session.path, os.O_RDONLY)
        try:
            yield Reader(fd), scan(fd)
        finally:
            os.close(fd)


def whole(passes: Sequence[Pass]) -> bytes:
    return b"".join(text.text for found in passes for text in found.texts)


def expected(steps: Sequence[bytes]) -> bytes:
    return b"".join(data + b"\n" for data in steps if b'"event"' not in data)


def up(reader: Reader, index: Index, after: int = 0, *, compactions: bool = False) -> list[Pass]:
    """All passes upwards from after the number `after`."""
    passes: list[Pass] = []
    while numbers := index.between(after + 1, index.greatest, replay.PASS_STEPS):
        passes.append(forwards(reader, numbers, index.odd, line, compactions))
        reached = passes[-1].reached
        assert reached is not None, "a pass that reads short steps gets on"
        after = reached
    return passes


def down(reader: Reader, index: Index) -> tuple[Boundary | None, list[Pass]]:
    """All passes from the end down to the last compaction, in the order of the steps."""
    passes: list[Pass] = []
    end = index.greatest + 1
    while numbers := index.before(end, replay.PASS_STEPS):
        found = backwards(reader, numbers, index.odd, line)
        passes.insert(0, found)
        if found.boundary is not None:
            return found.boundary, passes
        assert found.reached is not None
        end = found.reached
    return None, passes


@pytest.mark.guarantee("G1c")
@given(plan=PLANS, steps=st.integers(1, 9), held=st.integers(1, 2000))
def test_passes_of_any_size_show_the_same_lines_in_both_directions(
    plan: str, steps: int, held: int
) -> None:
    stored = made(plan)
    last = plan.rfind("c")
    with opened(stored) as (reader, index), pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "PASS_STEPS", steps)
        patch.setattr(replay, "PASS_BYTES", held)
        patch.setattr(replay, "TEXT_BYTES", held // 3 + 1)
        assert whole(up(reader, index)) == expected(stored)
        boundary, passes = down(reader, index)
        assert whole(passes) == expected(stored[last + 1 :])
        assert boundary == (Boundary(last + 1, f"n{last + 1}") if last >= 0 else None)
        assert find_boundary(reader, index) == (boundary or START)


@given(plan=PLANS)
def test_texts_tell_which_steps_are_behind_their_lines(plan: str) -> None:
    stored = made(plan)
    with opened(stored) as (reader, index), pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "TEXT_BYTES", 200)
        for passes in (up(reader, index), down(reader, index)[1]):
            for text in (text for found in passes for text in found.texts):
                lines = [json.loads(found) for found in text.text.splitlines()]
                assert [stored[number - 1] + b"\n" for number in text.shown] == [
                    json.dumps(value, separators=(",", ":")).encode() + b"\n" for value in lines
                ]
                assert text.first <= min(text.shown) <= max(text.shown) <= text.last


@pytest.mark.guarantee("G23c")
def test_a_pass_ends_after_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "PASS_BYTES", 3 * len(entry("n1")))
    with opened(made("e" * 9)) as (reader, index):
        found = forwards(reader, index.numbers, index.odd, line, False)
        assert found.reached == 3
        assert backwards(reader, index.numbers, index.odd, line).reached == 7


def test_upwards_a_compaction_begins_the_history_anew_where_it_is_asked_for() -> None:
    stored = made("eecec")
    with opened([*stored, entry("last")]) as (reader, index):
        found = forwards(reader, index.numbers, index.odd, line, True)
        assert (found.boundary, whole([found])) == (Boundary(5, "n5"), entry("last") + b"\n")
        assert forwards(reader, index.numbers, index.odd, line, False).boundary is None


@pytest.mark.guarantee("S2")
def test_a_broken_step_is_named_once_in_each_pass_and_a_vanished_one_never() -> None:
    with opened([entry("a"), b"{", entry("c"), entry("d")]) as (reader, index):
        os.unlink("step-000003", dir_fd=reader.fd)
        for found in (
            forwards(reader, index.numbers, index.odd, line, False),
            backwards(reader, index.numbers, index.odd, line),
        ):
            assert [name for name, _ in found.skipped] == ["step-000002"]
            assert whole([found]) == entry("a") + b"\n" + entry("d") + b"\n"
            assert found.reached is not None


@pytest.mark.guarantee("S1")
def test_names_of_one_number_are_shown_in_their_order_in_both_directions() -> None:
    with opened([entry("a"), entry("c")]) as (reader, index):
        fd = os.open("step-1", os.O_CREAT | os.O_WRONLY, dir_fd=reader.fd)
        os.write(fd, entry("b"))
        os.close(fd)
        index = scan(reader.fd)
        lines = whole([forwards(reader, index.numbers, index.odd, line, False)])
        names = [name for number in index.numbers for name in index.names(number)]
        text = {"step-1": "b", "step-000001": "a", "step-000002": "c"}
        assert lines == b"".join(entry(text[name]) + b"\n" for name in names)
        assert whole([backwards(reader, index.numbers, index.odd, line)]) == lines


@pytest.mark.guarantee("G2c")
@pytest.mark.parametrize(
    ("before", "after", "blocks"),
    [
        ("plain", "blocks", False),
        ("blocks", "plain", True),
        (None, "blocks", True),
        (None, None, None),
    ],
)
def test_the_message_of_an_archive_has_the_form_of_the_entry_before_it_or_else_after(
    before: str | None, after: str | None, blocks: bool | None
) -> None:
    content = {"plain": '"a"', "blocks": '[{"type":"text","text":"a"}]'}

    def steps(form: str | None) -> list[bytes]:
        message = f'{{"message":{{"role":"user","content":{content[form]}}}}}' if form else None
        return [event()] if message is None else [message.encode(), event()]

    stored = [*steps(before), compaction("it"), *steps(after)]
    with opened(stored) as (reader, index):
        assert archive_form(reader, index, find_boundary(reader, index)).in_blocks is blocks


@pytest.mark.parametrize("odd", ["step-2", "step-0000002"])
def test_what_has_the_number_of_a_compaction_precedes_it_in_both_directions(
    store: StoreOnDisk, odd: str
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("one"), entry("b"))
    (disk.path / odd).write_bytes(entry("odd"))
    fd = os.open(disk.path, os.O_RDONLY)
    try:
        index, reader = scan(fd), Reader(fd)
        down = backwards(reader, index.numbers, index.odd, line)
        up = forwards(reader, index.numbers, index.odd, line, True)
    finally:
        os.close(fd)
    assert whole([down]) == whole([up]) == entry("b") + b"\n"
    assert down.boundary == up.boundary == Boundary(2, "one")
