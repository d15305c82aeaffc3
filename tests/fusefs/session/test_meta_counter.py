"""Counts are gathered for a moment and then written, per session; none is lost (G9)."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import pytest
import trio
import trio.testing

from fusefs.failures import Failures
from fusefs.session.meta_counter import (
    DEBOUNCE_SECONDS,
    FINISH_SECONDS,
    LAST_SECONDS,
    LATEST_SECONDS,
    RETRY_SECONDS,
    MetaCounter,
)
from fusefs.session.session import Session
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
