"""Failures are kept and logged, and repeated ones do not fill the log."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from fusefs.failures import LOG_SECONDS, LOG_SUBJECTS, LOGGED, Caller, Failures
from storage.errors import StoreError
from tests.support.logged import Logged

SOMEBODY = Caller(0, 1000, 1000)


@pytest.fixture
def logged() -> Iterator[Logged]:
    logged = Logged()
    yield logged
    logged.stop()


def _fail(failures: Failures, session: str, number: int = errno.EINVAL) -> None:
    error = StoreError(number, "not-json", "it is not JSON")
    failures.record(session, "append", "write", error, SOMEBODY)


@pytest.mark.guarantee("G19a")
def test_repeated_failures_are_logged_a_few_times_and_then_counted(logged: Logged) -> None:
    failures = Failures()
    for _ in range(1000):
        _fail(failures, "crab_tg-1_1")
    _fail(failures, "crab_tg-1_1", errno.ENOSPC)
    _fail(failures, "crab_tg-1_2")
    failures.sum_up()
    assert logged.lines[:LOGGED] == ["write crab_tg-1_1/append: it is not JSON (EINVAL)"] * LOGGED
    assert logged.lines[LOGGED:] == [
        "write crab_tg-1_1/append: it is not JSON (ENOSPC)",
        "write crab_tg-1_2/append: it is not JSON (EINVAL)",
        f"{1000 - LOGGED} more failures of crab_tg-1_1 (EINVAL) are not logged one by one",
    ]
    assert failures.count == 1002
    assert failures.text().count(b"\n") == 1000


@pytest.mark.guarantee("G19a")
def test_failures_of_many_different_sessions_are_finally_counted_together(logged: Logged) -> None:
    failures = Failures()
    for number in range(LOG_SUBJECTS + 500):
        _fail(failures, f"crab_tg-1_{number}")
    failures.sum_up()
    assert len(logged.lines) == LOG_SUBJECTS + LOGGED + 1
    assert logged.lines[-1] == f"{500 - LOGGED} more failures (EINVAL) are not logged one by one"


@pytest.mark.guarantee("G19a", "G23b")
def test_failures_are_summed_up_a_while_after_they_began_and_then_logged_again(
    logged: Logged,
) -> None:
    async def scenario() -> None:
        failures = Failures()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failures.run)
            for _ in range(3):
                for _ in range(LOGGED + 1):
                    _fail(failures, "crab_tg-1_1")
                await trio.sleep(LOG_SECONDS + 1)
            nursery.cancel_scope.cancel()

    trio.run(scenario, clock=MockClock(autojump_threshold=0))
    assert len(logged.lines) == 3 * (LOGGED + 1)
    assert (
        logged.lines[LOGGED] == "1 more failures of crab_tg-1_1 (EINVAL) are not logged one by one"
    )
