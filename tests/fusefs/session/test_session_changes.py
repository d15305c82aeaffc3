"""A session counts what happens to it, so that nothing that was found out before counts after."""

from __future__ import annotations

from fusefs.inotify import Change
from fusefs.session.session import Meaning, Session


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


def test_attributes_of_a_step_mean_nothing_and_others_something() -> None:
    session = Session("crab_tg-42_1")
    assert session.apply(Change(1, "step-000001", attributes=True)) is Meaning.NOTHING
    assert session.apply(Change(1, "meta", attributes=True)) is Meaning.CHANGED
    assert session.apply(Change(1, "", attributes=True)) is Meaning.CHANGED
