"""Steps that may not be on disk: a few are kept open, for many the whole file system is synced (G17)."""

from __future__ import annotations

import os
from pathlib import Path

from fusefs.session.unsynced import KEPT_STEPS, Unsynced
from storage.ahead import Outcome
from storage.session.claims import UNKNOWN, Claim


def claims(directory: Path, count: int) -> list[Claim]:
    flags = os.O_CREAT | os.O_WRONLY
    return [Claim(n, os.open(directory / f"{n}", flags), UNKNOWN) for n in range(count)]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_few_steps_are_kept_open_and_of_many_only_the_first(tmp_path: Path) -> None:
    before = descriptors()
    unsynced = Unsynced()
    assert not unsynced
    for number, claim in enumerate(claims(tmp_path, KEPT_STEPS + 3), 1):
        unsynced.add(claim)
        assert len(unsynced.fds) == min(number, KEPT_STEPS)
        assert unsynced.whole is (number > KEPT_STEPS)
    assert descriptors() == before + KEPT_STEPS
    unsynced.close()
    assert (descriptors(), bool(unsynced)) == (before, False)


def test_a_step_that_could_not_be_kept_open_is_synced_with_the_whole() -> None:
    unsynced = Unsynced()
    unsynced.add(Claim(1, None, UNKNOWN))
    assert unsynced.whole


def test_where_descriptors_are_short_nothing_is_forgotten(tmp_path: Path) -> None:
    before = descriptors()
    unsynced = Unsynced()
    unsynced.let_go()
    assert not unsynced
    for claim in claims(tmp_path, 3):
        unsynced.add(claim)
    unsynced.let_go()
    assert (descriptors(), unsynced.whole) == (before, True)


def test_names_are_owed_until_their_sync_has_succeeded() -> None:
    def fails() -> None:
        raise OSError

    unsynced, done, failed = Unsynced(), Outcome(lambda: None), Outcome(fails)
    unsynced.add_names(done)
    assert unsynced
    done.run()
    assert not unsynced
    unsynced.add_names(failed)
    failed.run()
    assert unsynced
    assert unsynced.names == [failed]
