"""When to check a session next that no events report on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from fusefs.coherence.polling import (
    LOOKS_AT_ONCE,
    PACE_SECONDS,
    UNWAITED_MOST_SECONDS,
    UNWAITED_SECONDS,
    Polling,
    interval_seconds,
)
from fusefs.session.listing import LEAST_LAG_SECONDS, MOST_LAG_OF_SLOW_SECONDS, MOST_LAG_SECONDS
from fusefs.session.session import Session
from fusefs.views.epoch import Epoch
from fusefs.views.formats import HISTORY, View
from fusefs.views.text_cache import TextCache
from tests.support.stores import entry


class Waiter:
    """A program that waits in poll(2)."""

    waits = True

    def grown(self) -> None:
        """The view has grown."""


def session_at(directory: Path, *, waited_for: bool = True, slug: str = "crab_tg-42_1") -> Session:
    """An open session of a far store, listed just now, that has just changed."""
    session = Session(slug)
    session.opened(directory.stat().st_ino, near=False)  # a descriptor that is never used
    session.listed_at = session.changed_at = time.monotonic()
    session.listing_seconds = 0.002
    if waited_for:
        view = View(HISTORY)
        epoch = session.epochs[view] = Epoch(view, TextCache(1 << 20))
        epoch.follow(Waiter())
    return session


def interval(session: Session, quiet: float) -> float | None:
    return interval_seconds(session, session.changed_at, session.changed_at + quiet)


def test_for_a_waiter_a_session_is_checked_often_at_first_and_then_less(tmp_path: Path) -> None:
    session = session_at(tmp_path)
    assert interval(session, 0) == LEAST_LAG_SECONDS
    assert interval(session, 3) == pytest.approx(0.3)
    assert interval(session, 3600) == pytest.approx(MOST_LAG_SECONDS, abs=0.01)


@pytest.mark.guarantee("G28a")
@pytest.mark.parametrize("listing_seconds", [0.001, 0.1, 0.4])
def test_an_interval_and_its_check_take_less_than_a_second(
    tmp_path: Path, listing_seconds: float
) -> None:
    session = session_at(tmp_path)
    session.listing_seconds = listing_seconds
    found = interval(session, 3600)
    assert found is not None
    assert MOST_LAG_OF_SLOW_SECONDS <= found < 1 - listing_seconds


def test_a_slow_check_is_made_less_often(tmp_path: Path) -> None:
    session = session_at(tmp_path)
    session.listing_seconds = 0.03
    assert interval(session, 0) == pytest.approx(0.3)


def test_for_steps_that_may_be_displaced_checks_become_rarer_and_rarer(tmp_path: Path) -> None:
    session = session_at(tmp_path, waited_for=False)
    session.recent.remember(1, 0, entry("one"))
    assert interval(session, 0) == UNWAITED_SECONDS
    assert interval(session, 3600) == UNWAITED_MOST_SECONDS


def test_a_session_followed_anew_after_long_quiet_is_checked_often(tmp_path: Path) -> None:
    session = session_at(tmp_path)
    now = session.changed_at + 3600
    assert interval_seconds(session, now, now) == LEAST_LAG_SECONDS


@pytest.mark.guarantee("G23b")
def test_a_session_that_nobody_follows_is_not_checked(tmp_path: Path) -> None:
    left, watched = session_at(tmp_path, waited_for=False), session_at(tmp_path)
    watched.watch = 1
    assert interval(left, 0) is interval(watched, 0) is None

    async def main() -> None:
        polling = Polling()
        for session in (left, watched):
            polling.follow(session)
        with trio.move_on_after(0.3) as waiting:
            await polling.take()
        assert waiting.cancelled_caught
        assert len(polling) == 0

    trio.run(main)


def test_the_checks_of_many_sessions_are_bounded_and_each_has_its_turn(tmp_path: Path) -> None:
    sessions = [session_at(tmp_path, slug=f"crab_tg-42_{n}") for n in range(3 * LOOKS_AT_ONCE)]

    async def main() -> None:
        polling, looked, looks = Polling(), set(), 0
        for session in sessions:
            polling.follow(session)
        began = trio.current_time()
        while trio.current_time() - began < 0.5:
            taken = await polling.take()
            looks += len(taken)
            looked.update(taken)
            for session in taken:
                session.listed_at = time.monotonic()
        assert looks <= LOOKS_AT_ONCE * (0.5 / PACE_SECONDS + 2)
        assert looked == set(sessions)

    trio.run(main)
