"""Which steps are looked at where no events tell of changes, and what is found (G12, G13)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.session import stamps
from storage.session.index import scan_stamped
from storage.session.stamps import LOOKED_AT, Stamps, differing, look
from storage.session.steps import step_name

STEPS = LOOKED_AT + 50
EARLY, LATE = step_name(5), step_name(STEPS)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    for number in range(1, STEPS + 1):
        (tmp_path / step_name(number)).write_bytes(b"{}")
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield tmp_path, descriptor
    os.close(descriptor)


def stamped(descriptor: int, known: Stamps | None = None) -> Stamps:
    found = scan_stamped(descriptor, known).stamps
    assert found is not None
    return found


def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are looked at from now on."""
    names: list[str] = []
    stamp = stamps._stamp

    def noted(descriptor: int, name: str) -> tuple[int, int]:
        names.append(name)
        return stamp(descriptor, name)

    monkeypatch.setattr(stamps, "_stamp", noted)
    return names


def test_at_first_all_are_looked_at_and_then_the_last_ones(
    directory: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = looks(monkeypatch)
    first = stamped(directory[1])
    assert first.all_seen and len(looked_at) == STEPS
    looked_at.clear()
    again = stamped(directory[1], first)
    assert sorted(looked_at) == [step_name(n) for n in range(STEPS - LOOKED_AT + 1, STEPS + 1)]
    assert not again.all_seen and again.changed(first) == set()


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
def test_an_edit_is_found_in_the_last_steps_at_once_and_in_the_others_by_a_look_at_all(
    directory: tuple[Path, int],
) -> None:
    path, descriptor = directory
    first = stamped(descriptor)
    (path / EARLY).write_bytes(b"{ }")
    (path / LATE).write_bytes(b"{ }")
    found = stamped(descriptor, first)
    assert found.changed(first) == {LATE}
    assert differing(descriptor, found.seen) == {EARLY}
    doubted = scan_stamped(descriptor, found, [EARLY, "gone by now"]).stamps
    assert doubted is not None and doubted.changed(found) == {EARLY}


def test_where_listings_tell_other_inodes_all_are_looked_at(directory: tuple[Path, int]) -> None:
    path, descriptor = directory
    listed = dict.fromkeys(sorted(os.listdir(path)), 1)
    first = look(descriptor, listed, [LATE], None)
    (path / EARLY).write_bytes(b"{ }")
    found = look(descriptor, listed, [LATE], first)
    assert found.all_seen and found.changed(first) == {EARLY}
