"""Building an epoch: no concurrent change lets anybody see an incomplete one (G12, G13)."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Any

import pytest
import trio

from fusefs.session import building, means
from fusefs.session.building import build_backwards, compare
from fusefs.session.refresh import present, refresh
from fusefs.views.epoch import State
from fusefs.views.formats import HISTORY, LOG, MESSAGES, View
from fusefs.views.spool import Spool
from storage.errors import StoreError
from storage.session import replay
from tests.support.live import Live, leased, living
from tests.support.passes import Meanwhile, compacts
from tests.support.stores import StoreOnDisk, compaction, entry

MESSAGES_VIEW, HISTORY_VIEW, LOG_VIEW = View(MESSAGES), View(HISTORY), View(LOG)


def lines(*said: str) -> bytes:
    return b"".join(entry(text) + b"\n" for text in said)


def lose_events(live: Live) -> None:
    live.events.watcher.drain()
    live.events.missed()


@pytest.mark.guarantee("G13a")
def test_a_compaction_while_a_view_is_built_leaves_no_lead_without_its_lines(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("one"), entry("b"))

    async def main() -> None:
        async with leased(store) as (live, session):
            await refresh(live.means, session, HISTORY_VIEW)  # now the boundary is known
            epoch = present(live.means, session, MESSAGES_VIEW)
            Meanwhile(monkeypatch, lambda: compacts(disk))
            assert await refresh(live.means, session, MESSAGES_VIEW) is epoch
            assert epoch.state is State.CURRENT
            shown = await live.text(session, epoch)
            assert (b"the second" in shown, b"one" in shown) == (True, False)

    trio.run(main)


@pytest.mark.guarantee("G12a", "G12c", "G13a")
@pytest.mark.parametrize("watched", [True, False])
def test_a_step_that_is_replaced_later_than_another_is_added_is_not_shown_without_it(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    """Both happen while an earlier part of the view is read."""
    disk = store.session("a_b_1", *(entry(f"{number}") for number in range(40)))
    monkeypatch.setattr(building, "PASS_STEPS", 20)

    def acts() -> None:
        disk.add(entry("added"))
        disk.put(30, entry("edited"))

    async def main() -> None:
        async with leased(store, watched=watched) as (live, session):
            Meanwhile(monkeypatch, acts)
            shown = await live.shown(session, LOG_VIEW)
            assert (b"edited" in shown, b"added" in shown) == (True, True)

    trio.run(main)


@pytest.mark.guarantee("G12a")
def test_a_step_that_comes_back_just_before_those_that_are_read_is_shown(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", *(entry(f"{number}") for number in range(1, 31)))
    monkeypatch.setattr(building, "PASS_STEPS", 10)
    away = disk.path / "step-000011"
    away.rename(disk.path / "aside")

    def back() -> None:
        (disk.path / "aside").rename(away)

    async def main() -> None:
        async with leased(store) as (live, session):
            Meanwhile(monkeypatch, lambda: None, back)
            await refresh(live.means, session, LOG_VIEW)
            shown = await live.shown(session, LOG_VIEW)
            assert shown == b"".join(entry(f"{number}") + b"\n" for number in range(1, 31))

    trio.run(main)


def test_a_failed_pass_leaves_an_epoch_that_is_not_shown_and_is_built_later(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.session("a_b_1", *(entry(f"{number}") for number in range(40)))
    monkeypatch.setattr(building, "PASS_STEPS", 20)

    def fails() -> None:
        raise OSError(5, "the disk does not answer")

    async def main() -> None:
        async with leased(store) as (live, session):
            Meanwhile(monkeypatch, lambda: None, fails)
            epoch = present(live.means, session, LOG_VIEW)
            with pytest.raises(StoreError):
                await refresh(live.means, session, LOG_VIEW)
            assert (epoch.state, epoch.built) == (State.BUILDING, False)
            assert await refresh(live.means, session, LOG_VIEW) is epoch
            assert (await live.shown(session, LOG_VIEW)).count(b"\n") == 40

    trio.run(main)


def test_a_history_that_changes_while_it_is_gathered_from_its_end_is_gathered_again(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", *(entry(f"{number}") for number in range(40)))
    monkeypatch.setattr(building, "PASS_STEPS", 20)
    read, edits = replay.backwards, [lambda: disk.put(1, entry("edited"))]

    def backwards(*args: Any, **named: Any) -> Any:
        found = read(*args, **named)
        if min(named["numbers"]) == 1 and edits:
            edits.pop()()
        return found

    async def main() -> None:
        async with leased(store) as (live, session):
            epoch = await refresh(live.means, session, HISTORY_VIEW)
            assert (await live.text(session, epoch)).startswith(entry("edited") + b"\n")
            assert epoch.ranges() == [(1, 40)]

    monkeypatch.setattr(building, "backwards", backwards)
    trio.run(main)


@pytest.mark.guarantee("G12a")
@pytest.mark.parametrize("replaced", [True, False])
def test_a_compaction_that_goes_while_the_steps_after_it_are_gathered_is_noticed(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("one"), entry("b"))

    def goes() -> None:
        if replaced:
            disk.put(2, entry("other"))
        else:
            (disk.path / "step-000002").unlink()

    async def main() -> None:
        async with leased(store) as (live, session):
            Meanwhile(monkeypatch, goes, direction="backwards")
            said = ["a", "other", "b"] if replaced else ["a", "b"]
            assert await live.shown(session, HISTORY_VIEW) == lines(*said)
            disk.add(entry("c"))
            live.events.drain()
            assert await live.shown(session, HISTORY_VIEW) == lines(*said, "c")

    trio.run(main)


@pytest.mark.guarantee("G12c", "G13a")
def test_without_events_a_step_that_is_replaced_while_a_history_is_gathered_is_noticed(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", *(entry(f"{number}") for number in range(40)))
    monkeypatch.setattr(building, "PASS_STEPS", 20)

    def acts() -> None:
        disk.add(entry("added"))
        disk.put(10, entry("edited"))

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            Meanwhile(monkeypatch, acts, direction="backwards")
            shown = await live.shown(session, HISTORY_VIEW)
            assert (b"edited" in shown, b"added" in shown) == (True, True)

    trio.run(main)


@pytest.mark.guarantee("G12a")
def test_a_step_that_comes_back_just_after_a_compaction_is_shown(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("one"), entry("b"), entry("c"))
    away = disk.path / "step-000003"
    aside = away.rename(disk.path / "aside")

    async def main() -> None:
        async with leased(store) as (live, session):
            Meanwhile(monkeypatch, lambda: aside.rename(away), direction="backwards")
            await refresh(live.means, session, HISTORY_VIEW)
            assert await live.shown(session, HISTORY_VIEW) == lines("b", "c")

    trio.run(main)


@pytest.mark.guarantee("G12a")
def test_a_compaction_that_goes_while_text_is_put_aside_is_noticed(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("one"), entry("b" * 300))
    write = Spool.write

    async def main() -> None:
        async with leased(store, cache=200) as (live, session):
            (await refresh(live.means, session, LOG_VIEW)).opens = 1
            acts = [(disk.path / "step-000002").unlink]

            def slow(spool: Spool, text: bytes) -> int:
                at = write(spool, text)
                if acts:
                    acts.pop()()
                    trio.from_thread.run_sync(live.events.drain)  # as any other operation does
                return at

            monkeypatch.setattr(Spool, "write", slow)
            await refresh(live.means, session, HISTORY_VIEW)
            assert not acts
            assert await live.shown(session, HISTORY_VIEW) == lines("a", "b" * 300)

    trio.run(main)


@pytest.mark.guarantee("G23a")
def test_a_draft_of_an_epoch_that_turns_out_to_be_gone_leaves_no_text(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("x" * 1000))

    async def main() -> None:
        async with leased(store) as (live, session):
            epoch = await refresh(live.means, session, HISTORY_VIEW)
            disk.put(1, entry("y" * 1000))
            live.events.drain()

            def gone() -> None:
                monkeypatch.setattr(building, "start_of", raises)

            def raises(*_args: object) -> None:
                raise StoreError(errno.ENOENT, "no-such-epoch", "it is gone")

            Meanwhile(monkeypatch, gone)
            with pytest.raises(StoreError):
                await refresh(live.means, session, HISTORY_VIEW)
            assert live.means.cache.bytes <= epoch.size

    trio.run(main)


@pytest.mark.guarantee("G23f")
@pytest.mark.parametrize("cancelled", [True, False])
def test_a_comparison_that_does_not_end_leaves_no_text_and_no_descriptor(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    disk = store.session("a_b_1", *(entry("x" * 3000) for _ in range(400)))
    monkeypatch.setattr(building, "PASS_STEPS", 100)

    async def main() -> None:
        async with leased(store, cache=100_000) as (live, session):
            (await refresh(live.means, session, LOG_VIEW)).opens = 1
            await refresh(live.means, session, LOG_VIEW)
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(5):
                disk.put(400, entry("x" * 3000))
                live.events.drain()

                def ends() -> None:
                    if not cancelled:
                        raise OSError(errno.EIO, "the disk does not answer")
                    trio.from_thread.run_sync(scope.cancel)

                with monkeypatch.context() as patched, trio.CancelScope() as scope:
                    Meanwhile(patched, int, int, ends)
                    patched.setattr(means, "INLINE_STEPS", -1)
                    with suppress(StoreError):
                        await refresh(live.means, session, LOG_VIEW)
                assert scope.cancelled_caught is cancelled
            assert len(os.listdir("/proc/self/fd")) <= before

    trio.run(main)


def test_a_writer_of_later_steps_does_not_make_a_long_view_be_read_again_and_again(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes in place, as cp, tar and rsync do: each step is empty for a moment."""
    disk = store.session("a_b_1", *(entry(f"{number}") for number in range(200)))
    monkeypatch.setattr(building, "PASS_STEPS", 10)

    def writes() -> None:
        last = max(disk.numbers())
        (disk.path / f"step-{last:06}").write_bytes(entry("written"))
        (disk.path / f"step-{last + 1:06}").touch()

    async def main() -> None:
        async with leased(store) as (live, session):
            writes()
            reading = Meanwhile(monkeypatch, *[writes] * 1000)
            live.events.drain()
            await refresh(live.means, session, LOG_VIEW)
            assert reading.passes < 2 * (200 // 10)
            reading.passes = 0
            await refresh(live.means, session, LOG_VIEW)
            assert reading.passes < 200 // 10

    trio.run(main)


@pytest.mark.guarantee("G13c")
def test_an_opened_history_that_nobody_has_seen_is_not_superseded_when_events_are_lost(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"), entry("b"))
    monkeypatch.setattr(building, "PASS_STEPS", 1)

    async def main() -> None:
        async with leased(store) as (live, session):

            def acts() -> None:
                disk.add(entry("c"))
                for number in (2, 1):
                    (disk.path / f"step-{number:06}").unlink()
                lose_events(live)

            Meanwhile(monkeypatch, acts, direction="backwards")
            epoch = present(live.means, session, HISTORY_VIEW)
            epoch.opens = 1
            assert await refresh(live.means, session, HISTORY_VIEW) is epoch
            assert await live.text(session, epoch) == lines("c")

    trio.run(main)


@pytest.mark.guarantee("G12a", "G13d")
def test_a_view_does_not_grow_by_steps_that_are_read_after_events_were_lost(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", *(entry(f"{number}") for number in range(20)))
    monkeypatch.setattr(building, "PASS_STEPS", 10)

    async def main() -> None:
        async with leased(store) as (live, session):
            epoch = await refresh(live.means, session, LOG_VIEW)
            epoch.opens = 1
            for number in range(21, 41):
                disk.put(number, entry(f"{number}"))
            live.events.drain()

            def acts() -> None:
                disk.put(5, entry("first"))
                disk.put(35, entry("then"))
                lose_events(live)

            Meanwhile(monkeypatch, acts)
            await refresh(live.means, session, LOG_VIEW)
            shown = await live.text(session, epoch)
            assert (b"then" in shown, b"first" in shown) == (False, False)

    trio.run(main)


def test_the_remains_of_a_failed_gathering_do_no_harm(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another view finds the boundary, and then the history is built upwards."""
    store.session("a_b_1", *(entry(f"{number}") for number in range(40)))
    monkeypatch.setattr(building, "PASS_STEPS", 20)
    read, failing = replay.backwards, [OSError(5, "the disk does not answer")]

    def backwards(*args: Any, **named: Any) -> Any:
        if min(named["numbers"]) == 1 and failing:
            raise failing.pop()
        return read(*args, **named)

    async def main() -> None:
        async with leased(store) as (live, session):
            epoch = present(live.means, session, HISTORY_VIEW)
            with pytest.raises(StoreError):
                await refresh(live.means, session, HISTORY_VIEW)
            assert epoch.segments
            await refresh(live.means, session, MESSAGES_VIEW)
            shown = await live.shown(session, HISTORY_VIEW)
            assert shown == b"".join(entry(f"{n}") + b"\n" for n in range(40))
            assert session.epochs[HISTORY_VIEW] is epoch

    monkeypatch.setattr(building, "backwards", backwards)
    trio.run(main)


@pytest.mark.guarantee("G13a", "G13b")
@pytest.mark.parametrize("kept", [True, False])
def test_a_rebuilt_draft_is_adopted_if_it_begins_with_what_was_shown(
    store: StoreOnDisk, kept: bool
) -> None:
    disk = store.session("a_b_1", entry("a"), entry("b"))

    async def main() -> None:
        async with leased(store) as (live, session):
            epoch = await refresh(live.means, session, LOG_VIEW)
            before = await live.text(session, epoch)
            disk.put(2, entry("b" if kept else "other"))
            live.events.drain()
            assert epoch.state is State.SUSPECT
            assert await compare(live.means, session, epoch, 2)
            assert epoch.superseded is not kept
            assert (session.epochs[LOG_VIEW] is epoch) is kept
            assert await live.text(session, epoch) == before

    trio.run(main)


def test_the_beginning_is_found_again_when_the_compaction_is_removed(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("one"), entry("b"))

    async def main() -> None:
        async with leased(store) as (live, session):
            epoch = await refresh(live.means, session, HISTORY_VIEW)
            assert epoch.boundary.number == 2
            (disk.path / "step-000002").unlink()
            live.events.drain()
            assert session.extents.boundary(None) is None
            later = await refresh(live.means, session, HISTORY_VIEW)
            assert (epoch.superseded, later.boundary.number) == (True, 0)
            assert later.ranges() == [(1, 1), (3, 3)]

    trio.run(main)


def test_gathering_from_the_end_keeps_nothing_of_an_earlier_attempt(store: StoreOnDisk) -> None:
    store.session("a_b_1", entry("a"))

    async def main() -> None:
        async with leased(store) as (live, session):
            await refresh(live.means, session, LOG_VIEW)
            epoch = present(live.means, session, HISTORY_VIEW)
            for _ in range(2):
                await build_backwards(live.means, session, epoch)
                assert await live.text(session, epoch) == entry("a") + b"\n"
                epoch.state = State.EMPTY
            epoch.reset()
            assert live.means.cache.bytes == session.epochs[LOG_VIEW].size

    trio.run(main)


@pytest.mark.guarantee("G12a", "G13d")
def test_steps_added_while_events_were_lost_are_shown_before_later_ones(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> bytes:
        with living(store) as live:
            session = live.session("a_b_1")

            def beside(*args: Any, **named: Any) -> Any:
                monkeypatch.undo()
                found = replay.backwards(*args, **named)
                disk.add(entry("b"))
                lose_events(live)
                disk.add(entry("c"))
                return found

            monkeypatch.setattr(building, "backwards", beside)
            async with live.pool.lease(session):
                return await live.shown(session, HISTORY_VIEW)

    assert trio.run(main) == b"".join(entry(text) + b"\n" for text in "abc")
