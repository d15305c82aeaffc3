"""Events make sessions dirty, and each dirty session is published by one worker at a time (G12)."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fusefs.coherence.events import EventQueue
from fusefs.inotify import EventsLostError
from fusefs.session.listing import ready
from fusefs.session.session import Session
from tests.support.live import Live, living
from tests.support.stores import StoreOnDisk, entry


async def listed(live: Live, slug: str) -> Session:
    """Lease, watch and list a session."""
    session = live.session(slug)
    await live.pool.hold(session)
    await ready(live.means, session)
    return session


async def taken(events: EventQueue) -> list[Session]:
    """Take all dirty sessions."""
    found: list[Session] = []
    with trio.move_on_after(0):
        while True:
            found.append(await events.take())
    return found


@pytest.mark.guarantee("G12a")
def test_a_drain_applies_everything_that_was_done_before_it(store: StoreOnDisk) -> None:
    disks = [store.session(f"a_b_{number}", entry("a")) for number in (1, 2)]

    async def main() -> None:
        with living(store) as live:
            sessions = [await listed(live, disk.slug) for disk in disks]
            disks[1].add(entry("b"))
            live.events.drain()
            assert [session.index.greatest for session in sessions] == [1, 2]
            assert await taken(live.events) == [sessions[1]]

    trio.run(main)


@pytest.mark.guarantee("G12c")
def test_after_lost_events_every_session_is_checked_again(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks = [store.session(f"a_b_{number}", entry("a")) for number in (1, 2)]

    def lost() -> None:
        raise EventsLostError

    async def main() -> None:
        with living(store) as live:
            sessions = [await listed(live, disk.slug) for disk in disks]
            with monkeypatch.context() as patched:
                patched.setattr(live.events.watcher, "drain", lost)
                live.events.drain()
            assert [session.stale for session in sessions] == [True, True]
            assert await taken(live.events) == sessions

    trio.run(main)


def test_what_happens_to_a_session_while_it_is_published_is_published_afterwards(
    store: StoreOnDisk,
) -> None:
    store.session("a_b_1", entry("a"))

    async def main() -> None:
        with living(store) as live:
            session = await listed(live, "a_b_1")
            live.events.mark(session)
            live.events.mark(session)
            assert await live.events.take() is session
            live.events.mark(session)
            assert await taken(live.events) == []  # not while another worker has it
            async with trio.open_nursery() as nursery:
                again: list[Session] = []

                async def worker() -> None:
                    again.append(await live.events.take())

                nursery.start_soon(worker)
                await trio.testing.wait_all_tasks_blocked()
                live.events.back(session)
            assert again == [session]

    trio.run(main)


def test_new_and_removed_names_wake_the_publisher_of_the_list(store: StoreOnDisk) -> None:
    async def main() -> None:
        with living(store) as live:
            disk = store.session("a_b_1")
            live.events.drain()
            assert await live.events.take_root() == set()
            disk.path.rename(store.path / "a_b_2")
            live.events.drain()
            assert await live.events.take_root() == {"a_b_1"}
            with trio.move_on_after(0) as waiting:
                await live.events.take_root()
            assert waiting.cancelled_caught

    trio.run(main)


def test_the_queue_is_drained_without_any_request(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        with living(store) as live:
            session = await listed(live, "a_b_1")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(live.events.run)
                disk.add(entry("b"))
                with trio.fail_after(10):
                    assert await live.events.take() is session
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_session_that_is_no_longer_watched_receives_no_events(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        with living(store) as live:
            session = await listed(live, "a_b_1")
            live.events.unwatch(session)
            disk.add(entry("b"))
            live.events.drain()
            assert (session.index.greatest, session.is_told) == (1, False)
            live.events.follow(session)
            assert len(live.events.polling) == 1

    trio.run(main)


@pytest.mark.guarantee("G16a")
def test_a_session_that_owes_something_does_not_wait_for_publishers(store: StoreOnDisk) -> None:
    store.session("a_b_1", entry("a"))

    async def main() -> None:
        with living(store) as live:
            session = await listed(live, "a_b_1")
            session.recent.remember(1, 1, b"{}")
            session.recent.moved_over(1, "step-000001.tmp.7")
            live.events.mark(session)
            assert await taken(live.events) == [session]
            with trio.fail_after(1):
                assert await live.events.displaced.take() is session

    trio.run(main)
