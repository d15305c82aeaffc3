"""Concurrent calls: ordered, each with its own outcome, and much faster than one by one (G27)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import weakref
from functools import partial
from pathlib import Path

import pytest

from storage import ahead
from storage.session import reader, replay, steps
from storage.session.index import scan
from storage.session.reader import Reader
from tests.support.stores import StoreOnDisk, entry

DELAY_SECONDS = 0.02


@pytest.mark.guarantee("G27a")
def test_outcomes_come_in_order_and_raise_what_was_raised() -> None:
    def work(number: int) -> int:
        time.sleep(0.001 * (number % 7))
        if number % 5 == 0:
            raise FileNotFoundError(number)
        return number * number

    for number, outcome in ahead.ahead(work, range(500)):
        if number % 5:
            assert outcome.get() == number * number
        else:
            with pytest.raises(FileNotFoundError, match=str(number)):
                outcome.get()


@pytest.mark.guarantee("G23a")
@pytest.mark.parametrize("fails", [False, True])
def test_an_outcome_holds_nothing_that_its_call_needed(fails: bool) -> None:
    class Text:
        """Something that can be referred to weakly."""

    def work(_text: Text) -> None:
        if fails:
            raise FileNotFoundError

    text = Text()
    outcome = ahead.Outcome(partial(work, text))
    seen = weakref.ref(text)
    del text
    outcome.run()
    if fails:
        outcome._error.__traceback__ = None  # type: ignore[union-attr]
    assert seen() is None


def test_a_caller_that_stops_early_has_read_at_most_a_window_ahead() -> None:
    called: list[int] = []
    for number, outcome in ahead.ahead(called.append, range(10_000)):
        outcome.get()
        if number == 10:
            break
    assert len(called) <= 11 + ahead.WINDOW


@pytest.mark.guarantee("G27a")
def test_a_far_session_is_read_ten_times_faster_than_step_by_step(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each open is delayed as on a store across a network."""
    count = 600
    session = store.session("a_b_1", *(entry(f"{n}") for n in range(count)))
    descriptor = os.open(session.path, os.O_RDONLY)
    read_step = steps.read_step

    def slow(name: str, fd: int, flags: int = 0, most: int = steps.STEP_BYTES_MAX) -> bytes:
        time.sleep(DELAY_SECONDS)
        return read_step(name, fd, flags, most)

    monkeypatch.setattr(reader, "read_step", slow)
    monkeypatch.setattr(reader, "is_near", lambda _fd: False)
    index = scan(descriptor)
    forwards = partial(replay.forwards, compactions=False)
    for direction in (replay.backwards, forwards):
        began = time.monotonic()
        found = direction(Reader(descriptor), index.numbers, {}, lambda s, _fd, _name: s.data)
        took = time.monotonic() - began
        assert b"".join(t.text for t in found.texts) == b"".join(session.steps())
        assert took < count * DELAY_SECONDS / 10
    os.close(descriptor)


@pytest.mark.guarantee("G27a")
def test_calls_that_never_return_do_not_keep_the_process_from_exiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "silent")
    program = (
        "import sys; from storage.ahead import ahead\n"
        "calls = ahead(open, [sys.argv[1]] * 60)\n"
        "print(len([next(calls, None)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "silent"],
        capture_output=True,
        timeout=20,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == b"1\n"


def test_threads_are_bounded() -> None:
    gate = threading.Event()
    calls = ahead.ahead(lambda _: gate.wait(10), range(ahead.WINDOW * 2))
    before = threading.active_count()
    threading.Thread(target=lambda: [outcome.get() for _, outcome in calls], daemon=True).start()
    time.sleep(0.1)
    assert threading.active_count() - before <= ahead.THREADS + 1
    gate.set()
