"""Storing steps: their numbers, the report if some could not be stored, and when they are synced."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

from fusefs.config import Sync
from fusefs.session import writer as writing
from fusefs.session.session import Session
from fusefs.session.writer import BATCH_STEPS, FAR_BATCH_STEPS, Writer
from storage.errors import StoreError
from storage.formats.kinds import Step, classify
from storage.session.claims import Claim, Claimer
from storage.session.steps import sync_steps
from tests.support.live import leased, living
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry

Stored = tuple[int, StoreError | None]


def lines(count: int) -> list[Step]:
    return [classify(entry(f"line {number}")) for number in range(count)]


def stored(
    store: StoreOnDisk,
    steps: Sequence[Step],
    sync: Sync = Sync.NEVER,
    then: Callable[[Writer, Session], Any] | None = None,
) -> Stored:
    """Store steps in the session; return the result. `then` runs while the session is still open."""

    async def main() -> Stored:
        async with leased(store) as (live, session):
            writer = Writer(live.means, sync)
            told = await writer.append(session, steps)
            if then is not None:
                await then(writer, session)
        return told

    return trio.run(main)


@pytest.fixture
def session(store: StoreOnDisk) -> SessionOnDisk:
    return store.session("a_b_1", entry("before"))


def before_each_claim(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something happen just before each claim, which fails if that raises."""
    claim = Claimer.claim

    def claimed(claimer: Claimer, *args: Any, **how: Any) -> Claim:
        act()
        return claim(claimer, *args, **how)

    monkeypatch.setattr(Claimer, "claim", claimed)


@pytest.mark.guarantee("G5a", "G15b")
@pytest.mark.parametrize("sync", Sync)
def test_steps_get_the_next_numbers_in_their_order(
    store: StoreOnDisk, session: SessionOnDisk, sync: Sync
) -> None:
    steps = lines(3 * BATCH_STEPS)
    assert stored(store, steps, sync) == (len(steps), None)
    assert session.numbers() == list(range(1, len(steps) + 2))
    assert session.steps()[1:] == [step.data for step in steps]


@pytest.mark.guarantee("G19c")
def test_others_get_their_turn_while_many_steps_are_stored(
    store: StoreOnDisk, session: SessionOnDisk
) -> None:
    turns: list[int] = []

    async def beside() -> None:
        while True:
            turns.append(len(session.numbers()))
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        with living(store) as live:
            opened, writer = live.session("a_b_1"), Writer(live.means, Sync.NEVER)
            async with live.pool.lease(opened), trio.open_nursery() as nursery:
                nursery.start_soon(beside)
                await writer.append(opened, lines(10 * BATCH_STEPS))
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert len(set(turns)) >= 5
    assert max(b - a for a, b in pairwise(turns)) <= 2 * BATCH_STEPS  # trio runs tasks in any order


@pytest.mark.guarantee("G6b", "G19a")
def test_an_error_is_reported_with_the_steps_that_were_stored(
    store: StoreOnDisk, session: SessionOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [None, None]

    def fill() -> None:
        if not room:
            raise StoreError(errno.ENOSPC, "full", "there is no room")
        room.pop()

    before_each_claim(monkeypatch, fill)
    count, error = stored(store, lines(5))
    assert count == 2
    assert error is not None and error.errno == errno.ENOSPC
    assert session.steps()[1:] == [step.data for step in lines(2)]


@pytest.mark.usefixtures("session")
@pytest.mark.guarantee("G16d")
def test_what_is_stored_is_remembered_and_a_compaction_with_its_archive(store: StoreOnDisk) -> None:
    async def remembered(_writer: Writer, opened: Session) -> None:
        two, three = opened.recent.kept(range(10))
        assert (two.number, three.number) == (2, 3)
        assert (opened.recent.archive(two), opened.recent.archive(three)) == (None, "archive")

    steps = [*lines(1), classify(compaction("archive"))]
    assert stored(store, steps, then=remembered) == (2, None)


@pytest.mark.guarantee("G16d")
def test_a_step_is_remembered_although_its_name_was_freed_just_before(
    store: StoreOnDisk, session: SessionOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another mount frees one when it moves its step up."""
    name = session.path / "step-000002"

    def freed() -> None:
        name.write_bytes(entry("another's"))
        name.unlink()

    async def remembered(writer: Writer, opened: Session) -> None:
        writer.means.events.drain()
        assert [step.number for step in opened.recent.kept(range(10))] == [2]

    before_each_claim(monkeypatch, freed)
    assert stored(store, lines(1), then=remembered) == (1, None)


@pytest.mark.guarantee("G20b")
def test_in_a_session_that_is_gone_nothing_is_stored(
    store: StoreOnDisk, session: SessionOnDisk
) -> None:
    async def main() -> Stored:
        with living(store) as live:
            opened, writer = live.session("a_b_1"), Writer(live.means, Sync.NEVER)
            async with live.pool.lease(opened):
                for path in session.path.iterdir():
                    path.unlink()
                session.path.rmdir()
                return await writer.append(opened, lines(1))

    count, error = trio.run(main)
    assert count == 0
    assert error is not None and error.errno == errno.ENOENT


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Per sync, the number of files synced, and whether the whole file system was."""
    syncs: list[tuple[int, bool]] = []

    def called(session_fd: int, fds: Sequence[int], whole: bool) -> None:
        syncs.append((len(fds), whole))
        sync_steps(session_fd, fds, whole)

    monkeypatch.setattr(writing, "sync_steps", called)
    return syncs


@pytest.mark.usefixtures("session")
@pytest.mark.guarantee("G17a")
@pytest.mark.parametrize(("count", "synced"), [(0, []), (3, [(3, False)]), (100, [(0, True)])])
def test_a_close_syncs_what_was_stored_once(
    store: StoreOnDisk,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    synced: list[tuple[int, bool]],
) -> None:
    syncs = counted(monkeypatch)

    async def close(writer: Writer, opened: Session) -> None:
        assert syncs == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.sync, opened)
            nursery.start_soon(writer.sync, opened)

    stored(store, lines(count), Sync.CLOSE, close)
    assert syncs == synced


@pytest.mark.usefixtures("session")
@pytest.mark.guarantee("G17a", "G19a")
def test_a_failed_sync_is_reported_and_the_next_one_syncs_everything(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def close(writer: Writer, opened: Session) -> None:
        with monkeypatch.context() as broken:
            broken.setattr(writing, "sync_steps", fails)
            with pytest.raises(StoreError) as caught:
                await writer.sync(opened)
            assert caught.value.errno == errno.EIO
        syncs = counted(monkeypatch)
        await writer.sync(opened)
        assert syncs == [(0, True)]

    stored(store, lines(2), Sync.CLOSE, close)


@pytest.mark.usefixtures("session")
@pytest.mark.guarantee("G17b")
def test_with_sync_never_nothing_is_synced(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = counted(monkeypatch)
    stored(store, lines(3), Sync.NEVER, Writer.sync)
    assert syncs == []


@pytest.mark.usefixtures("session")
@pytest.mark.guarantee("G17b")
def test_a_name_that_could_not_be_synced_is_reported_at_close(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All lines are stored, so write(2) must not report an error."""

    def fails(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def close(_writer: Writer, opened: Session) -> None:
        assert opened.unsynced.whole

    monkeypatch.setattr("fusefs.session.writer.os.fsync", fails)
    assert stored(store, lines(2), Sync.ALWAYS, close) == (2, None)


@pytest.mark.guarantee("G20b")
def test_a_step_is_not_stored_if_its_session_is_renamed_away_just_before(
    store: StoreOnDisk, session: SessionOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_each_claim(monkeypatch, lambda: session.path.rename(store.path / ".gone"))
    count, error = stored(store, lines(1))
    assert count == 0
    assert error is not None and error.errno == errno.ENOENT


def far(store: StoreOnDisk, sync: Sync, then: Callable[[Writer, Session], Any]) -> None:
    """Run `then` with a writer to the open session of a far store."""

    async def main() -> None:
        async with leased(store, watched=False) as (live, opened):
            await then(Writer(live.means, sync), opened)

    trio.run(main)


@pytest.mark.guarantee("G27a")
def test_on_a_far_store_a_close_waits_only_for_names_and_the_release_for_temporaries(
    store: StoreOnDisk, session: SessionOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, removed, unlink = threading.Event(), threading.Event(), os.unlink
    waited: list[str] = []

    def sync(_fd: int) -> None:
        waited.append("sync")
        synced.wait()

    def late(name: str, *, dir_fd: int) -> None:
        removed.wait()
        unlink(name, dir_fd=dir_fd)

    def temporaries() -> list[str]:
        return [name for name in os.listdir(session.path) if name.startswith(".stepfs-")]

    async def then(writer: Writer, opened: Session) -> None:
        assert await writer.append(opened, lines(3)) == (3, None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.sync, opened)
            await trio.testing.wait_all_tasks_blocked()
            assert opened.syncing.locked()
            synced.set()
        assert not opened.unsynced
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.settle, opened)
            await trio.testing.wait_all_tasks_blocked()
            assert len(temporaries()) == 3
            removed.set()
        assert temporaries() == []

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "unlink", late)
    far(store, Sync.CLOSE, then)
    assert waited == ["sync"]
    assert session.steps()[1:] == [step.data for step in lines(3)]


class Unsyncable:
    """Makes the first `count` syncs of names fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self.left, self._fsync = count, os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, fd: int) -> None:
        self.left -= 1
        if self.left >= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._fsync(fd)


@pytest.mark.guarantee("G17a", "G19a")
@pytest.mark.parametrize("sync", [Sync.CLOSE, Sync.ALWAYS])
@pytest.mark.parametrize("count", [3, 2 * FAR_BATCH_STEPS])
@pytest.mark.usefixtures("session")
def test_on_a_far_store_a_close_reports_names_that_could_not_be_synced_and_the_next_tries_again(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch, sync: Sync, count: int
) -> None:
    async def then(writer: Writer, opened: Session) -> None:
        stored, _ = await writer.append(opened, lines(count))
        assert stored >= min(count, FAR_BATCH_STEPS)
        with pytest.raises(StoreError) as caught:
            await writer.sync(opened)
        assert caught.value.errno == errno.EIO
        assert opened.unsynced
        await writer.sync(opened)
        assert not opened.unsynced

    Unsyncable(monkeypatch, 1)
    far(store, sync, then)


@pytest.mark.guarantee("G17a", "G19a")
@pytest.mark.usefixtures("session")
def test_on_a_far_store_a_close_reports_it_too_if_a_later_step_could_not_be_stored(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, left = os.link, [None, None]

    def full(*names: Any, **where: Any) -> None:
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left.pop()
        link(*names, **where)

    async def then(writer: Writer, opened: Session) -> None:
        stored, error = await writer.append(opened, lines(5))
        assert (stored, error and error.errno) == (2, errno.ENOSPC)
        with pytest.raises(StoreError) as caught:
            await writer.sync(opened)
        assert caught.value.errno == errno.EIO

    Unsyncable(monkeypatch, 1)
    monkeypatch.setattr(os, "link", full)
    far(store, Sync.CLOSE, then)


@pytest.mark.guarantee("G15c", "G27b")
@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("sync", [Sync.CLOSE, Sync.ALWAYS])
def test_on_a_far_store_lines_count_as_stored_although_the_sync_of_their_names_is_not_answered(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch, sync: Sync
) -> None:
    answer = threading.Event()

    def silent(_fd: int) -> None:
        answer.wait()

    async def then(writer: Writer, opened: Session) -> None:
        writer.means.work._deadline = 0.3
        assert await writer.append(opened, lines(1)) == (1, None)
        assert len(opened.recent) == 1
        with pytest.raises(StoreError) as caught:
            await writer.sync(opened)
        assert caught.value.errno == errno.ETIMEDOUT
        answer.set()
        await writer.sync(opened)
        await writer.settle(opened)

    monkeypatch.setattr(os, "fsync", silent)
    far(store, sync, then)
