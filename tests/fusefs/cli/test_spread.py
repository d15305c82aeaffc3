"""Work spread over processes: results in order, errors of any process, and no process left behind."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from fusefs.cli.spread import CHUNK_SESSIONS, FEW_SESSIONS, spread

MANY = [str(number) for number in range(FEW_SESSIONS + 3 * CHUNK_SESSIONS + 1)]


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = _children()
    yield
    assert _children() <= before


def _children() -> set[str]:
    """The child processes of this one, including those of other tests."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that has just ended
            found.update((task / "children").read_text().split())
    return found


def _echo(slugs: Sequence[str]) -> tuple[int, Sequence[str]]:
    return os.getpid(), slugs


def _fail(where: str, slugs: Sequence[str]) -> None:
    if where in slugs:
        raise PermissionError(errno.EACCES, "not yours", where)


def _die(_: Sequence[str]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _much(_: Sequence[str]) -> bytes:
    """More than a pipe buffers."""
    return bytes(1 << 20)


@pytest.mark.parametrize("slugs", [MANY[:3], MANY])
def test_results_come_in_the_order_of_the_sessions(slugs: list[str]) -> None:
    found = list(spread(_echo, slugs))
    assert [slug for _, some in found for slug in some] == slugs
    assert (os.getpid() in {process for process, _ in found}) == (len(slugs) <= FEW_SESSIONS)


def test_an_error_is_raised_in_place_of_the_result_of_its_sessions() -> None:
    found = spread(partial(_fail, MANY[CHUNK_SESSIONS]), MANY)
    assert next(found) is None
    with pytest.raises(PermissionError, match="not yours") as raised:
        next(found)
    assert raised.value.filename == MANY[CHUNK_SESSIONS]


def test_a_killed_process_is_an_error_and_not_the_end_of_the_results() -> None:
    with pytest.raises(EOFError):
        list(spread(_die, MANY))


def test_a_caller_that_stops_early_leaves_no_process_behind() -> None:
    found = spread(_much, MANY)
    assert len(next(found)) == 1 << 20
    found.close()  # type: ignore[attr-defined]
