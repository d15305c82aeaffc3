"""Which steps are checked where no events report changes, and what is found (G12, G13)."""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.session import stamps
from storage.session.index import scan_stamped
from storage.session.stamps import IN_TURN, LAST, Stamps, look
from storage.session.steps import step_identity, step_name

STEPS = 2 * IN_TURN + 50
EARLY, LATE = step_name(5), step_name(STEPS)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    for number in range(1, STEPS + 1):
        (tmp_path / step_name(number)).write_bytes(b"{}")
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield tmp_path, descriptor
    os.close(descriptor)


def stamped(
    descriptor: int, known: Stamps | None = None, first: int = 0, seconds: float = math.inf
) -> Stamps:
    found = scan_stamped(descriptor, known, first, seconds).stamps
    assert found is not None
    return found


def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are checked by stat from now on."""
    names: list[str] = []
    stamp = stamps._stamp

    def noted(descriptor: int, name: str) -> stamps.Stamp:
        names.append(name)
        return stamp(descriptor, name)

    monkeypatch.setattr(stamps, "_stamp", noted)
    return names


def test_the_first_listing_checks_all_steps_and_later_ones_those_that_are_shown(
    directory: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = looks(monkeypatch)
    first = stamped(directory[1])
    assert len(looked_at) == STEPS
    looked_at.clear()
    again = stamped(directory[1], first, 11)
    assert sorted(looked_at) == [step_name(n) for n in range(11, STEPS + 1)]
    assert again.changed(first) == set()


@pytest.mark.guarantee("G24a")
def test_an_approximate_listing_checks_the_last_steps_and_the_others_in_turn(
    directory: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = stamped(directory[1])
    looked_at = looks(monkeypatch)
    seen: set[str] = set()
    for _ in range(3):
        looked_at.clear()
        known = stamped(directory[1], known, seconds=0)
        assert len(looked_at) == IN_TURN + LAST
        assert {step_name(n) for n in range(STEPS - LAST + 1, STEPS + 1)} <= set(looked_at)
        seen.update(looked_at)
    assert len(seen) == STEPS


@pytest.mark.guarantee("G12c", "G24a")
def test_an_approximate_listing_checks_each_step_that_is_shown_once_if_there_is_time(
    directory: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = stamped(directory[1])
    known.turn = 30
    looked_at = looks(monkeypatch)
    stamped(directory[1], known, 11, seconds=60)
    assert sorted(looked_at) == [step_name(number) for number in range(11, STEPS + 1)]


@pytest.mark.guarantee("G12c")
def test_an_approximate_listing_ends_its_checks_when_the_time_is_over(
    directory: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = stamped(directory[1])
    clock = iter(range(10 * STEPS))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    looked_at = looks(monkeypatch)
    found = stamped(directory[1], known, seconds=20)
    assert (found.turn, found.extra_seconds) == (IN_TURN + 20, 20)
    assert len(looked_at) == LAST + IN_TURN + 19


@pytest.mark.guarantee("G13b")
def test_steps_that_came_went_or_were_replaced_are_found_wherever_they_are(
    directory: tuple[Path, int],
) -> None:
    path, descriptor = directory
    first = stamped(descriptor)
    (path / "new").write_bytes(b"{ }")
    (path / "new").rename(path / EARLY)
    (path / step_name(7)).unlink()
    (path / step_name(STEPS + 1)).write_bytes(b"{}")
    found = stamped(descriptor, first)
    assert found.changed(first) == {EARLY, step_name(7), step_name(STEPS + 1)}


@pytest.mark.guarantee("G13b")
def test_an_exact_listing_finds_every_edit_and_an_approximate_one_those_in_the_last_steps(
    directory: tuple[Path, int],
) -> None:
    path, descriptor = directory
    first = stamped(descriptor)
    (path / EARLY).write_bytes(b"{ }")
    (path / LATE).write_bytes(b"{ }")
    first.turn = 6
    assert stamped(descriptor, first, seconds=0).changed(first) == {LATE}
    assert stamped(descriptor, first).changed(first) == {EARLY, LATE}


def test_where_listings_report_other_inodes_than_stat_all_steps_are_checked(
    directory: tuple[Path, int],
) -> None:
    path, descriptor = directory
    listed = dict.fromkeys(sorted(os.listdir(path)), 1)
    first = look(descriptor, listed, [LATE], None)
    (path / EARLY).write_bytes(b"{ }")
    found = look(descriptor, listed, [LATE], first)
    assert found.changed(first) == {EARLY}


@pytest.mark.guarantee("G12c")
def test_the_identity_of_a_new_step_is_as_old_as_what_is_known_of_it_where_all_are_checked_again(
    directory: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system whose listings have other inode numbers: a new step is checked twice."""
    path, descriptor = directory
    known = stamped(descriptor)
    new = path / step_name(STEPS + 1)
    new.write_bytes(b"{}")
    stamp, acts = stamps._stamp, [lambda: new.write_bytes(b"edited")]

    def checked(descriptor: int, name: str) -> stamps.Stamp:
        found = stamp(descriptor, name)
        if name == new.name and acts:
            acts.pop()()
        return found._replace(inode=found.inode + 1)

    monkeypatch.setattr(stamps, "_stamp", checked)
    found = stamped(descriptor, known)
    assert not acts
    assert found.identities[new.name] == step_identity(new.stat())


@pytest.mark.guarantee("G20b", "G25a")
@pytest.mark.parametrize(("times", "fails"), [(3, False), (99, True)])
def test_a_step_that_is_stale_does_not_make_its_session_stale(
    directory: tuple[Path, int], monkeypatch: pytest.MonkeyPatch, times: int, fails: bool
) -> None:
    """Another host may have renamed over it: only the directory tells that the session is deleted."""
    before, stat, left = stamped(directory[1]), os.stat, [EARLY] * times

    def stale(name: Any, **named: Any) -> os.stat_result:
        if name in left:
            left.remove(name)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return stat(name, **named)

    monkeypatch.setattr(os, "stat", stale)
    if fails:
        with pytest.raises(OSError, match=EARLY) as failed:
            stamped(directory[1], before)
        assert failed.value.errno == errno.EIO
    else:
        assert stamped(directory[1], before).changed(before) == set()
