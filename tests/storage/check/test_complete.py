"""A new file appears complete, or nothing changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.check.complete import create_complete
from storage.posix import opened_directory


@pytest.fixture
def at(tmp_path: Path) -> Iterator[int]:
    with opened_directory(str(tmp_path)) as descriptor:
        yield descriptor


def test_an_exclusive_file_replaces_nothing(tmp_path: Path, at: int) -> None:
    create_complete("a", b"one", at, 0o604, None, exclusive=True, sync=True)
    with pytest.raises(FileExistsError):
        create_complete("a", b"two", at, 0o600, None, exclusive=True, sync=False)
    assert (tmp_path / "a").read_bytes() == b"one"
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o604
    assert os.listdir(tmp_path) == ["a"]


def test_another_file_is_replaced_in_one_step(tmp_path: Path, at: int) -> None:
    (tmp_path / "outside").write_bytes(b"outside")
    (tmp_path / "a").symlink_to("outside")
    create_complete("a", b"new", at, 0o600, None, exclusive=False, sync=True)
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "outside").read_bytes() == b"outside"
    assert sorted(os.listdir(tmp_path)) == ["a", "outside"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, at: int) -> None:
    (tmp_path / "a").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="directory"):
        create_complete("a", b"x", at, 0o600, None, exclusive=False, sync=False)
    assert os.listdir(tmp_path) == ["a"]
    assert len(os.listdir("/proc/self/fd")) == before
