"""Listing a session while others write to it: a listing is not atomic (G13)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from storage.session import index
from storage.session.index import LISTINGS_MOST, Index, scan, scan_agreeing
from storage.session.stamps import InTurn
from storage.session.steps import NUMBER_MAX

SCANDIR = os.scandir


@pytest.fixture
def session_fd(tmp_path: Path) -> Iterator[int]:
    for number in range(1, 6):
        (tmp_path / f"step-{number:06}").write_bytes(b"{}")
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def listings(monkeypatch: pytest.MonkeyPatch, *missing: Sequence[int]) -> list[int]:
    """Make each listing miss the given steps, as readdir(3) may; later listings are complete. The result
    grows by one element, the number of missed steps, per listing."""
    left, had = list(missing), []

    @contextmanager
    def scandir(fd: int) -> Iterator[Iterator[Any]]:
        lacks = {f"step-{number:06}" for number in (left.pop(0) if left else ())}
        had.append(len(lacks))
        with SCANDIR(fd) as entries:
            yield (entry for entry in entries if entry.name not in lacks)

    monkeypatch.setattr(os, "scandir", scandir)
    return had


@pytest.mark.guarantee("G13a")
def test_a_step_that_a_listing_passed_over_is_found_by_the_next(
    session_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = listings(monkeypatch, [3], [4])
    assert list(scan_agreeing(session_fd, 1).numbers) == [1, 2, 3, 4, 5]
    assert len(had) == 3


def test_where_no_number_is_missing_one_listing_will_do(
    session_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = listings(monkeypatch, [4, 5])
    assert list(scan_agreeing(session_fd, 0).numbers) == [1, 2, 3]
    assert len(had) == 1


def test_a_listing_that_is_repeated_looks_for_edits_only_once_for_long(
    session_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, asked = scan_agreeing(session_fd, 0).stamps, []

    def noted(numbers: Sequence[int], first: int, turn: int, seconds: float) -> InTurn:
        asked.append(seconds)
        return InTurn(numbers, first, turn, seconds)

    monkeypatch.setattr(index, "InTurn", noted)
    listings(monkeypatch, [3], [4])
    scan_agreeing(session_fd, 1, known, 0, 0.1)
    assert asked == [0.1, 0, 0]


def test_a_gap_that_was_there_before_costs_nothing(
    session_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = listings(monkeypatch, [2])
    assert list(scan_agreeing(session_fd, 3).numbers) == [1, 3, 4, 5]
    assert len(had) == 1


def test_a_directory_that_never_rests_is_taken_as_it_was_found(
    session_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = listings(monkeypatch, *([2 + n % 2] for n in range(100)))
    scan_agreeing(session_fd, 0)
    assert len(had) == 1 + LISTINGS_MOST


def test_whether_numbers_are_missing_above_a_given_one() -> None:
    index = Index()
    assert not index.lacks_above(0)
    for name in ("step-000002", "step-000003"):
        index.add(name)
    assert index.lacks_above(0)
    assert not index.lacks_above(1)
    assert not index.lacks_above(7)


STEPS = st.builds(
    lambda number, width: f"step-{number:0{width}}",
    st.integers(0, 12) | st.just(NUMBER_MAX) | st.just(NUMBER_MAX + 1),
    st.sampled_from([1, 2, 6, 7]),
)
NAMES = STEPS | st.sampled_from(["step-", "meta", "step-1.tmp"])


class Names(RuleBasedStateMachine):
    """Names come and go in any order; a set of them must answer every query as the index does."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
        self.model: set[str] = set()

    def numbers(self) -> list[int]:
        return sorted({int(name[5:]) for name in self.model})

    @rule(name=NAMES)
    def comes(self, name: str) -> None:
        digits = name[5:] if name.startswith("step-") else ""
        number = int(digits) if digits.isdigit() and 0 < int(digits) <= NUMBER_MAX else None
        new = number is not None and name not in self.model
        assert self.index.add(name) == (number if new else None)
        if new:
            self.model.add(name)

    @rule(name=NAMES)
    def goes(self, name: str) -> None:
        expected = int(name[5:]) if name in self.model else None
        assert self.index.discard(name) == expected
        self.model.discard(name)

    @rule(first=st.integers(0, 13), last=st.integers(0, 13), most=st.integers(1, 5))
    def is_asked(self, first: int, last: int, most: int) -> None:
        numbers = self.numbers()
        between = [number for number in numbers if first <= number <= last]
        assert list(self.index.between(first, last, most)) == between[:most]
        below = [number for number in numbers if number < first]
        assert list(self.index.before(first, most)) == below[-most:]
        above = [number for number in numbers if number > first]
        gaps = bool(above) and len(above) < above[-1] - first
        assert self.index.lacks_above(first) is gaps
        assert self.index.has(first) is (first in numbers)

    @invariant()
    def holds_what_came(self) -> None:
        numbers = self.numbers()
        assert list(self.index.numbers) == numbers
        assert self.index.greatest == max(numbers, default=0)
        for number in numbers:
            names = sorted(name for name in self.model if int(name[5:]) == number)
            assert self.index.names(number) == names
            assert all(self.index.knows(name, number) for name in names)


TestNames = Names.TestCase


@given(st.sets(STEPS))
def test_a_listing_finds_the_same_as_adding_each_name(names: set[str]) -> None:
    with TemporaryDirectory() as place:
        for name in names:
            Path(place, name).touch()
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = scan(fd)
        finally:
            os.close(fd)
    index = Index()
    for name in names:
        index.add(name)
    assert (list(found.numbers), found.odd) == (list(index.numbers), index.odd)
    strange = {name for name in names if int(name[5:]) > NUMBER_MAX or not int(name[5:])}
    assert {name for name, _ in found.strange} == strange
