"""Evicted text is rendered again to exactly what was shown, or reading it is an error (G13)."""

from __future__ import annotations

import errno
import threading
from typing import Any

import pytest
import trio

from fusefs.session import held_text
from fusefs.session.held_text import pin, text, unpin
from fusefs.session.refresh import refresh
from fusefs.views.epoch import Epoch, State
from fusefs.views.formats import HISTORY, LOG, MARKDOWN, MESSAGES, View
from storage.errors import StoreError
from storage.session.replay import forwards
from tests.support.live import Live, leased
from tests.support.stores import StoreOnDisk, compaction, entry


def let_go(live: Live, epoch: Epoch) -> None:
    """Evict the text of an epoch from the cache."""
    live.means.cache.drop(epoch)
    live.means.cache.lost += 1
    assert not any(segment.held for segment in epoch.segments)


@pytest.mark.guarantee("G13a", "G23a")
@pytest.mark.parametrize("view", [View(LOG), View(HISTORY), View(MESSAGES)])
def test_evicted_text_is_rendered_again_as_it_was(store: StoreOnDisk, view: View) -> None:
    store.session("a_b_1", entry("a"), compaction("name"), entry("b"), entry("c"))

    async def main() -> None:
        async with leased(store) as (live, session):
            before = await live.shown(session, view)
            epoch = session.epochs[view]
            let_go(live, epoch)
            assert await live.text(session, epoch) == before
            assert all(segment.held for segment in epoch.segments)

    trio.run(main)


@pytest.mark.guarantee("G13a", "G23a")
@pytest.mark.parametrize("view", [View(MESSAGES), View(MARKDOWN)])
@pytest.mark.parametrize("how", ["backwards", "forwards", "grown", "grown from its lead"])
def test_evicted_text_behind_a_lead_is_rendered_again_however_it_was_built(
    store: StoreOnDisk, view: View, how: str
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("name"))
    steps = [entry(text) for text in "bcd"]

    def add(*more: bytes) -> None:
        for step in more:
            disk.add(step)

    async def main() -> None:
        async with leased(store) as (live, session):
            if how != "grown from its lead":
                add(*(steps[:1] if how == "grown" else steps))
            if how == "forwards":
                await live.shown(session, View(HISTORY))  # now it is known where histories begin
            if how.startswith("grown"):
                await live.shown(session, view)
                add(*steps[1:] if how == "grown" else steps)
                live.events.drain()
            before = await live.shown(session, view)
            epoch = session.epochs[view]
            assert epoch.lines == len(steps)
            let_go(live, epoch)
            assert await live.text(session, epoch) == before
            assert epoch.state is State.CURRENT

    trio.run(main)


@pytest.mark.guarantee("G13a")
def test_text_that_grows_while_it_is_rendered_is_kept_whole(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two readers render it; after the first, the view grows and memory runs short."""
    disk = store.session("a_b_1", *(entry(f"{number}" * 40) for number in range(200)))
    ends, rendered, render = threading.Event(), threading.Event(), forwards

    def slow(*args: Any, **named: Any) -> Any:
        found = render(*args, **named)
        if not rendered.is_set() and threading.current_thread() is not threading.main_thread():
            rendered.set()
            ends.wait(10)
        return found

    async def main() -> None:
        async with leased(store) as (live, session):
            epoch = await refresh(live.means, session, View(LOG))
            epoch.opens += 1
            let_go(live, epoch)
            monkeypatch.setattr(held_text, "forwards", slow)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pin, live.means, session, epoch)
                while not rendered.is_set():
                    await trio.sleep(0.01)
                await pin(live.means, session, epoch)
                disk.add(entry("new"))
                live.events.drain()
                await refresh(live.means, session, View(LOG))
                monkeypatch.setattr(live.means.cache, "limit", 1)
                await refresh(live.means, session, View(HISTORY))
                assert epoch.segments[-1].text is None
                ends.set()
            shown = await live.shown(session, View(LOG))
            assert session.epochs[View(LOG)] is epoch
            assert shown == b"".join(step + b"\n" for step in disk.steps())

    trio.run(main)


@pytest.mark.guarantee("G13d")
def test_text_that_cannot_be_rendered_as_it_was_is_an_error_and_not_a_mixture(
    store: StoreOnDisk,
) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        async with leased(store) as (live, session):
            epoch = await refresh(live.means, session, View(LOG))
            let_go(live, epoch)
            disk.put(1, entry("b"))  # of the same length
            session.judged.clear()
            with pytest.raises(StoreError) as refused:
                await text(live.means, session, epoch, epoch.segments[0])
            assert refused.value.errno == errno.EIO
            assert epoch.state is State.SUSPECT

    trio.run(main)


@pytest.mark.guarantee("G13c", "G20a")
def test_a_pinned_epoch_no_longer_needs_the_store(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", *(entry("x" * 3000) for _ in range(200)))

    async def main() -> None:
        async with leased(store, cache=200_000) as (live, session):
            epoch = await refresh(live.means, session, View(LOG))
            epoch.opens += 1
            await pin(live.means, session, epoch)
            for number in disk.numbers():
                (disk.path / f"step-{number:06}").unlink()
            assert len(await live.text(session, epoch)) == epoch.size
            await live.means.cache.settle()
            assert live.means.cache.bytes <= 200_000
            unpin(live.means, session, epoch)
            assert not epoch.pinned

    trio.run(main)


@pytest.mark.parametrize("why", ["superseded", "gone"])
def test_text_that_can_no_longer_be_reached_is_freed_at_the_last_close(
    store: StoreOnDisk, why: str
) -> None:
    store.session("a_b_1", entry("a"))

    async def main() -> None:
        async with leased(store) as (live, session):
            epoch = await refresh(live.means, session, View(LOG))
            epoch.opens += 2
            if why == "superseded":
                epoch.supersede()
            else:
                session.gone = True
            unpin(live.means, session, epoch)
            assert live.means.cache.bytes == epoch.size
            unpin(live.means, session, epoch)
            assert live.means.cache.bytes == 0

    trio.run(main)
