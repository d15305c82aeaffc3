"""What happens to a step whose name another file took, where no events say who replaced it (G16)."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from fusefs.config import Sync
from fusefs.session import looks
from fusefs.session import restorer as restoring
from fusefs.session.restorer import BATCH_STEPS, SYNCED_STEPS, Restorer
from fusefs.session.session import Session
from fusefs.session.step_texts import StepTexts
from fusefs.session.writer import Writer
from storage.formats.kinds import classify
from storage.session.claims import Claim, Claimer
from storage.session.moving import Mover
from tests.support.live import leased, living
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry

MINE, LATER, OTHERS = entry("mine"), entry("mine, later"), entry("another's")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore displaced steps at once, instead of waiting until daemons are quiet."""
    monkeypatch.setattr(restoring, "QUIET_SECONDS", 0)


def after(store: StoreOnDisk, disk: SessionOnDisk, befalls: Callable[[Path], None]) -> list[bytes]:
    """Append a step, apply `befalls` to its file, and restore the session; return the steps then."""

    async def main() -> None:
        with living(store, watched=False) as live:
            session, writer = (
                Session(disk.slug, texts=live.means.texts),
                Writer(live.means, Sync.NEVER),
            )
            async with live.pool.lease(session):
                await writer.append(session, [classify(MINE)])
                befalls(disk.path / "step-000001")
                session.recent.doubt()
                while session.recent.owed:
                    done = await Restorer(live.means, writer, durable=False).restore(session)
                    assert (done.error, done.lost) == (None, [])

    trio.run(main)
    return disk.steps()


def replaced(path: Path, by: bytes) -> None:
    """Rename another file over the name."""
    other = path.with_name(f"{path.name}.tmp.1")
    other.write_bytes(by)
    os.replace(other, path)


@pytest.mark.guarantee("G16d")
@pytest.mark.usefixtures("at_once")
def test_a_step_that_another_file_replaced_is_stored_again(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1")
    assert after(store, disk, lambda path: replaced(path, OTHERS)) == [OTHERS, MINE]


@pytest.mark.guarantee("G16d")
@pytest.mark.usefixtures("at_once")
def test_a_step_replaced_by_a_file_of_the_same_contents_counts_as_present(
    store: StoreOnDisk,
) -> None:
    disk = store.session("a_b_1")
    assert after(store, disk, lambda path: replaced(path, MINE)) == [MINE]


@pytest.mark.guarantee("G16a", "G24b")
def test_on_a_far_store_a_step_that_nobody_changed_is_not_read_to_know_that(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.session("a_b_1", entry("a"))
    read: list[object] = []
    monkeypatch.setattr(looks, "read_step", lambda *args: read.append(args))

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            writer = Writer(live.means, Sync.NEVER)
            restorer = Restorer(live.means, writer, durable=False)
            await writer.append(session, [classify(entry("mine"))])
            session.recent.doubt()  # as when the session is opened again
            while session.recent.owed:
                await restorer.restore(session)
            assert (len(session.recent), read) == (1, [])

    trio.run(main)


@pytest.mark.guarantee("G16c")
@pytest.mark.usefixtures("at_once")
def test_a_step_that_was_removed_stays_removed(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1")
    assert after(store, disk, Path.unlink) == []


@pytest.mark.guarantee("G16c")
@pytest.mark.usefixtures("at_once")
def test_a_step_that_is_removed_while_it_is_checked_stays_removed(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1")
    read = StepTexts.read

    async def removed_meanwhile(
        texts: StepTexts, places: Sequence[tuple[int, int]]
    ) -> list[bytes | None]:
        found = await read(texts, places)
        (disk.path / "step-000001").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(StepTexts, "read", removed_meanwhile)
    # As on a store that sets the mtime at close: the same step, with another identity.
    assert after(store, disk, lambda path: os.utime(path, (5, 5))) == []


@pytest.mark.guarantee("G16a", "G16d")
@pytest.mark.usefixtures("at_once")
def test_a_step_is_remembered_where_it_was_moved_although_that_name_was_freed_just_before(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another mount frees one when it moves its step up."""
    disk, move, kept = store.session("a_b_1"), Mover.move, [0]

    def moved(mover: Mover, number: int, identity: int, first: int) -> int | None:
        name = disk.path / f"step-{first:06}"
        name.write_bytes(OTHERS)
        name.unlink()
        return move(mover, number, identity, first)

    async def main() -> None:
        async with leased(store) as (live, session):
            writer = Writer(live.means, Sync.NEVER)
            await writer.append(session, [classify(MINE), classify(LATER)])
            replaced(disk.path / "step-000001", OTHERS)
            live.events.drain()
            while session.recent.owed:
                await Restorer(live.means, writer, durable=False).restore(session)
            live.events.drain()
            kept[:] = [step.number for step in session.recent.kept(disk.numbers())]

    monkeypatch.setattr(Mover, "move", moved)
    trio.run(main)
    assert disk.steps() == [OTHERS, MINE, LATER]
    assert kept == disk.numbers()[1:]


@pytest.mark.guarantee("G16a", "G23a")
@pytest.mark.usefixtures("at_once")
def test_a_writer_waits_for_a_part_of_a_restore_and_not_for_all_of_it(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "SHARED_SECONDS", 0)
    disk, left = store.session("a_b_1"), 0
    lines = [classify(entry(f"line {number}")) for number in range(5 * BATCH_STEPS)]

    async def main() -> None:
        nonlocal left
        with living(store, watched=False) as live:
            session = Session(disk.slug, texts=live.means.texts)
            writer = Writer(live.means, Sync.NEVER)
            async with live.pool.lease(session):
                await writer.append(session, lines)
                for number in disk.numbers():
                    replaced(disk.path / f"step-{number:06}", OTHERS)
                session.recent.doubt()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(Restorer(live.means, writer, durable=False).restore, session)
                    await trio.testing.wait_all_tasks_blocked()
                    await writer.append(session, [classify(MINE)])
                    left = session.recent.displaced

    trio.run(main)
    assert 0 < left < len(lines)


@pytest.mark.guarantee("G16a", "G17a")
@pytest.mark.usefixtures("at_once")
def test_on_a_far_store_every_step_that_is_stored_again_is_on_disk_before_its_name(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, synced, fdatasync = store.session("a_b_1"), 0, os.fdatasync
    steps = [classify(entry(f"line {number}")) for number in range(2 * SYNCED_STEPS)]

    def counted(fd: int) -> None:
        nonlocal synced
        synced += 1
        fdatasync(fd)

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            writer = Writer(live.means, Sync.NEVER)
            await writer.append(session, steps)
            for number in disk.numbers():
                replaced(disk.path / f"step-{number:06}", OTHERS)
            session.recent.doubt()
            monkeypatch.setattr(os, "fdatasync", counted)
            while session.recent.owed:
                await Restorer(live.means, writer, durable=True).restore(session)

    trio.run(main)
    assert disk.steps()[len(steps) :] == [step.data for step in steps]
    assert synced == len(steps)


@pytest.mark.guarantee("G16d", "G27b")
@pytest.mark.usefixtures("at_once")
def test_what_a_silent_store_stores_again_after_the_deadline_is_not_stored_twice(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1")
    answers, claim = threading.Event(), Claimer.claim

    def silent(*args: Any, **named: Any) -> Claim:
        answers.wait()
        return claim(*args, **named)

    async def main() -> None:
        async with leased(store, watched=False) as (live, session):
            writer = Writer(live.means, Sync.NEVER)
            restorer = Restorer(live.means, writer, durable=False)
            await writer.append(session, [classify(MINE), classify(LATER)])
            for number in (1, 2):
                replaced(disk.path / f"step-{number:06}", OTHERS)
            session.recent.doubt()
            monkeypatch.setattr(Claimer, "claim", silent)
            monkeypatch.setattr(live.means.work, "_deadline", 0.1)
            done = await restorer.restore(session)
            assert done.error is not None
            assert done.error.errno == errno.ETIMEDOUT
            answers.set()
            monkeypatch.setattr(live.means.work, "_deadline", 30)
            while session.recent.owed:
                assert (await restorer.restore(session)).error is None

    trio.run(main)
    assert disk.steps() == [OTHERS, OTHERS, MINE, LATER]
