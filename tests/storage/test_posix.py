"""System calls relative to a directory descriptor: no symlink is followed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import posix as files
from storage.errors import StoreError


@pytest.fixture
def at(tmp_path: Path) -> Iterator[int]:
    descriptor = files.open_directory(str(tmp_path))
    yield descriptor
    os.close(descriptor)


def test_a_directory_below_another_is_opened_only_if_it_is_one(tmp_path: Path, at: int) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").write_bytes(b"")
    os.close(files.open_directory("real", at))
    os.close(files.open_directory(str(tmp_path / "link")))
    for name in ("link", "file"):
        with pytest.raises(OSError) as caught:
            files.open_directory(name, at)
        assert caught.value.errno in (errno.ENOTDIR, errno.ELOOP)


LIMIT = 4 << 20


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_file_is_read_whole(tmp_path: Path, at: int, size: int) -> None:
    (tmp_path / "file").write_bytes(os.urandom(size))
    content, status = files.read_regular("file", at, LIMIT)
    assert content == (tmp_path / "file").read_bytes()
    assert status.st_ino == (tmp_path / "file").stat().st_ino


def test_a_file_that_reports_no_size_is_read_whole() -> None:
    process = files.open_directory("/proc/self")
    content, status = files.read_regular("status", process, LIMIT)
    os.close(process)
    assert status.st_size == 0
    assert content.startswith(b"Name:")


def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path, at: int) -> None:
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 1 << 40)
    with pytest.raises(StoreError) as refused:
        files.read_regular("file", at, LIMIT)
    assert refused.value.code == "file-too-long"


def test_only_a_regular_file_is_read(tmp_path: Path, at: int) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name in ("directory", "fifo"):
        with pytest.raises(StoreError):
            files.read_regular(name, at, LIMIT)
    with pytest.raises(OSError) as caught:
        files.read_regular("link", at, LIMIT)
    assert caught.value.errno == errno.ELOOP
    kinds = {name: files.is_regular(name, at) for name in (*os.listdir(tmp_path), "absent")}
    assert [name for name, regular in kinds.items() if regular] == ["file"]


def test_exchange_swaps_two_names(tmp_path: Path, at: int) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    files.exchange("a", "b", at)
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"b", b"a")
    with pytest.raises(FileNotFoundError):
        files.exchange("a", "absent", at)


def test_rename_new_takes_only_a_free_name(tmp_path: Path, at: int) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").mkdir()
    with pytest.raises(FileExistsError):
        files.rename_new("a", "b", at)
    files.rename_new("a", "c", at)
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_an_error_of_the_write() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError) as caught:
        files.write_all(descriptor, b"x")
    os.close(descriptor)
    assert caught.value.errno == errno.ENOSPC


def test_listing_twice_lists_the_same(tmp_path: Path, at: int) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert files.listing(at) == files.listing(at) == ["a"]


@pytest.mark.guarantee("G25c")
@pytest.mark.parametrize("kept", [True, False])
def test_a_name_that_should_exist_is_looked_up_afresh_before_it_counts_as_gone(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """As on Gluster while another host renames over the name."""
    (tmp_path / "meta").write_bytes(b"{}")
    look, misses = os.stat, [True]

    def stat(name: str, **how: Any) -> os.stat_result:
        if name == "meta" and misses:
            misses.pop()
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return look(name, **how)

    monkeypatch.setattr(os, "stat", stat)
    assert files.exists("meta", at, kept=kept) is kept
    assert not files.exists("other", at, kept=True)
