"""The lead of a view: when there is one, what it is, and when it has to be checked again (G2)."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from fusefs.session import lead as lead_of_a_view
from fusefs.session.lead import begins_right, find_lead, within_cut
from fusefs.session.means import Means
from fusefs.session.refresh import refresh
from fusefs.session.session import Session
from fusefs.views.cuts import AtStep, AtTime
from fusefs.views.formats import HISTORY, LOG, MARKDOWN, MESSAGES, View
from storage.archives import Memory
from storage.session.replay import Boundary
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


def content(messages: bytes) -> type:
    """The type of the first message's content."""
    return type(json.loads(messages.splitlines()[0])["content"])


def counted(monkeypatch: pytest.MonkeyPatch) -> list[View]:
    """The views whose lead is looked up from now on."""
    looked: list[View] = []
    find = lead_of_a_view.find_lead

    async def noted(
        means: Means, session: Session, view: View, boundary: Boundary
    ) -> tuple[bytes, Hashable]:
        looked.append(view)
        return await find(means, session, view, boundary)

    monkeypatch.setattr(lead_of_a_view, "find_lead", noted)
    return looked


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


@pytest.mark.guarantee("G2c", "G13b")
def test_the_message_of_an_archive_follows_an_entry_that_is_restored_with_its_compaction(
    store: StoreOnDisk,
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("name"))

    async def main() -> None:
        async with leased(store) as (live, session):
            assert content(await live.shown(session, View(MESSAGES))) is str
            disk.put(2, compaction("name"))
            disk.put(1, BLOCKS)
            live.events.drain()
            await live.shown(session, View(MESSAGES))
            assert content(await live.shown(session, View(MESSAGES))) is list

    trio.run(main)


@pytest.mark.guarantee("G2c", "G13b")
def test_the_message_of_an_archive_that_no_entry_precedes_follows_the_first_one_after_it(
    store: StoreOnDisk,
) -> None:
    disk = store.session("a_b_1", compaction("name"), event())

    async def main() -> None:
        async with leased(store) as (live, session):
            assert content(await live.shown(session, View(MESSAGES))) is str
            for number, step, form in ((4, BLOCKS, list), (2, entry("a"), str), (2, event(), list)):
                disk.put(number, step)
                live.events.drain()
                assert content(await live.shown(session, View(MESSAGES))) is form

    trio.run(main)


@pytest.mark.guarantee("G2c", "G13b")
def test_an_entry_that_comes_while_the_lead_is_rendered_decides_the_form_of_the_message(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", compaction("name"), event())
    render = lead_of_a_view.render_lead

    async def main() -> None:
        async with leased(store) as (live, session):

            def rendered(*args: Any) -> lead_of_a_view.Lead:
                found = render(*args)
                if disk.numbers() == [1, 2]:
                    disk.add(BLOCKS)
                    trio.from_thread.run_sync(live.events.drain)
                return found

            monkeypatch.setattr(lead_of_a_view, "render_lead", rendered)
            await live.shown(session, View(MESSAGES))
            assert disk.numbers() == [1, 2, 3]
            assert content(await live.shown(session, View(MESSAGES))) is list

    trio.run(main)


@pytest.mark.guarantee("G24b")
@pytest.mark.parametrize(
    "steps", [(entry("a"), compaction("name")), (compaction("name"), entry("a")), (entry("a"),)]
)
def test_the_lead_is_looked_up_once_however_many_steps_come_later(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch, steps: Sequence[bytes]
) -> None:
    disk = store.session("a_b_1", *steps)
    looked = counted(monkeypatch)

    async def main() -> None:
        async with leased(store) as (live, session):
            for view in (View(MESSAGES), View(MARKDOWN)):
                await refresh(live.means, session, view)
            looked.clear()
            for _ in range(5):
                disk.add(entry("later"))
                live.events.drain()
                for view in (View(MESSAGES), View(MARKDOWN)):
                    await refresh(live.means, session, view)
            assert looked == []

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


@pytest.mark.guarantee("G2e", "G30b")
def test_a_page_of_a_time_has_a_head_once_an_earlier_step_takes_the_place_of_a_later_one(
    store: StoreOnDisk,
) -> None:
    disk = store.session("a_b_1", entry("a"))
    view = View(MARKDOWN, AtTime("then", 5))

    async def main() -> None:
        async with leased(store) as (live, session):
            assert await live.shown(session, view) == b""
            earlier = disk.path / "copied.tmp"
            earlier.write_bytes(entry("a"))
            os.utime(earlier, ns=(0, 1))
            earlier.rename(disk.path / "step-000001")
            live.events.drain()
            assert (await live.shown(session, view)).startswith(b"# `a_b_1`")

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
