"""How a session applies what happens in its directory: what each change means and invalidates."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.inotify import Change
from fusefs.session.session import Meaning, Session
from fusefs.views.cuts import AtStep
from fusefs.views.epoch import Epoch, State
from fusefs.views.formats import HISTORY, LOG, View
from fusefs.views.text_cache import TextCache
from storage.formats.kinds import classify
from storage.session.index import scan, scan_stamped
from storage.session.replay import START, Boundary, Text
from storage.session.steps import step_name
from tests.support.stores import entry


def test_whatever_happens_is_counted() -> None:
    session = Session("crab_tg-42_1")
    for happens in (
        lambda: session.apply(Change(1, "step-000001")),
        lambda: session.apply(Change(1, "meta", attributes=True)),
        lambda: session.apply(Change(1, "", attributes=True)),
        lambda: session.apply(Change(1, "some.tmp", appeared=True)),
        session.missed,
        session.closed,
        lambda: session.apply(Change(1, "", gone=True)),
    ):
        before = session.changes
        happens()
        assert session.changes > before


def test_attribute_changes_matter() -> None:
    session = Session("crab_tg-42_1")
    for name in ("meta", ""):
        assert session.apply(Change(1, name, attributes=True)) is Meaning.CHANGED


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """An open session of three steps that receives events."""
    for number in (1, 2, 3):
        (tmp_path / step_name(number)).write_bytes(entry(f"{number}"))
    made = Session("crab_tg-42_1")
    made.opened(os.open(tmp_path, os.O_RDONLY), near=True)
    made.watch = 7
    made.relisted(scan(made.fd), stale=False)
    made.refreshing = View(LOG)
    yield made
    os.close(made.fd)


def came(session: Session, number: int) -> Meaning:
    Path(f"/proc/self/fd/{session.fd}", step_name(number)).write_bytes(entry("new"))
    return session.apply(Change(7, step_name(number), appeared=True, moved_from="x.tmp"))


@pytest.mark.guarantee("G12a")
def test_a_step_after_all_others_is_growth_and_an_earlier_one_is_a_change(session: Session) -> None:
    assert came(session, 7) is Meaning.GREW
    assert came(session, 5) is Meaning.CHANGED
    assert list(session.index.numbers) == [1, 2, 3, 5, 7]
    assert session.touches(5, 7)
    assert not session.touches(1, 4)


def test_what_changes_is_noted_only_for_who_refreshes_the_session(session: Session) -> None:
    session.refreshing = None
    session.stored(4, classify(entry("mine")))
    assert session.touched == set()


def test_the_event_of_a_step_that_this_mount_stored_itself_changes_nothing(
    session: Session,
) -> None:
    session.stored(4, classify(entry("mine")))
    session.touched.clear()
    assert session.apply(Change(7, step_name(4), appeared=True)) is Meaning.GREW
    assert session.touched == set()
    assert step_name(4) in session.judged.steps


@pytest.mark.guarantee("G12a")
def test_a_step_that_others_remove_while_a_thread_still_stores_is_not_shown(
    session: Session,
) -> None:
    with session.recent.claiming():
        session.apply(Change(7, step_name(4), appeared=True))
        session.apply(Change(7, step_name(4), disappeared=True))
        session.stored(4, classify(entry("mine")))
        session.apply(Change(7, step_name(5), disappeared=True))  # of who had the number before
        session.stored(5, classify(entry("mine")))
        came(session, 5)
    assert list(session.index.numbers) == [1, 2, 3, 5]
    assert step_name(4) not in session.judged.steps


@pytest.mark.parametrize(
    ("change", "meaning"),
    [
        (Change(7, step_name(2), disappeared=True), Meaning.CHANGED),
        (Change(7, step_name(9), disappeared=True), Meaning.NOTHING),
        (Change(7, step_name(2)), Meaning.CHANGED),
        (Change(7, step_name(9)), Meaning.NOTHING),
        (Change(7, step_name(2), attributes=True), Meaning.CHANGED),
        (Change(7, step_name(9), attributes=True), Meaning.NOTHING),
        (Change(7, "meta", appeared=True), Meaning.CHANGED),
        (Change(7, "", gone=True), Meaning.GONE),
    ],
)
def test_a_change_is_classified_by_its_meaning(
    session: Session, change: Change, meaning: Meaning
) -> None:
    assert session.apply(change) is meaning


@pytest.mark.guarantee("S2")
def test_a_directory_in_place_of_a_step_is_skipped_and_reported(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkdir(step_name(4), dir_fd=session.fd)
    session.apply(Change(7, step_name(4), appeared=True))
    assert not session.index.has(4)
    assert [step_name(4) in record.message for record in caplog.records] == [True]


def test_what_happens_while_the_directory_is_listed_counts_after_the_listing(
    session: Session,
) -> None:
    listed = scan(session.fd)
    session.backlog = []
    came(session, 4)
    assert not session.index.has(4)
    session.relisted(listed, stale=False)
    assert session.index.has(4)


def test_a_listing_that_failed_loses_nothing_that_happened_meanwhile(session: Session) -> None:
    session.backlog = []
    came(session, 4)
    session.unlisted()
    assert session.index.has(4)


@pytest.mark.guarantee("G12c")
def test_without_events_a_listing_finds_which_steps_differ(
    session: Session, tmp_path: Path
) -> None:
    session.watch = None
    session.relisted(scan_stamped(session.fd, session.index.stamps), stale=False)
    session.touched.clear()
    (tmp_path / step_name(2)).write_bytes(entry("edited, and longer"))
    (tmp_path / step_name(3)).unlink()
    came_last = tmp_path / step_name(9)
    came_last.write_bytes(entry("new"))
    assert sorted(
        session.relisted(scan_stamped(session.fd, session.index.stamps), stale=False) or []
    ) == [2, 3, 9]
    assert session.touched == {2, 3, 9}


def showing(session: Session, view: View, last: int, *shown: int) -> Epoch:
    """An epoch that shows these steps, and has read up to `last`."""
    epoch = session.epochs[view] = Epoch(view, TextCache(1 << 20))
    epoch.begin(START, b"", None)
    if shown:
        epoch.extend([Text(shown[0], shown[-1], array("Q", shown), b"\n" * len(shown))])
    epoch.last = last
    epoch.complete()
    return epoch


@pytest.mark.parametrize(
    ("number", "state", "last"),
    [
        (9, State.CURRENT, 6),  # not read yet
        (5, State.CURRENT, 4),  # read but not shown: read again
        (3, State.SUSPECT, 6),
        (2, State.SUSPECT, 6),  # nothing was there, but something may be now
    ],
)
def test_an_epoch_is_doubted_only_if_it_may_have_shown_the_step(
    session: Session, number: int, state: State, last: int
) -> None:
    epoch = showing(session, View(LOG), 6, 1, 3, 4)
    session.touch(number)
    assert (epoch.state, epoch.last) == (state, last)


def test_a_step_before_the_beginning_of_a_history_does_not_affect_it(session: Session) -> None:
    epoch = showing(session, View(HISTORY), 6, 5, 6)
    epoch.boundary = Boundary(4, "name")
    session.touch(2)
    assert epoch.state is State.CURRENT


def test_after_lost_events_everything_is_checked_again(session: Session) -> None:
    epoch = showing(session, View(LOG), 3, 1, 2, 3)
    session.judged.add(step_name(3), classify(entry("3")))
    session.missed()
    assert (session.stale, session.verified, session.judged.steps) == (True, False, {})
    session.relisted(scan(session.fd), stale=False)
    assert epoch.state is State.SUSPECT


def test_a_closed_session_keeps_only_its_epochs(session: Session) -> None:
    epoch = showing(session, View(LOG), 3, 1, 2, 3)
    fd = session.fd
    session.closed()
    assert not session.is_open
    assert session.index.greatest == 0
    assert session.epochs == {View(LOG): epoch}
    session.opened(fd, near=True)
    assert (session.stale, epoch.state) == (True, State.SUSPECT)


def test_forgetting_a_view_forgets_its_beginning(session: Session) -> None:
    cut = AtStep(2)
    for view in (View(HISTORY, cut), View(LOG, cut)):
        showing(session, view, 2)
    session.extents.begins(cut, START)
    session.drop(View(LOG, cut))
    assert session.extents.boundary(cut) == START
    session.drop(View(HISTORY, cut))
    assert session.extents.boundary(cut) is None
