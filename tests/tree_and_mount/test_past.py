"""The past of a session: every epoch, and the history at any step and time, found by name (G29, G30)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from tests.support.drivers import Driver
from tests.support.model import shown
from tests.support.stores import SessionOnDisk, compaction, entry, event

PAST = ("history.jsonl", "messages.jsonl", "history.md")
Change = Callable[[SessionOnDisk], object]


def lines(*steps: bytes) -> bytes:
    return b"".join(step + b"\n" for step in steps)


def twice_compacted(driver: Driver) -> SessionOnDisk:
    """A session with three epochs: steps 1 to 3, 5 and 6, 8 and 9."""
    session = driver.session(entry("one"), event("two"), entry("three"), compaction("first"))
    for step in (entry("five"), entry("six"), compaction("second"), entry("eight"), event("nine")):
        session.add(step)
    return session


@pytest.mark.guarantee("G29c")
def test_each_epoch_shows_the_history_just_before_its_compaction(driver: Driver) -> None:
    session = twice_compacted(driver)
    at, steps = f"{session.slug}/.epochs", session.steps()
    assert sorted(driver.listdir(at)) == ["1", "2", "3"]
    for number, end in (("1", 3), ("2", 6), ("3", 9)):
        assert sorted(driver.listdir(f"{at}/{number}")) == sorted(PAST)
        for view in PAST[:2]:
            assert driver.text(f"{at}/{number}/{view}") == shown(steps[:end], view)
            assert driver.stat(f"{at}/{number}/{view}").size == len(shown(steps[:end], view))
    assert driver.text(f"{at}/3/history.md") == driver.text(f"{session.slug}/history.md")
    assert b"five" in driver.text(f"{at}/2/history.md")


@pytest.mark.guarantee("G30a")
def test_every_step_shows_the_history_as_if_the_later_ones_were_not_there(driver: Driver) -> None:
    session = twice_compacted(driver)
    steps = session.steps()
    for last in (*range(len(steps) + 2), 10**9):
        for view in PAST[:2]:
            assert driver.text(f"{session.slug}/.at/{last}/{view}") == shown(steps[:last], view)


@pytest.mark.guarantee("G30b")
def test_a_time_shows_the_steps_that_were_stored_by_then(driver: Driver) -> None:
    session = twice_compacted(driver)
    for number in session.numbers():
        os.utime(session.path / f"step-{number:06}", (0, 1_800_000_000 + number))
    steps, at = session.steps(), f"{session.slug}/.at"
    for last in (1, 3, 4, 7, 9):
        for time in (f"2027-01-15T08:00:{last:02}Z", f"2027-01-15T09:00:{last:02}.5+01:00"):
            for view in PAST[:2]:
                assert driver.text(f"{at}/{time}/{view}") == shown(steps[:last], view)
    assert driver.text(f"{at}/2027-01-15T07:59:59Z/history.md") == b""


@pytest.mark.guarantee("G30b")
def test_a_future_time_shows_what_is_stored_until_then(driver: Driver) -> None:
    session = driver.session(entry("one"))
    at = f"{session.slug}/.at/2099-01-01T00:00:00Z/history.jsonl"
    assert driver.text(at) == lines(entry("one"))
    driver.append(session, entry("two") + b"\n")
    assert driver.text(at) == lines(entry("one"), entry("two"))
    late = session.path / "step-000003.tmp.1"
    late.write_bytes(entry("late"))
    os.utime(late, (0, 4_200_000_000))
    late.rename(session.path / "step-000003")
    assert driver.text(at) == lines(entry("one"), entry("two"))


@pytest.mark.guarantee("G29d")
def test_no_listing_from_above_meets_the_past(driver: Driver) -> None:
    session = twice_compacted(driver)
    before = driver.listdir(session.slug)
    driver.text(f"{session.slug}/.epochs/1/history.jsonl")
    driver.text(f"{session.slug}/.at/1/history.jsonl")
    assert driver.listdir(session.slug) == before
    assert not [name for name in before if name.startswith(".")]
    assert driver.listdir(f"{session.slug}/.at") == []


@pytest.mark.guarantee("G29d")
@pytest.mark.parametrize(
    "name",
    [
        *(".epochs/0", ".epochs/4", ".epochs/01", ".epochs/-1", ".epochs/x", ".epochs/1/log.jsonl"),
        *(
            ".at/01",
            ".at/-1",
            ".at/18446744073709551616",
            ".at/x",
            ".at/2027-01-15",
            ".at/1/append",
        ),
        *(
            ".at/2027-01-15T08:00:00",
            ".at/2027-13-15T08:00:00Z",
            ".at/\u0661",
            ".epoch",
            ".at/1/.at",
        ),
    ],
)
def test_a_name_that_means_no_past_is_not_there(driver: Driver, name: str) -> None:
    session = twice_compacted(driver)
    with driver.refuses(errno.ENOENT):
        driver.stat(f"{session.slug}/{name}")


@pytest.mark.guarantee("G29d")
def test_the_past_cannot_be_written(driver: Driver) -> None:
    session = twice_compacted(driver)
    with driver.refuses(errno.EROFS, "cannot be changed"):
        driver.open(f"{session.slug}/.at/1/history.jsonl", os.O_WRONLY)
    for directory in (".epochs", ".at", ".epochs/1"):
        with driver.refuses(errno.EPERM, "made only for a session"):
            driver.mkdir(f"{session.slug}/{directory}/made")
        with driver.refuses(errno.EPERM, "only a session can be removed"):
            driver.rmdir(f"{session.slug}/{directory}")
        mode = driver.stat(f"{session.slug}/{directory}").mode
        assert mode & 0o7777 == (session.path.stat().st_mode & 0o555)


@pytest.mark.guarantee("G29b")
@pytest.mark.parametrize(
    ("change", "epochs", "new"),
    [
        pytest.param(lambda s: s.add(entry("ten")), 3, (), id="an-entry-comes"),
        pytest.param(lambda s: s.add(compaction("third")), 4, (), id="a-compaction-comes"),
        pytest.param(lambda s: s.put(6, event("x")), 3, (2,), id="an-entry-of-an-epoch-goes"),
        pytest.param(lambda s: (s.path / "step-000002").unlink(), 3, (), id="an-event-goes"),
        pytest.param(lambda s: (s.path / "step-000007").unlink(), 2, (), id="its-compaction-goes"),
        pytest.param(lambda s: (s.path / "step-000004").unlink(), 2, (2,), id="an-early-one-goes"),
        pytest.param(lambda s: s.put(4, entry("four")), 2, (2,), id="one-becomes-an-entry"),
        pytest.param(lambda s: s.put(2, compaction("z")), 4, (1, 2, 3), id="one-is-back-filled"),
        pytest.param(lambda s: s.put(9, compaction("z")), 4, (), id="one-ends-the-last"),
        pytest.param(lambda s: s.put(4, compaction("other")), 3, (), id="one-is-renamed"),
    ],
)
def test_epochs_follow_changes_and_get_new_inodes_exactly_when_they_must(
    driver: Driver, change: Change, epochs: int, new: tuple[int, ...]
) -> None:
    session = twice_compacted(driver)
    at = f"{session.slug}/.epochs"
    paths = {number: f"{at}/{number}/history.jsonl" for number in (1, 2, 3)}
    before = {number: driver.text(path) for number, path in paths.items()}
    inodes = {number: driver.stat(path).ino for number, path in paths.items()}
    held = {number: driver.open(path) for number, path in paths.items()}
    try:
        change(session)
        assert sorted(driver.listdir(at)) == [str(number) for number in range(1, epochs + 1)]
        ends = [n for n in session.numbers() if b"archive_name" in session.step(n)]
        for number, end in enumerate([*ends, max(session.numbers()) + 1], 1):
            steps = [session.step(n) for n in session.numbers() if n < end]
            assert driver.text(f"{at}/{number}/history.jsonl") == shown(steps, "history.jsonl")
            if number in paths:
                changed = driver.stat(paths[number]).ino != inodes[number]
                assert changed == (number in new), number
        for number, handle in held.items():
            assert driver.read(handle).startswith(before[number])
            assert driver.fstat(handle).ino == inodes[number]
    finally:
        for handle in held.values():
            driver.close(handle)


@pytest.mark.guarantee("G29b")
def test_a_removed_epoch_is_not_found_but_kept_for_open_files(
    driver: Driver,
) -> None:
    session = twice_compacted(driver)
    path = f"{session.slug}/.epochs/3/history.jsonl"
    with driver.opened(path) as handle:
        (session.path / "step-000007").unlink()
        with driver.refuses(errno.ENOENT):
            driver.open(path)
        with driver.refuses(errno.ENOENT):
            driver.stat(path)
        assert driver.read(handle) == lines(entry("eight"))
        assert driver.fstat(handle).size == len(lines(entry("eight")))
    session.put(7, compaction("again"))
    assert driver.text(path) == lines(entry("eight"))


@pytest.mark.guarantee("G29b")
def test_the_last_epoch_grows_as_the_history_does_and_stays_when_it_is_closed(
    driver: Driver,
) -> None:
    session = driver.session(entry("one"))
    path = f"{session.slug}/.epochs/1/history.jsonl"
    with driver.opened(path) as handle:
        driver.append(session, entry("two") + b"\n")
        assert driver.stat(path).size == len(lines(entry("one"), entry("two")))
        driver.compact(session, "first")
        driver.append(session, entry("three") + b"\n")
        assert driver.text(path) == lines(entry("one"), entry("two"))
        assert driver.text(f"{session.slug}/.epochs/2/history.jsonl") == lines(entry("three"))
        assert driver.stat(path).ino == driver.fstat(handle).ino


@pytest.mark.guarantee("G30a")
def test_a_step_of_the_past_that_is_edited_gives_its_names_new_inodes(driver: Driver) -> None:
    session = twice_compacted(driver)
    paths = {last: f"{session.slug}/.at/{last}/history.jsonl" for last in (5, 6, 9)}
    handles = {last: driver.open(path) for last, path in paths.items()}
    inodes = {last: driver.fstat(handle).ino for last, handle in handles.items()}
    session.put(6, entry("other"))
    assert driver.text(paths[6]) == lines(entry("five"), entry("other"))
    assert {last for last in paths if driver.stat(paths[last]).ino != inodes[last]} == {6}
    assert driver.read(handles[6]) == lines(entry("five"), entry("six"))
    for handle in handles.values():
        driver.close(handle)


@pytest.mark.guarantee("G20a", "G29d")
def test_the_past_of_a_deleted_session_is_gone_with_it(driver: Driver) -> None:
    session = twice_compacted(driver)
    with driver.opened(f"{session.slug}/.epochs/1/history.jsonl") as handle:
        driver.rmdir(session.slug)
        for name in (".epochs", ".epochs/1", ".at/3/history.jsonl"):
            with driver.refuses(errno.ENOENT):
                driver.stat(f"{session.slug}/{name}")
        assert driver.read(handle) == lines(entry("one"), entry("three"))
