"""Passes on the loop are bounded in bytes and time, and read nothing that is already known."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import posix
from storage.formats.kinds import Step, classify
from storage.session import reader
from storage.session.reader import LOOP_BYTES, LOOP_SECONDS, Reader, Spent
from storage.session.replay import Pass, backwards, forwards
from storage.session.steps import step_name
from tests.support.stores import entry

NUMBERS = range(1, 11)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Reader]:
    for number in NUMBERS:
        (tmp_path / step_name(number)).write_bytes(entry(f"{number}"))
    fd = os.open(tmp_path, os.O_RDONLY)
    yield Reader(fd)
    os.close(fd)


def line(step: Step, _session_fd: int, _name: str) -> bytes:
    return step.data + b"\n"


def whole(found: Pass) -> bytes:
    return b"".join(text.text for text in found.texts)


def test_a_pass_returns_what_it_judged_and_the_next_one_does_not_read_it(
    session: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LOOP_SECONDS", 10)  # no pass ends for its time on a busy machine
    first = session.brief({})
    found = forwards(first, NUMBERS, {}, line, compactions=True)
    assert sorted(first.judged) == [step_name(number) for number in NUMBERS]
    (tmp_path / step_name(3)).unlink()
    (tmp_path / step_name(4)).write_bytes(entry("other"))
    for direction in (
        forwards(session.brief(first.judged), NUMBERS, {}, line, compactions=True),
        forwards(session.undocumented(first.judged), NUMBERS, {}, line, compactions=True),
        backwards(session.brief(first.judged), NUMBERS, {}, line),
    ):
        assert whole(direction) == whole(found)


@pytest.mark.guarantee("G23c")
@pytest.mark.parametrize("known", [False, True])
def test_a_pass_ends_after_so_many_bytes(
    session: Reader, tmp_path: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LOOP_SECONDS", 10)
    data = entry("x" * (LOOP_BYTES // 4))
    for number in NUMBERS:
        (tmp_path / step_name(number)).write_bytes(data)
    steps = {step_name(number): classify(data) for number in NUMBERS} if known else {}
    with pytest.raises(Spent):
        forwards(session.brief(steps), NUMBERS, {}, line, compactions=True)
    assert forwards(session.brief(steps), NUMBERS[:3], {}, line, compactions=True).reached == 3


@pytest.mark.guarantee("G23c")
def test_a_pass_ends_after_so_long(session: Reader) -> None:
    def slow(step: Step, session_fd: int, name: str) -> bytes:
        time.sleep(LOOP_SECONDS)
        return line(step, session_fd, name)

    with pytest.raises(Spent):
        forwards(session.brief({}), NUMBERS, {}, slow, compactions=True)


@pytest.mark.guarantee("G12a", "G25a")
@pytest.mark.parametrize("call", ["open", "read"])
def test_a_step_that_another_host_has_just_replaced_is_read_again(
    session: Reader, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Gluster calls the replaced file stale when it is opened, and now and then missing when read."""
    answer, left = getattr(os, call), [errno.ESTALE if call == "open" else errno.ENOENT] * 3

    def stale(*args: Any, **named: Any) -> Any:
        if left:
            raise OSError(number := left.pop(), os.strerror(number))
        return answer(*args, **named)

    expected = session.read(step_name(1))
    monkeypatch.setattr(os, call, stale)
    monkeypatch.setattr(posix, "refresh", lambda *_: None)  # which opens the directory
    assert session.read(step_name(1)) == expected
    assert left == []
