"""A survey knows all compactions; it reads each step once, and again after a change (G29)."""

from __future__ import annotations

import errno

import pytest
import trio

from fusefs.session import survey as surveys
from fusefs.session.listing import ready
from fusefs.session.survey import AGAIN_MOST, survey
from storage.errors import StoreError
from storage.session import epochs
from tests.support.live import leased
from tests.support.stores import StoreOnDisk, compaction, entry


@pytest.mark.guarantee("G29b")
def test_only_new_and_changed_steps_are_read_again(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("one"), entry("b"))
    looked: list[int] = []

    def counted(reader: object, numbers: list[int], odd: object) -> object:
        looked.extend(numbers)
        return epochs.compactions(reader, numbers, odd)  # type: ignore[arg-type]

    monkeypatch.setattr("storage.session.reader.LOOP_SECONDS", 10)  # no pass ends for its time
    monkeypatch.setattr(surveys, "compactions", counted)

    async def main() -> None:
        async with leased(store) as (live, session):
            await ready(live.means, session)
            await survey(live.means, session)
            assert (looked, len(session.extents.compactions)) == ([1, 2, 3], 2)
            disk.add(compaction("two"))
            disk.put(1, compaction("zero"))
            live.events.drain()
            looked.clear()
            await survey(live.means, session)
            assert (sorted(looked), len(session.extents.compactions)) == ([1, 4], 4)

    trio.run(main)


@pytest.mark.guarantee("G29b")
def test_a_failed_survey_is_repeated_by_the_next_caller(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.session("a_b_1", entry("a"), compaction("one"), entry("b"))

    def failing(*_args: object, **_named: object) -> None:
        raise OSError(errno.EIO, "the disk does not answer")

    async def main() -> None:
        async with leased(store) as (live, session):
            await ready(live.means, session)
            with monkeypatch.context() as patched:
                patched.setattr(surveys, "compactions", failing)
                with pytest.raises(StoreError):
                    await survey(live.means, session)
            await survey(live.means, session)
            assert len(session.extents.compactions) == 2

    trio.run(main)


@pytest.mark.guarantee("G29b")
def test_a_survey_ends_though_somebody_keeps_editing(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("one"), entry("b"))
    surveyed = 0

    def edited(*args: object, **named: object) -> object:
        nonlocal surveyed
        surveyed += 1
        found = epochs.compactions(*args, **named)  # type: ignore[arg-type]
        disk.put(2, compaction(f"edited {surveyed}"))
        return found

    monkeypatch.setattr(surveys, "compactions", edited)

    async def main() -> None:
        async with leased(store) as (live, session):
            await ready(live.means, session)
            await survey(live.means, session)
            assert (surveyed, len(session.extents.compactions)) == (1 + AGAIN_MOST, 2)

    trio.run(main)


@pytest.mark.guarantee("G29b")
def test_a_survey_finds_every_compaction_however_few_steps_a_pass_can_read(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "PASS_BYTES", 1)
    store.session("a_b_1", *(compaction(f"{number}") for number in range(4 * AGAIN_MOST)))

    async def main() -> None:
        async with leased(store) as (live, session):
            await ready(live.means, session)
            await survey(live.means, session)
            assert len(session.extents.compactions) == 4 * AGAIN_MOST + 1

    trio.run(main)


def test_what_changes_while_it_is_read_is_read_again(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"), entry("b"))
    changes = [lambda: disk.put(1, compaction("one"))]

    def meanwhile(*args: object, **named: object) -> object:
        found = epochs.compactions(*args, **named)  # type: ignore[arg-type]
        if changes:
            changes.pop()()
        return found

    monkeypatch.setattr(surveys, "compactions", meanwhile)

    async def main() -> None:
        async with leased(store) as (live, session):
            await ready(live.means, session)
            await survey(live.means, session)
            assert session.extents.compactions.last_step(1) == 0

    trio.run(main)
