"""The lead of a view: when there is one, what it is, and when it has to be checked again (G2)."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import pytest
import trio

from fusefs.session.lead import begins_right, find_lead, within_cut
from fusefs.session.refresh import refresh
from fusefs.session.session import Session
from fusefs.views.cuts import AtStep, AtTime
from fusefs.views.formats import HISTORY, LOG, MARKDOWN, MESSAGES, View
from storage.archives import Memory
from tests.support.live import Live, leased, living
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry, event


@contextmanager
def remembering(live: Live, text: str) -> Iterator[None]:
    """Make the memory know the archive `name` by this text."""

    class Known(Memory):
        def version(self, name: str | None = None) -> Hashable:
            return name, text

        def text(self, name: str) -> str | None:
            return text if name == "name" else None

    kept = live.means.archives
    object.__setattr__(live.means, "archives", Known(None))
    yield
    object.__setattr__(live.means, "archives", kept)


async def lead(live: Live, session: Session, view: View) -> bytes:
    shown = await refresh(live.means, session, view)
    return (await find_lead(live.means, session, view, shown.boundary))[0]


@pytest.mark.guarantee("G2c")
def test_only_views_of_messages_begin_with_the_text_of_an_archive(store: StoreOnDisk) -> None:
    store.session("a_b_1", entry("a"), compaction("name"), entry("b"))

    async def main() -> None:
        async with leased(store) as (live, session):
            assert await lead(live, session, View(HISTORY)) == b""
            assert await lead(live, session, View(LOG)) == b""
            message = json.loads(await lead(live, session, View(MESSAGES)))
            assert message["role"] == "user"
            with remembering(live, "what was said"):
                assert b"what was said" in await lead(live, session, View(MESSAGES))
                assert b"what was said" in await lead(live, session, View(MARKDOWN))

    trio.run(main)


@pytest.mark.guarantee("G2c", "G13b")
def test_an_epoch_begins_right_until_the_text_of_its_archive_changes(store: StoreOnDisk) -> None:
    store.session("a_b_1", entry("a"), compaction("name"), entry("b"))

    async def main() -> None:
        with living(store) as live:
            session, view = live.session("a_b_1"), View(MESSAGES)
            async with live.pool.lease(session):
                with remembering(live, "one text"):
                    epoch = await refresh(live.means, session, view)
                    assert await begins_right(live.means, session, epoch)
                with remembering(live, "another text"):
                    assert not await begins_right(live.means, session, epoch)
                    later = await refresh(live.means, session, view)
                    assert (later is epoch, epoch.superseded) == (False, True)

    trio.run(main)


BLOCKS = b'{"message":{"role":"user","content":[{"type":"text","text":"a"}]}}'


@pytest.mark.guarantee("G2c", "G13b")
def test_the_message_of_an_archive_takes_the_form_of_the_entry_that_is_before_it_now(
    store: StoreOnDisk,
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("name"), BLOCKS)

    async def form(live: Live, session: Session) -> type:
        live.events.drain()
        await refresh(live.means, session, View(MESSAGES))
        shown = session.epochs[View(MESSAGES)]
        assert await begins_right(live.means, session, shown)
        lead, _ = await find_lead(live.means, session, View(MESSAGES), shown.boundary)
        assert shown.leads_with(lead)
        return type(json.loads(lead)["content"])

    async def main() -> None:
        async with leased(store) as (live, session):
            assert await form(live, session) is str
            (disk.path / "step-000001").unlink()
            assert await form(live, session) is list
            disk.put(1, entry("back"))
            assert await form(live, session) is str

    trio.run(main)


@pytest.mark.guarantee("G2d")
def test_a_page_has_a_head_once_there_is_anything_to_show(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1")

    async def main() -> None:
        async with leased(store) as (live, session):
            assert await lead(live, session, View(MARKDOWN)) == b""
            disk.add(entry("a"))
            live.events.drain()
            assert b"a_b_1" in await lead(live, session, View(MARKDOWN))

    trio.run(main)


@pytest.mark.guarantee("G30b")
@pytest.mark.parametrize(("time_ns", "headed"), [(5, False), (10, True), (25, True)])
def test_a_page_of_a_time_has_a_head_if_a_step_was_stored_by_then(
    store: StoreOnDisk, time_ns: int, headed: bool
) -> None:
    disk = store.session("a_b_1", entry("a"), entry("b"))
    dated(disk)

    async def main() -> None:
        async with leased(store) as (live, session):
            found = await lead(live, session, View(MARKDOWN, AtTime("then", time_ns)))
            assert bool(found) is headed

    trio.run(main)


def dated(disk: SessionOnDisk) -> None:
    """Give the steps the times 10, 20, 30 …"""
    for number in disk.numbers():
        os.utime(disk.path / f"step-{number:06}", ns=(0, 10 * number))


def test_a_cut_hides_what_comes_after_it(store: StoreOnDisk) -> None:
    store.session("a_b_1", entry("a"), event(), entry("c"))

    async def main() -> None:
        async with leased(store) as (live, session):
            await refresh(live.means, session, View(LOG))
            left = within_cut(session, View(HISTORY, AtStep(2)))
            assert list(left.numbers) == [1, 2]
            assert list(session.index.numbers) == [1, 2, 3]

    trio.run(main)
