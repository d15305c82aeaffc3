"""When a session is listed, and how old a listing may be for which caller (G12)."""

from __future__ import annotations

import errno
import os
import time
from functools import partial
from typing import Any

import pytest
import trio

from fusefs.config import Sync
from fusefs.session import building, listing
from fusefs.session.listing import (
    CHECK_FACTOR,
    CHECK_SECONDS,
    LAG_FACTOR,
    LEAST_LAG_SECONDS,
    MOST_LAG_OF_SLOW_SECONDS,
    MOST_LAG_SECONDS,
    lag_seconds,
    most_lag_seconds,
    ready,
    relist,
)
from fusefs.session.refresh import refresh
from fusefs.session.session import Session
from fusefs.session.writer import Writer
from fusefs.views.cuts import InEpoch
from fusefs.views.epoch import State
from fusefs.views.formats import HISTORY, LOG, View
from storage.ahead import THREADS, Outcome, start
from storage.errors import StoreError
from storage.formats.kinds import classify
from storage.session import claims, epochs, replay, stamps
from tests.support.live import leased
from tests.support.stores import StoreOnDisk, compaction, entry

STAT_SECONDS = 0.005
"""How long a stat takes, as on a far store."""


class Listings:
    """Counts the listings of directories."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        for name in ("scan", "scan_agreeing"):
            monkeypatch.setattr(listing, name, self._counted(vars(listing)[name]))

    def _counted(self, scan: object) -> object:
        def counted(*args: object) -> object:
            self.count += 1
            return scan(*args)  # type: ignore[operator]

        return counted


@pytest.mark.guarantee("G24a")
def test_with_events_a_session_is_listed_once(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"))
    listings = Listings(monkeypatch)

    async def main() -> None:
        async with leased(store) as (live, session):
            for _ in range(3):
                await ready(live.means, session)
                disk.add(entry("more"))
                live.events.drain()
            assert (listings.count, session.index.greatest) == (1, 4)
            session.missed()
            await ready(live.means, session)
            assert listings.count == 2

    trio.run(main)


@pytest.mark.guarantee("G12b", "G12c")
def test_without_events_only_exact_callers_list_a_session_each_time(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"))
    listings = Listings(monkeypatch)

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            await ready(live.means, session)
            disk.add(entry("b"))
            session.listing_seconds = 0.01
            await ready(live.means, session, exact=False)
            assert (listings.count, session.index.greatest) == (1, 1)
            await ready(live.means, session, exact=True)
            assert (listings.count, session.index.greatest) == (2, 2)
            session.listed_at -= MOST_LAG_SECONDS
            await ready(live.means, session, exact=False)
            assert listings.count == 3

    trio.run(main)


@pytest.mark.guarantee("G12c")
def test_without_events_a_stat_of_a_session_that_was_idle_sees_an_edit_of_any_step(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "CHECK_SECONDS", seconds := 30)  # even on a machine that is busy
    disk = store.session("a_b_1", *(entry(f"{number}") for number in range(400)))
    early = disk.path / "step-000005"

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            epoch = await refresh(live.means, session, View(LOG))
            session.index.stamps.turn = 6  # type: ignore[union-attr]
            early.write_bytes(entry("edited"))
            session.listed_at -= CHECK_FACTOR * seconds
            await ready(live.means, session, exact=False)
            assert epoch.state is State.SUSPECT

    trio.run(main)


@pytest.mark.guarantee("G24b", "G12c")
@pytest.mark.parametrize("inodes", [True, False], ids=["listed", "not listed"])
@pytest.mark.parametrize("edited", [False, True])
def test_without_events_an_own_step_is_read_once_unless_others_have_changed_it(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch, edited: bool, inodes: bool
) -> None:
    if not inodes:
        slowly(monkeypatch, lists_stat_inodes=False)
    disk = store.session("a_b_1", *(entry(f"{number}") for number in range(100)))
    read: list[int] = []

    def counted(*args: Any, **named: Any) -> replay.Pass:
        read.extend(named["numbers"])
        return replay.forwards(*args, **named)

    monkeypatch.setattr(building, "forwards", counted)

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            await live.shown(session, View(HISTORY))
            await live.shown(session, View(HISTORY))
            writer = Writer(live.means, Sync.NEVER)
            await writer.append(session, [classify(entry("mine")), classify(entry("too"))])
            await refresh(live.means, session, View(HISTORY), exact=False)  # as it is published
            await writer.settle(session)
            assert read == [101, 102]
            if edited:
                disk.put(102, entry("its"))
            shown = await live.shown(session, View(HISTORY))
            assert shown.splitlines()[-1] == entry("its" if edited else "too")
            assert (read == [101, 102]) is not edited

    trio.run(main)


@pytest.mark.guarantee("S2", "G12c")
def test_without_events_another_name_of_an_own_step_is_shown_too(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            await live.shown(session, View(HISTORY))
            await Writer(live.means, Sync.NEVER).append(session, [classify(entry("mine"))])
            await refresh(live.means, session, View(HISTORY), exact=False)
            (disk.path / "step-2").write_bytes(entry("beside"))
            assert b"beside" in await live.shown(session, View(HISTORY))

    trio.run(main)


@pytest.mark.guarantee("G12c")
def test_without_events_an_own_step_that_is_edited_before_its_temporary_goes_is_read_again(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"))
    removals: list[Outcome[None]] = []

    def late(call: partial[None]) -> Outcome[None]:
        """The store takes long to remove a temporary."""
        if call.func is not claims._clear:
            return start(call)
        removals.append(Outcome(call))
        return removals[-1]

    monkeypatch.setattr(claims, "start", late)

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            await live.shown(session, View(HISTORY))
            await Writer(live.means, Sync.NEVER).append(session, [classify(entry("mine"))])
            await refresh(live.means, session, View(HISTORY), exact=False)
            (disk.path / "step-000002").write_bytes(entry("edited in place"))
            removals[0].run()
            assert b"edited in place" in await live.shown(session, View(HISTORY))

    trio.run(main)


def slowly(monkeypatch: pytest.MonkeyPatch, lists_stat_inodes: bool = True) -> None:
    """Each stat takes a while, as on a far store; listings may have inode numbers of their own."""
    stamp = stamps._stamp

    def slow(fd: int, name: str) -> stamps.Stamp:
        time.sleep(STAT_SECONDS)
        found = stamp(fd, name)
        return found if lists_stat_inodes else found._replace(inode=found.inode + 1)

    monkeypatch.setattr(stamps, "_stamp", slow)


def test_a_listing_for_which_all_steps_must_be_checked_counts_as_long(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else they would be checked all the time."""
    steps = 1500
    store.session("a_b_1", *(entry(f"{number}") for number in range(steps)))

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            await ready(live.means, session)
            slowly(monkeypatch, lists_stat_inodes=False)
            session.listed_at -= CHECK_FACTOR * CHECK_SECONDS
            await ready(live.means, session, exact=False)
            assert session.listing_seconds > steps * STAT_SECONDS / THREADS

    trio.run(main)


@pytest.mark.guarantee("G12c")
def test_a_view_of_an_epoch_that_is_gone_keeps_no_other_from_being_shown(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many steps have changed that the search for epochs begins again."""
    many = [entry(f"{number}") for number in range(30)]
    disk = store.session("a_b_1", compaction("one"), *many, compaction("two"), entry("b"))
    monkeypatch.setattr(epochs, "DOUBTFUL_STEPS", 20)

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            await live.shown(session, View(HISTORY, InEpoch(2)))
            for number in range(2, 32):
                disk.put(number, entry(f"edited {number}"))
            assert await live.shown(session, View(HISTORY)) == entry("b") + b"\n"
            disk.add(entry("c"))
            for exact in (False, True):
                session.listed_at -= MOST_LAG_SECONDS
                await ready(live.means, session, exact=exact)
            await ready(live.means, session, shown=False)
            assert b'"c"' in await live.shown(session, View(HISTORY))

    trio.run(main)


@pytest.mark.parametrize(
    ("took", "least", "most"),
    [
        (0.0, LEAST_LAG_SECONDS, MOST_LAG_SECONDS),
        (0.02, LAG_FACTOR * 0.02, MOST_LAG_SECONDS - 0.02),
        (0.5, 0.5, 0.5),
        (3.0, 3.0, 3.0),
    ],
)
def test_a_listing_may_be_the_older_the_longer_it_takes(
    took: float, least: float, most: float
) -> None:
    session = Session("a_b_1")
    session.listing_seconds = took
    assert lag_seconds(session) == pytest.approx(least)
    assert most_lag_seconds(session) == pytest.approx(max(most, MOST_LAG_OF_SLOW_SECONDS))


@pytest.mark.guarantee("G20a")
def test_a_removed_directory_is_a_deleted_session(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1")

    async def main() -> None:
        async with leased(store) as (live, session):
            (disk.path / "meta").unlink()
            disk.path.rmdir()
            session.gone = False
            await relist(live.means, session, True)
            assert session.gone

    trio.run(main)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESTALE, errno.EIO])
def test_a_listing_that_fails_says_so_and_loses_nothing(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store.session("a_b_1", entry("a"))

    def failing(*_args: object) -> None:
        raise OSError(number, os.strerror(number))

    async def main() -> None:
        async with leased(store) as (live, session):
            with monkeypatch.context() as patched:
                patched.setattr(listing, "scan", failing)
                with pytest.raises(StoreError) as refused:
                    await ready(live.means, session)
            is_gone = number != errno.EIO
            assert refused.value.errno == (errno.ESTALE if is_gone else errno.EIO)
            assert (session.gone, session.stale, session.backlog) == (is_gone, True, None)
            await ready(live.means, session)
            assert session.index.greatest == 1

    trio.run(main)
