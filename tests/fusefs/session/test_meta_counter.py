"""Counts are gathered for a moment and then written, per session; none is lost (G9)."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import trio
import trio.testing

from fusefs.failures import Failures
from fusefs.session.meta_counter import (
    DEBOUNCE_SECONDS,
    FINISH_SECONDS,
    FULL_MAX_SECONDS,
    FULL_SECONDS,
    LAST_SECONDS,
    LATEST_SECONDS,
    RETRY_SECONDS,
    WAITING_SESSIONS,
    MetaCounter,
)
from fusefs.session.session import Session
from storage import posix
from storage.errors import StoreError
from storage.session import meta_update
from storage.session.meta_lock import locked
from tests.support.live import Live, living
from tests.support.stores import SessionOnDisk, StoreOnDisk

Test = Callable[[Live, MetaCounter], Awaitable[None]]


def counting(
    store: StoreOnDisk, test: Test, *, run: bool = True, clock: trio.abc.Clock | None = None
) -> Failures:
    """Run a test beside a counter; unless told otherwise, the clock jumps ahead when all tasks wait."""
    failures = Failures()

    async def main() -> None:
        with living(store) as live:
            counter = MetaCounter(live.pool, live.means.work, failures)
            async with trio.open_nursery() as nursery:
                if run:
                    nursery.start_soon(counter.run)
                await test(live, counter)
                nursery.cancel_scope.cancel()

    trio.run(main, clock=clock or trio.testing.MockClock(autojump_threshold=0.01))
    return failures


async def store_one_in(live: Live, counter: MetaCounter, slug: str) -> Session:
    """Count one message in a session that nobody else holds open."""
    session = live.session(slug)
    async with live.pool.lease(session):
        counter.stored(session, 1, False)
    return session


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """The counts written, each with the time of its write. Writes are done on the loop."""
    found: list[tuple[int, float]] = []

    async def long(_self: object, _key: object, work: Callable[[], dict[str, int]]) -> None:
        found.append((work()["message_count"], trio.current_time()))

    monkeypatch.setattr("fusefs.work.Work.long", long)
    return found


@pytest.mark.guarantee("G9a")
def test_stores_that_follow_each_other_are_one_write(
    store: StoreOnDisk, writes: list[tuple[int, float]]
) -> None:
    store.session("a_b_1")

    async def test(live: Live, counter: MetaCounter) -> None:
        session, began = live.session("a_b_1"), trio.current_time()
        async with live.pool.lease(session):
            for _ in range(3):
                counter.stored(session, 2, False)
                await trio.sleep(DEBOUNCE_SECONDS / 2)
            await trio.sleep(5)
        assert [(count, round(at - began, 2)) for count, at in writes] == [
            (6, 2 * DEBOUNCE_SECONDS)
        ]

    counting(store, test)


@pytest.mark.guarantee("G9a")
def test_a_writer_that_never_stops_is_counted_within_a_second(
    store: StoreOnDisk, writes: list[tuple[int, float]]
) -> None:
    store.session("a_b_1")

    async def test(live: Live, counter: MetaCounter) -> None:
        session, began = live.session("a_b_1"), trio.current_time()
        async with live.pool.lease(session):
            while trio.current_time() < began + 3:
                counter.stored(session, 1, False)
                await trio.sleep(DEBOUNCE_SECONDS / 2)
        times = [began, *(at for _, at in writes)]
        assert len(times) >= 4
        for before, after in pairwise(times):
            assert after - before <= LATEST_SECONDS + DEBOUNCE_SECONDS

    counting(store, test)


def test_after_a_compaction_the_count_begins_anew(
    store: StoreOnDisk, writes: list[tuple[int, float]]
) -> None:
    store.session("a_b_1")

    async def test(live: Live, counter: MetaCounter) -> None:
        session = live.session("a_b_1")
        async with live.pool.lease(session):
            for entries, compacted in ((5, False), (0, True), (2, False)):
                counter.stored(session, entries, compacted)
            await trio.sleep(1)
        assert [count for count, _ in writes] == [3]

    counting(store, test)


@pytest.mark.guarantee("G9c")
def test_a_locked_meta_delays_no_other_session_and_its_own_counts_follow_later(
    store: StoreOnDisk, writes: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    disks = [store.session(f"a_b_{number}") for number in (1, 2)]
    locked = os.stat(disks[0].path).st_ino
    update = meta_update.update

    def busy(fd: int, *args: object, **how: object) -> object:
        if os.fstat(fd).st_ino == locked:
            raise StoreError(errno.EBUSY, "busy", "it is locked")
        return update(fd, *args, **how)  # type: ignore[arg-type]

    async def test(live: Live, counter: MetaCounter) -> None:
        sessions = [await store_one_in(live, counter, disk.slug) for disk in disks]
        with monkeypatch.context() as patched:
            patched.setattr(meta_update, "update", busy)
            await trio.sleep(DEBOUNCE_SECONDS + 0.01)
            assert [count for count, _ in writes] == [1]
            assert [session.users for session in sessions] == [1, 0]
            counter.stored(sessions[0], 4, False)
            await trio.sleep(2 * RETRY_SECONDS)
        await trio.sleep(2 * RETRY_SECONDS)
        assert [count for count, _ in writes] == [1, 5]
        assert [session.users for session in sessions] == [0, 0]

    assert counting(store, test).count == 0


@dataclass
class Disk:
    """A disk on which a meta finds no room as long as there is an `errno`."""

    errno: int = errno.ENOSPC
    tried: list[float] = field(default_factory=list)
    """When metas found no room."""


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk of the store. Writes are done on the loop."""
    disk, write_new = Disk(), posix.write_new

    def no_room(name: str, *args: object) -> object:
        if disk.errno and name == meta_update.NEXT:
            disk.tried.append(trio.current_time())
            raise OSError(disk.errno, os.strerror(disk.errno))
        return write_new(name, *args)  # type: ignore[arg-type]

    async def long(_self: object, _key: object, work: Callable[[], object]) -> None:
        work()

    monkeypatch.setattr(posix, "write_new", no_room)
    monkeypatch.setattr("fusefs.work.Work.long", long)
    return disk


@pytest.mark.guarantee("G9a", "G19b")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_count_that_finds_no_room_is_written_once_there_is_some_and_reported_once(
    store: StoreOnDisk, full: Disk, number: int
) -> None:
    disk = store.session("a_b_1")
    full.errno = number

    async def test(live: Live, counter: MetaCounter) -> None:
        session, before = live.session("a_b_1"), disk.meta()
        async with live.pool.lease(session):
            counter.stored(session, 4, False)
            counter.stored(session, 0, True)
            await trio.sleep(4 * FULL_SECONDS)
            counter.stored(session, 2, False)
            await trio.sleep(3 * FULL_SECONDS)
        assert disk.meta() == before
        assert session.busy
        full.errno = 0
        await trio.sleep(2 * FULL_MAX_SECONDS)
        assert disk.meta()["message_count"] == 3
        assert disk.meta()["updated_at"] != before["updated_at"]
        assert not session.busy
        assert sorted(os.listdir(disk.path)) == ["meta"]

    failures = counting(store, test)
    assert failures.count == 1
    assert f'"errno":"{errno.errorcode[number]}"'.encode() in failures.text()
    assert len(full.tried) > 2


@pytest.mark.guarantee("G19b")
def test_the_longer_there_is_no_room_the_more_rarely_a_count_is_tried_but_never_too_rarely(
    store: StoreOnDisk, full: Disk
) -> None:
    store.session("a_b_1")

    async def test(live: Live, counter: MetaCounter) -> None:
        await store_one_in(live, counter, "a_b_1")
        await trio.sleep(100)

    counting(store, test)
    pauses = [after - before for before, after in pairwise(full.tried)]
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(FULL_SECONDS)
    assert pauses[-1] == pytest.approx(FULL_MAX_SECONDS)


@pytest.mark.guarantee("G19a")
def test_each_reason_for_no_room_is_reported_once_and_again_after_a_count_was_written(
    store: StoreOnDisk, full: Disk
) -> None:
    store.session("a_b_1")

    async def test(live: Live, counter: MetaCounter) -> None:
        for numbers in ([errno.ENOSPC, errno.EDQUOT], [errno.ENOSPC]):
            await store_one_in(live, counter, "a_b_1")
            for number in numbers * 2:
                full.errno = number
                await trio.sleep(2 * FULL_MAX_SECONDS)
            full.errno = 0
            await trio.sleep(2 * FULL_MAX_SECONDS)

    assert counting(store, test).count == 3


@pytest.mark.guarantee("G9a")
@pytest.mark.parametrize("room", [True, False])
def test_at_the_end_a_count_that_waits_for_room_is_tried_once_more(
    store: StoreOnDisk, full: Disk, room: bool
) -> None:
    disk = store.session("a_b_1")

    async def test(live: Live, counter: MetaCounter) -> None:
        session = await store_one_in(live, counter, "a_b_1")
        await trio.sleep(4 * FULL_SECONDS)
        if room:
            full.errno = 0
        began, tried = trio.current_time(), len(full.tried)
        await counter.finish()
        assert trio.current_time() == pytest.approx(began, abs=0.1)
        assert len(full.tried) == tried + (not room)
        assert not session.busy

    failures = counting(store, test)
    assert disk.meta().get("message_count", 0) == room
    assert failures.count == (1 if room else 2)  # the last one says that the count is lost


@pytest.mark.guarantee("G19b")
def test_only_so_many_sessions_are_kept_open_for_want_of_room(
    store: StoreOnDisk, full: Disk
) -> None:
    disks = [store.session(f"a_b_{number}") for number in range(1, WAITING_SESSIONS + 11)]

    async def test(live: Live, counter: MetaCounter) -> None:
        sessions = [await store_one_in(live, counter, disk.slug) for disk in disks]
        await trio.sleep(4 * FULL_SECONDS)
        assert sum(session.busy for session in sessions) == WAITING_SESSIONS
        full.errno = 0
        await trio.sleep(2 * FULL_MAX_SECONDS)
        assert not any(session.busy for session in sessions)
        full.errno = errno.ENOSPC
        last = await store_one_in(live, counter, disks[0].slug)
        await trio.sleep(4 * FULL_SECONDS)
        assert last.busy

    assert counting(store, test).count == len(disks) + 1
    counts = [disk.meta().get("message_count") for disk in disks]
    assert counts.count(1) == WAITING_SESSIONS


def test_a_session_that_is_deleted_while_its_count_waits_for_room_is_let_go(
    store: StoreOnDisk, full: Disk
) -> None:
    store.session("a_b_1")

    async def test(live: Live, counter: MetaCounter) -> None:
        session = await store_one_in(live, counter, "a_b_1")
        await trio.sleep(2 * FULL_SECONDS)
        live.pool.bury(session)
        tried = len(full.tried)
        await trio.sleep(2 * FULL_MAX_SECONDS)
        assert len(full.tried) == tried > 0
        assert not session.busy

    assert counting(store, test).count == 1


@pytest.mark.guarantee("G9a")
def test_at_the_end_everything_is_written_at_once(
    store: StoreOnDisk, writes: list[tuple[int, float]]
) -> None:
    store.session("a_b_1")

    async def test(live: Live, counter: MetaCounter) -> None:
        session = await store_one_in(live, counter, "a_b_1")
        assert session.busy
        await counter.finish()
        assert [count for count, _ in writes] == [1]
        assert not session.busy

    counting(store, test, run=False)


@contextmanager
def holding(disk: SessionOnDisk) -> Iterator[None]:
    """Hold the lock of a session's meta, as another mount does."""
    directory = os.open(disk.path, os.O_RDONLY)
    try:
        with locked(directory, 0):
            yield
    finally:
        os.close(directory)


@pytest.mark.guarantee("G9a")
def test_at_the_end_a_lock_that_another_mount_holds_for_a_moment_is_waited_for(
    store: StoreOnDisk,
) -> None:
    disk = store.session("a_b_1")
    before = disk.meta()

    async def test(live: Live, counter: MetaCounter) -> None:
        await store_one_in(live, counter, "a_b_1")
        async with trio.open_nursery() as nursery:
            with holding(disk):
                nursery.start_soon(counter.finish)
                await trio.sleep(0.1)
                assert disk.meta() == before

    assert counting(store, test, run=False, clock=trio.testing.MockClock(rate=1)).count == 0
    assert (before.get("message_count", 0), disk.meta()["message_count"]) == (0, 1)


@pytest.mark.guarantee("G9c")
def test_at_the_end_held_locks_delay_no_other_session_and_not_the_end(store: StoreOnDisk) -> None:
    disks = [store.session(f"a_b_{number}") for number in range(1, 101)]
    held, free = disks[20:], disks[:20]

    async def test(live: Live, counter: MetaCounter) -> None:
        for disk in disks:
            await store_one_in(live, counter, disk.slug)
        with ExitStack() as stack:
            for disk in held:
                stack.enter_context(holding(disk))
            began = trio.current_time()
            await counter.finish()
            assert trio.current_time() - began < FINISH_SECONDS + 2 * LAST_SECONDS

    failures = counting(store, test, run=False, clock=trio.testing.MockClock(rate=1))
    assert [disk.meta()["message_count"] for disk in free] == [1] * len(free)
    assert failures.count == len(held)


@pytest.mark.guarantee("G9c")
def test_a_count_that_cannot_be_written_at_the_end_is_reported(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.session("a_b_1")

    async def silent(*_args: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("fusefs.work.Work.long", silent)

    async def test(live: Live, counter: MetaCounter) -> None:
        await store_one_in(live, counter, "a_b_1")
        await counter.finish()

    failures = counting(store, test, run=False)
    assert failures.count == 1
    assert b"not-counted" in failures.text()


@pytest.mark.guarantee("G9c")
def test_only_counts_that_were_not_written_in_time_are_reported(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = store.session("a_b_1").path
    store.session("a_b_2")

    async def long(_self: object, key: str, work: Callable[[], object]) -> None:
        if key == slow.name:
            await trio.sleep_forever()
        work()

    monkeypatch.setattr("fusefs.work.Work.long", long)

    async def test(live: Live, counter: MetaCounter) -> None:
        for slug in ("a_b_1", "a_b_2"):
            await store_one_in(live, counter, slug)
        await counter.finish()

    failures = counting(store, test, run=False)
    assert failures.count == 1
    assert b'"session":"a_b_1"' in failures.text()
