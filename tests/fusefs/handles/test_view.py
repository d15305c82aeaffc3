"""An open view: reads at any offset, and poll(2) that reports each growth once (G13, G14)."""

from __future__ import annotations

import select

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from fusefs.handles.base import REGULAR
from fusefs.handles.view import OpenView
from fusefs.session.held_text import pin
from fusefs.session.refresh import refresh
from fusefs.session.session import Session
from fusefs.views.formats import LOG, MESSAGES, Format, View
from tests.support.live import Live, leased, living
from tests.support.stores import StoreOnDisk, compaction, entry

GREW = REGULAR | select.EPOLLPRI


class Waiter:
    """A program that waits in poll(2)."""

    def __init__(self) -> None:
        self.woken = 0

    def notify(self) -> None:
        self.woken += 1


async def opened(live: Live, session: Session, format_: Format = LOG) -> OpenView:
    epoch = await refresh(live.means, session, View(format_))
    made = OpenView(live.pool, live.means, session, epoch)
    await pin(live.means, session, epoch)
    made.begin()
    return made


@given(st.integers(0, 400), st.integers(0, 400))
def test_any_part_is_read_as_it_stands_in_the_whole(
    tmp_path_factory: pytest.TempPathFactory, offset: int, size: int
) -> None:
    store = StoreOnDisk(tmp_path_factory.mktemp("view") / "store")
    disk = store.session("a_b_1", *(entry("x" * n) for n in range(6)))
    whole = b"".join(step + b"\n" for step in disk.steps())

    async def main() -> None:
        async with leased(store) as (live, session):
            view = await opened(live, session)
            assert bytes(await view.read(offset, size)) == whole[offset : offset + size]
            await view.release()

    trio.run(main)


@pytest.mark.guarantee("G14b")
def test_each_growth_is_reported_once_and_waiters_are_woken(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        async with leased(store) as (live, session):
            view, waiter = await opened(live, session), Waiter()
            assert await view.poll(waiter) == REGULAR
            assert view.waits
            disk.add(entry("b"))
            live.events.drain()
            await refresh(live.means, session, View(LOG))
            session.epochs[View(LOG)].tell()
            assert (waiter.woken, view.waits) == (1, False)
            assert await view.poll(None) == GREW
            assert await view.poll(None) == REGULAR
            await view.release()

    trio.run(main)


@pytest.mark.guarantee("G14c")
@pytest.mark.parametrize("why", ["superseded", "deleted"])
def test_poll_of_a_view_that_no_longer_grows_says_so_each_time(
    store: StoreOnDisk, why: str
) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        async with leased(store) as (live, session):
            view, waiter = await opened(live, session), Waiter()
            await view.poll(waiter)
            if why == "superseded":
                disk.put(1, entry("other"))
                live.events.drain()
                await refresh(live.means, session, View(LOG))
            else:
                session.gone = True
            view.grown()
            assert waiter.woken == 1
            for _ in range(2):
                assert await view.poll(None) == GREW
            await view.release()

    trio.run(main)


def test_views_that_are_not_followed_line_by_line_poll_as_regular_files(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        async with leased(store) as (live, session):
            view = await opened(live, session, MESSAGES)
            disk.add(compaction("name"))
            assert await view.poll(Waiter()) == REGULAR
            assert not view.waits
            await view.release()

    trio.run(main)


@pytest.mark.guarantee("G13c")
def test_an_open_view_keeps_its_session_and_its_text_until_it_is_released(
    store: StoreOnDisk,
) -> None:
    store.session("a_b_1", entry("a"))

    async def main() -> None:
        with living(store) as live:
            session = live.session("a_b_1")
            async with live.pool.lease(session):
                view = await opened(live, session)
                await view.poll(Waiter())
                epoch = session.epochs[View(LOG)]
            live.pool.close(session)
            assert (session.is_open, epoch.pinned, epoch.waited_for) == (True, True, True)
            await view.release()
            assert (epoch.pinned, epoch.waited_for) == (False, False)
            live.pool.close(session)
            assert not session.is_open

    trio.run(main)
