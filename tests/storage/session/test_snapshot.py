"""A session as the daemon would resume it, now and as of the past (recorded ones: tests/conformance)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from storage.session.snapshot import history, load
from tests.support.stores import META, SessionOnDisk, StoreOnDisk, compaction, entry, event


@pytest.fixture
def session(store: StoreOnDisk) -> SessionOnDisk:
    return store.session(
        "a_b_1",
        entry("a"),
        event(),
        compaction("first"),
        entry("b"),
        compaction("second"),
        entry("c"),
    )


@pytest.fixture
def session_fd(session: SessionOnDisk) -> Iterator[int]:
    descriptor = os.open(session.path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.guarantee("G1c")
def test_a_snapshot_is_the_meta_the_archive_and_the_entries_since(session_fd: int) -> None:
    found = load(session_fd)
    assert found is not None
    assert found.meta == META
    assert found.archive == "second"
    assert [step.data for step in found.history] == [entry("c")]


@pytest.mark.parametrize(
    ("last", "archive", "entries"),
    [(0, None, []), (2, None, [(1, "a")]), (4, "first", [(4, "b")]), (5, "second", [])],
)
def test_a_snapshot_up_to_a_step_is_as_if_no_others_existed(
    session_fd: int, last: int, archive: str | None, entries: list[tuple[int, str]]
) -> None:
    name, found = history(session_fd, last)
    assert name == archive
    assert [(number, step.data) for number, step in found] == [
        (number, entry(text)) for number, text in entries
    ]


@pytest.mark.guarantee("G30a")
def test_a_snapshot_of_a_time_has_the_steps_that_were_stored_by_then(
    session: SessionOnDisk, session_fd: int
) -> None:
    for number in session.numbers():
        os.utime(session.path / f"step-{number:06}", ns=(0, number * 10))
    name, found = history(session_fd, time_ns=45)
    assert (name, [number for number, _ in found]) == ("first", [4])


def test_without_a_meta_a_directory_is_not_a_session(
    session: SessionOnDisk, session_fd: int
) -> None:
    (session.path / "meta").unlink()
    assert load(session_fd) is None
