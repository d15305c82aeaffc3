"""Looking at the early steps of what was listed where no events tell of changes (G13)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from fusefs.coherence import patrol
from fusefs.coherence.patrol import PIECE_STEPS
from fusefs.session.session import Session
from fusefs.work import Work
from storage.session.index import scan_stamped
from storage.session.steps import step_name

STEPS = PIECE_STEPS + 20


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    for number in range(1, STEPS + 1):
        (tmp_path / step_name(number)).write_bytes(b"{}")
    session = Session("crab_tg-42_1")
    session.opened(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY), near=False)
    session.index = scan_stamped(session.fd, None)
    yield session
    os.close(session.fd)


@pytest.mark.guarantee("G13b")
def test_a_look_finds_what_was_edited_wherever_it_is_and_the_next_listing_looks_at_it(
    session: Session, tmp_path: Path
) -> None:
    async def looked() -> bool:
        return await patrol.look(Work(near=False), session)

    assert not trio.run(looked)
    assert session.index.doubted == set()
    edited = {step_name(1), step_name(PIECE_STEPS), step_name(STEPS)}
    for name in edited:
        (tmp_path / name).write_bytes(b"{ }")
    assert trio.run(looked)
    assert session.index.doubted == edited
    known = session.index.stamps
    assert known is not None
    found = scan_stamped(session.fd, known, session.index.doubted).stamps
    assert found is not None
    assert found.changed(known) == edited
