"""Listing a session where others write: a listing is not atomic (G13)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage.session.index import LISTINGS_MOST, Index, scan_agreeing

SCANDIR = os.scandir


@pytest.fixture
def session_fd(tmp_path: Path) -> Iterator[int]:
    for number in range(1, 6):
        (tmp_path / f"step-{number:06}").write_bytes(b"{}")
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def listings(monkeypatch: pytest.MonkeyPatch, *missing: Sequence[int]) -> list[int]:
    """Each listing lacks what readdir(3) may pass over; the later ones lack nothing. How many were had
    is appended to what is returned."""
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


def test_numbers_that_lack_none_above_another() -> None:
    index = Index()
    assert not index.lacks_above(0)
    for name in ("step-000002", "step-000003"):
        index.add(name)
    assert index.lacks_above(0)
    assert not index.lacks_above(1)
    assert not index.lacks_above(7)
