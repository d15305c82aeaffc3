"""Times of steps: what follows them when they are set alone, as `rsync -t` does (G2e, G3c, G30b)."""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio

from fusefs.config import Sync
from fusefs.session import building
from fusefs.session import refresh as refreshing
from fusefs.session.refresh import refresh
from fusefs.session.writer import Writer
from fusefs.views.cuts import AtTime
from fusefs.views.formats import HISTORY, LOG, MARKDOWN, MESSAGES, View
from storage.formats.kinds import classify
from storage.session import replay
from tests.support.live import leased, living
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry

THEN = AtTime("2021-01-01T00:00:00Z", 1_609_459_200 * 10**9)
BEFORE, AFTER = 1_600_000_000, 1_700_000_000
VIEWS = [View(format_) for format_ in (HISTORY, MESSAGES, MARKDOWN, LOG)]


def dated(disk: SessionOnDisk, number: int, seconds: int) -> None:
    os.utime(disk.path / f"step-{number:06}", (seconds, seconds))


def lines(*said: str) -> bytes:
    return b"".join(entry(text) + b"\n" for text in said)


@pytest.mark.guarantee("G30b")
def test_a_view_at_a_time_follows_the_times_of_the_steps(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("name"), entry("b"))
    for number, seconds in ((1, BEFORE), (2, AFTER), (3, AFTER)):
        dated(disk, number, seconds)

    async def main() -> None:
        async with leased(store) as (live, session):
            for number, seconds, shown in (
                (1, BEFORE, lines("a")),
                (3, BEFORE, lines("a", "b")),
                (2, BEFORE, lines("b")),
                (2, AFTER, lines("a", "b")),
                (1, AFTER, lines("b")),
            ):
                dated(disk, number, seconds)
                live.events.drain()
                assert await live.shown(session, View(HISTORY, THEN)) == shown

    trio.run(main)


@pytest.mark.guarantee("G2e", "G30b")
def test_a_page_at_a_time_has_a_head_as_long_as_a_step_was_stored_by_then(
    store: StoreOnDisk,
) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        async with leased(store) as (live, session):
            for seconds in (AFTER, BEFORE, AFTER):
                dated(disk, 1, seconds)
                live.events.drain()
                page = await live.shown(session, View(MARKDOWN, THEN))
                assert page.startswith(b"# `a_b_1`") is (seconds == BEFORE)

    trio.run(main)


@pytest.mark.guarantee("G2e")
def test_the_headings_of_a_page_follow_the_times_of_the_steps(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"), entry("b"))

    async def main() -> None:
        async with leased(store) as (live, session):
            await live.shown(session, View(MARKDOWN))
            dated(disk, 1, BEFORE)
            live.events.drain()
            assert b"2020-09-13" in await live.shown(session, View(MARKDOWN))

    trio.run(main)


@pytest.mark.guarantee("G3c")
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.format.name)
def test_the_time_of_a_view_follows_that_of_its_last_step(store: StoreOnDisk, view: View) -> None:
    disk = store.session("a_b_1", entry("a"), entry("b"))

    async def main() -> None:
        async with leased(store) as (live, session):
            await refresh(live.means, session, view)
            dated(disk, 2, BEFORE)
            live.events.drain()
            epoch = await refresh(live.means, session, view)
            assert epoch.mtime_ns == BEFORE * 10**9

    trio.run(main)


@pytest.mark.guarantee("G3c")
def test_a_view_that_shows_no_step_has_the_time_at_which_its_compaction_was_written_last(
    store: StoreOnDisk,
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("name"))

    async def main() -> None:
        async with leased(store) as (live, session):
            await refresh(live.means, session, View(HISTORY))
            disk.put(2, compaction("name"))
            live.events.drain()
            for view in (View(MESSAGES), View(HISTORY)):
                epoch = await refresh(live.means, session, view)
                assert epoch.mtime_ns == (disk.path / "step-000002").stat().st_mtime_ns

    trio.run(main)


@pytest.mark.guarantee("G2e", "G3c")
def test_a_time_that_is_set_while_the_session_rests_is_noticed(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        with living(store) as live:
            session = live.session("a_b_1")
            async with live.pool.lease(session):
                await live.shown(session, View(MARKDOWN))
            live.events.drain()
            live.pool.let_go()
            assert session.rests
            dated(disk, 1, BEFORE)
            live.events.drain()
            async with live.pool.lease(session):
                assert b"2020-09-13" in await live.shown(session, View(MARKDOWN))
                assert session.epochs[View(MARKDOWN)].mtime_ns == BEFORE * 10**9

    trio.run(main)


@pytest.mark.guarantee("G2e")
def test_a_time_that_is_set_while_a_page_is_built_is_noticed(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"))
    backwards, acts = replay.backwards, [lambda: dated(disk, 1, BEFORE)]

    def meanwhile(*args: Any, **named: Any) -> replay.Pass:
        found = backwards(*args, **named)
        if acts:
            acts.pop()()
        return found

    monkeypatch.setattr(building, "backwards", meanwhile)

    async def main() -> None:
        async with leased(store) as (live, session):
            assert b"2020-09-13" in await live.shown(session, View(MARKDOWN))
            assert acts == []

    trio.run(main)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[View]:
    """The views that are compared with the store from now on."""
    compared: list[View] = []
    compare = building.compare

    async def noted(means: Any, session: Any, epoch: Any, *how: Any) -> bool:
        compared.append(epoch.view)
        return bool(await compare(means, session, epoch, *how))

    monkeypatch.setattr(refreshing, "compare", noted)
    return compared


def test_a_time_that_is_set_concerns_only_views_that_depend_on_times(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", compaction("name"), entry("a"), entry("b"))
    compared = counted(monkeypatch)

    async def main() -> None:
        async with leased(store) as (live, session):
            for set_again in (False, True):
                if set_again:
                    for number in disk.numbers():
                        dated(disk, number, AFTER)
                live.events.drain()
                for view in (*VIEWS, View(HISTORY, THEN)):
                    await refresh(live.means, session, view)
            assert compared == [View(MARKDOWN), View(HISTORY, THEN)]

    trio.run(main)


@pytest.mark.guarantee("G24b")
def test_steps_of_this_mount_are_compared_with_nothing(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"))
    if os.geteuid() == 0:
        os.chown(disk.path, 1234, 1234)  # so that each new step is given to its owner
    compared = counted(monkeypatch)

    async def main() -> None:
        async with leased(store) as (live, session):
            writer = Writer(live.means, Sync.CLOSE)
            for _ in range(5):
                await writer.append(session, [classify(entry("mine"))] * 3)
                await writer.sync(session)
                live.events.drain()
                for view in (*VIEWS, View(MARKDOWN, THEN)):
                    await refresh(live.means, session, view)
            assert compared == []

    trio.run(main)


@pytest.mark.guarantee("G24c")
def test_a_session_that_rests_is_not_listed_again_for_a_time_that_was_set(
    store: StoreOnDisk,
) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        with living(store) as live:
            session = live.session("a_b_1")
            async with live.pool.lease(session):
                await refresh(live.means, session, View(HISTORY))
            live.pool.let_go()
            assert session.rests
            dated(disk, 1, BEFORE)
            live.events.drain()
            assert session.is_known
            async with live.pool.lease(session):
                assert (
                    await refresh(live.means, session, View(HISTORY))
                ).mtime_ns == BEFORE * 10**9

    trio.run(main)
