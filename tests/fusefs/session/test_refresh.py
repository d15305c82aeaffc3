"""Refreshing a view: it shows what is in the store, at the cost of what is new (G12, G24)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from fusefs.config import Sync
from fusefs.session import building, lead
from fusefs.session.refresh import PATIENCE, archive, count_epochs, present, refresh
from fusefs.session.writer import Writer
from fusefs.views.cuts import InEpoch
from fusefs.views.epoch import State
from fusefs.views.formats import FORMATS, HISTORY, LOG, MESSAGES, View
from storage.formats.kinds import classify
from storage.session import epochs, index, replay, stamps
from storage.session.replay import Pass
from tests.support.live import Live, leased, living
from tests.support.model import VIEWS, shown
from tests.support.passes import Meanwhile
from tests.support.stores import StoreOnDisk, compaction, entry, event

ACTS = ("entry", "event", "compaction", "edit", "remove", "look")


@given(st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 9)), max_size=14), st.booleans())
@pytest.mark.guarantee("G12a", "G12c")
def test_every_view_shows_what_is_in_the_store_whatever_happened(
    tmp_path_factory: pytest.TempPathFactory, acts: Sequence[tuple[str, int]], watched: bool
) -> None:
    store = StoreOnDisk(tmp_path_factory.mktemp("refresh") / "store")
    disk = store.session("a_b_1", entry("first"))

    async def main() -> None:
        async with leased(store, watched=watched) as (live, session):
            for number, (act, which) in enumerate([*acts, ("look", 0)]):
                numbers = disk.numbers()
                match act:
                    case "entry":
                        disk.add(entry(f"said {number}"))
                    case "event":
                        disk.add(event(f"done {number}"))
                    case "compaction":
                        disk.add(compaction(f"name {number}"))
                    case "edit" if numbers:
                        disk.put(numbers[which % len(numbers)], entry(f"edited {number}"))
                    case "remove" if numbers:
                        step = f"step-{numbers[which % len(numbers)]:06}"
                        (disk.path / step).unlink()
                    case "look":
                        live.events.drain()
                        for format_ in FORMATS:
                            if format_.name in VIEWS:
                                found = await live.shown(session, View(format_))
                                assert found == shown(disk.steps(), format_.name)

    trio.run(main)


def during_lead(monkeypatch: pytest.MonkeyPatch, live: Live, acts: Callable[[], object]) -> None:
    """Something happens, and its events are drained, while the lead of a view is rendered."""
    left, render = [acts], lead.render_lead

    def rendered(*args: Any) -> lead.Lead:
        found = render(*args)
        if left:
            left.pop()()
            trio.from_thread.run_sync(live.events.drain)
        return found

    monkeypatch.setattr(lead, "render_lead", rendered)


def during_listing(monkeypatch: pytest.MonkeyPatch, acts: Callable[[], object]) -> None:
    """Something happens once the names are listed, and before the steps are checked."""
    left = [acts]

    def looked(*args: Any) -> stamps.Stamps:
        if left:
            left.pop()()
        return stamps.look(*args)

    monkeypatch.setattr(index, "look", looked)


@pytest.mark.guarantee("G12a")
def test_a_view_whose_compaction_goes_while_its_lead_is_checked_begins_anew(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("one"))

    async def main() -> None:
        async with leased(store) as (live, session):
            await refresh(live.means, session, View(MESSAGES))
            disk.put(1, entry("A"))
            disk.add(entry("b"))
            live.events.drain()

            def acts() -> None:
                (disk.path / "step-000002").unlink()
                disk.add(entry("c"))

            during_lead(monkeypatch, live, acts)
            shown_now = await live.shown(session, View(MESSAGES))
            assert shown_now == shown(disk.steps(), "messages.jsonl")

    trio.run(main)


@pytest.mark.guarantee("G12a")
def test_a_lead_follows_the_dialect_of_what_was_there_when_its_lines_were_read(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("one"))

    async def main() -> None:
        async with leased(store) as (live, session):
            await refresh(live.means, session, View(HISTORY))

            def acts() -> None:
                disk.put(1, b'{"message":{"role":"user","content":[{"type":"text","text":"a"}]}}')
                disk.add(entry("c"))

            during_lead(monkeypatch, live, acts)
            first = await live.shown(session, View(MESSAGES))
            assert b'"c"' in first
            assert b'"content":[' in first

    trio.run(main)


@pytest.mark.guarantee("G2c")
def test_a_lead_follows_the_first_entry_that_comes_while_it_is_looked_up(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", compaction("one"))
    blocks = b'{"message":{"role":"user","content":[{"type":"text","text":"a"}]}}'

    async def main() -> None:
        async with leased(store) as (live, session):
            await refresh(live.means, session, View(HISTORY))
            during_lead(monkeypatch, live, lambda: disk.add(blocks))
            first = await live.shown(session, View(MESSAGES))
            assert first == await live.shown(session, View(MESSAGES))
            assert first.count(b'"content":[') == 2

    trio.run(main)


@pytest.mark.guarantee("G24a", "G24b")
def test_what_was_shown_is_not_read_again(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", *(entry(f"{number}") for number in range(30)))
    read: list[int] = []

    def counted(direction: Callable[..., Pass]) -> Callable[..., Pass]:
        def pass_(*args: Any, **named: Any) -> Pass:
            read.extend(named["numbers"])
            return direction(*args, **named)

        return pass_

    monkeypatch.setattr("storage.session.reader.LOOP_SECONDS", 10)  # no pass ends for its time
    monkeypatch.setattr(building, "forwards", counted(replay.forwards))
    monkeypatch.setattr(building, "backwards", counted(replay.backwards))

    async def main() -> None:
        async with leased(store) as (live, session):
            await refresh(live.means, session, View(HISTORY))
            assert read == list(range(1, 31))
            for _ in range(3):
                read.clear()
                added = disk.add(entry("more"))
                live.events.drain()
                await refresh(live.means, session, View(HISTORY))
                assert read == [added]
            read.clear()
            await refresh(live.means, session, View(HISTORY))
            assert read == []

    trio.run(main)


def test_the_time_of_a_view_is_that_of_its_last_step(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"), event())

    async def main() -> None:
        async with leased(store) as (live, session):
            for view, number in ((View(HISTORY), 1), (View(LOG), 2)):
                epoch = await refresh(live.means, session, view)
                step = disk.path / f"step-{number:06}"
                assert epoch.mtime_ns == step.stat().st_mtime_ns

    trio.run(main)


def test_an_empty_session_has_the_time_of_its_meta(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1")

    async def main() -> None:
        async with leased(store) as (live, session):
            epoch = await refresh(live.means, session, View(HISTORY))
            assert epoch.mtime_ns == (disk.path / "meta").stat().st_mtime_ns
            assert (epoch.state, epoch.size) == (State.CURRENT, 0)

    trio.run(main)


def test_the_archive_and_the_number_of_epochs_follow_the_compactions(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        async with leased(store) as (live, session):
            for count, name in enumerate([None, "one", "two"], 1):
                if name is not None:
                    disk.add(compaction(name))
                    live.events.drain()
                assert await archive(live.means, session) == name
                assert await count_epochs(live.means, session) == count

    trio.run(main)


@pytest.mark.guarantee("G12c", "G13d")
@pytest.mark.parametrize("in_place", [True, False])
def test_without_events_what_is_edited_during_a_listing_is_not_shown_without_what_came_before(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    disk = store.session("a_b_1", *(entry(f"{number}") for number in range(40)))

    def acts() -> None:
        disk.add(entry("added"))
        if in_place:
            (disk.path / "step-000030").write_bytes(entry("edited"))
        else:
            disk.put(30, entry("edited"))

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            await live.shown(session, View(LOG))
            during_listing(monkeypatch, acts)
            found = await live.shown(session, View(LOG))
            assert (b"edited" in found, b"added" in found) == (True, True)

    trio.run(main)


@pytest.mark.guarantee("G12c", "G13d")
def test_without_events_a_compaction_replaced_during_a_listing_is_not_shown_without_what_came_before(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another view has shown the compaction, and this one has not yet."""
    disk = store.session("a_b_1", entry("a"))

    def acts() -> None:
        disk.add(entry("added"))
        disk.put(2, compaction("two"))

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            await live.shown(session, View(MESSAGES))
            disk.put(2, compaction("one"))
            await live.shown(session, View(HISTORY))
            during_listing(monkeypatch, acts)
            found = await live.shown(session, View(MESSAGES))
            assert (b"two" in found, b"added" in found) == (True, True)

    trio.run(main)


@pytest.mark.guarantee("G12c", "G13d")
def test_without_events_a_compaction_that_is_replaced_while_it_is_read_is_noticed(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("one"))
    acts = [True]

    def read(*args: Any, **named: Any) -> Pass:
        if acts:
            acts.pop()
            disk.add(entry("added"))
            disk.put(2, compaction("two"))
        return replay.backwards(*args, **named)

    monkeypatch.setattr(building, "backwards", read)

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            found = await live.shown(session, View(MESSAGES))
            assert (b"two" in found, b"added" in found) == (True, True)

    trio.run(main)


@pytest.mark.guarantee("G24a")
def test_without_events_an_open_takes_two_listings_while_others_only_add_steps(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", *(entry(f"{number}") for number in range(3)))
    listings: list[int] = []
    scan = index.scan_stamped

    def scanned(*args: Any) -> index.Index:
        found = scan(*args)
        listings.append(disk.add(entry("other")))
        return found

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            await live.shown(session, View(HISTORY))
            disk.add(entry("new"))
            monkeypatch.setattr(index, "scan_stamped", scanned)
            assert b"new" in await live.shown(session, View(HISTORY))
            assert len(listings) == 2

    trio.run(main)


@pytest.mark.guarantee("G29a")
def test_without_events_an_epoch_is_there_though_very_many_steps_change_while_it_is_read(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "DOUBTFUL_STEPS", 4)
    disk = store.session(
        "a_b_1", *(entry(f"{number}") for number in range(8)), compaction("c"), entry("x")
    )
    listed: list[object] = []
    scan = index.scan_stamped

    def scanned(*args: Any) -> index.Index:
        found = scan(*args)
        listed.append(found)
        for number in range(1, 9) if len(listed) == 2 else ():
            disk.put(number, disk.step(number))
        return found

    monkeypatch.setattr(index, "scan_stamped", scanned)

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            shown_then = await live.shown(session, View(HISTORY, InEpoch(2)))
            assert shown_then == entry("x") + b"\n"
            assert len(listed) > 2

    trio.run(main)


@pytest.mark.guarantee("G12a", "G12c")
@pytest.mark.parametrize("step", [entry("mine"), compaction("mine")], ids=["entry", "compaction"])
def test_without_events_an_own_step_that_others_remove_before_it_is_listed_is_not_shown_any_more(
    store: StoreOnDisk, step: bytes
) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            before = await live.shown(session, View(HISTORY))
            await Writer(live.means, Sync.NEVER).append(session, [classify(step)])
            await refresh(live.means, session, View(HISTORY), exact=False)
            (disk.path / "step-000002").unlink()
            disk.put(3, entry("b"))
            assert await live.shown(session, View(HISTORY)) == before + entry("b") + b"\n"

    trio.run(main)


@pytest.mark.guarantee("G12a")
@pytest.mark.parametrize("edited", [1, 30])
def test_steps_that_change_faster_than_they_are_read_are_shown_as_they_were_read(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch, edited: int
) -> None:
    """Also steps that no view has shown yet: no reader is kept waiting for ever."""
    disk = store.session("a_b_1", *(entry("x" * 600) for _ in range(40)))
    monkeypatch.setattr(building, "PASS_STEPS", 20)

    async def main() -> None:
        async with leased(store) as (live, session):
            edits = [lambda: disk.put(edited, entry("edited"))] * 9 * PATIENCE
            meanwhile = Meanwhile(monkeypatch, *edits)
            epoch = await refresh(live.means, session, View(LOG))
            assert len(epoch.ranges()) == 1
            assert epoch.ranges()[0] == (1, 40)
            assert meanwhile.left, "it went on until nobody edited any more"
            meanwhile.left.clear()
            assert b"edited" in await live.shown(session, View(LOG))

    trio.run(main)


@pytest.mark.guarantee("G12a")
def test_a_history_is_gathered_though_somebody_keeps_editing(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", *(entry(f"{number}") for number in range(40)))

    async def main() -> None:
        async with leased(store) as (live, session):
            edits = [lambda: disk.put(30, entry("edited"))] * 9 * PATIENCE
            gathering = Meanwhile(monkeypatch, *edits, direction="backwards")
            await refresh(live.means, session, View(HISTORY))
            assert gathering.left, "it went on until nobody edited any more"

    trio.run(main)


@pytest.mark.guarantee("G12a")
def test_a_beginning_is_found_though_somebody_keeps_editing(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", compaction("one"), *(entry(f"{number}") for number in range(40)))

    async def main() -> None:
        async with leased(store) as (live, session):
            await refresh(live.means, session, View(HISTORY))
            edits = [lambda: disk.put(30, entry("edited"))] * 9 * PATIENCE
            finding = Meanwhile(monkeypatch, *edits, direction="find_boundary")
            disk.put(1, compaction("other"))
            live.events.drain()
            await refresh(live.means, session, View(HISTORY))
            assert finding.left, "it went on until nobody edited any more"

    trio.run(main)


@pytest.mark.guarantee("G12a")
@pytest.mark.parametrize("known", [True, False])
def test_a_beginning_is_found_though_somebody_keeps_replacing_the_compaction(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    disk = store.session("a_b_1", entry("a"), *([compaction("one"), entry("b")] if known else []))

    async def main() -> None:
        async with leased(store) as (live, session):
            await refresh(live.means, session, View(HISTORY))
            replaces = [lambda: disk.put(2, compaction("other"))] * 500
            direction = "find_boundary" if known else "forwards"
            finding = Meanwhile(monkeypatch, *replaces, direction=direction)
            disk.put(2, compaction("other"))
            live.events.drain()
            shown = await live.shown(session, View(HISTORY))
            assert shown == (entry("b") + b"\n" if known else b"")
            assert finding.left, "it went on until nobody replaced it any more"
            finding.left.clear()
            assert await live.shown(session, View(HISTORY)) == shown

    trio.run(main)


@pytest.mark.guarantee("G12a", "G24c")
def test_a_view_without_times_is_read_once_though_somebody_keeps_setting_permissions(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", *(entry(f"{number}") for number in range(40)))

    async def main() -> None:
        async with leased(store) as (live, session):
            await refresh(live.means, session, View(HISTORY))
            disk.put(30, entry("edited"))
            live.events.drain()
            step = disk.path / "step-000003"
            modes = [partial(step.chmod, 0o600), partial(step.chmod, 0o640)] * PATIENCE
            reading = Meanwhile(monkeypatch, *modes)
            await refresh(live.means, session, View(HISTORY))
            assert reading.passes == 1

    trio.run(main)


def test_concurrent_requests_for_one_view_build_it_once(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.session(
        "a_b_1", *(entry("x" * 900) for _ in range(400))
    )  # more than one pass on the loop
    passes: list[object] = []

    def counted(*args: object, **named: object) -> object:
        passes.append(named["numbers"])
        return replay.backwards(*args, **named)  # type: ignore[arg-type]

    async def main() -> None:
        with living(store) as live:
            session = live.session("a_b_1")
            async with live.pool.lease(session), trio.open_nursery() as nursery:
                epoch = present(live.means, session, View(HISTORY))
                for _ in range(5):
                    nursery.start_soon(refresh, live.means, session, View(HISTORY))
            assert (epoch.state, epoch.lines) == (State.CURRENT, 400)

    monkeypatch.setattr(building, "backwards", counted)
    trio.run(main)
    assert len(passes) == 1
