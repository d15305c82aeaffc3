"""Stores to measure with, made quickly.

Where only names matter, one file has many of them: listings and numbers cost the same, and a million
steps are made in seconds. ext4 allows 65,000 names a file, so some files share the work.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from tests.support.stores import META, StoreOnDisk, compaction, entry

NAMES_A_FILE: Final = 60_000
TEXT: Final = "The quick brown fox jumps over the lazy dog; then it writes tests. "
LINE: Final = entry(TEXT * 3)
"""An entry of usual length."""


def entry_of(size: int) -> bytes:
    """An entry whose line in a view, newline included, has `size` bytes."""
    bare = len(entry("")) + 1
    return entry((TEXT * (size // len(TEXT) + 1))[: size - bare])


def session(store: StoreOnDisk, slug: str) -> Path:
    """An empty session."""
    return store.session(slug).path


def files(directory: Path, first: int, count: int, data: bytes) -> None:
    """Steps that are files of their own."""
    for number in range(first, first + count):
        (directory / f"step-{number:06}").write_bytes(data)


def names(directory: Path, first: int, count: int, data: bytes) -> None:
    """Steps that share files: real ones to list, and to read."""
    directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    source = ""
    try:
        for at in range(count):
            name = f"step-{first + at:06}"
            if at % NAMES_A_FILE == 0:
                source = name
                (directory / name).write_bytes(data)
            else:
                os.link(source, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    finally:
        os.close(directory_fd)


def compacted(store: StoreOnDisk, slug: str, steps: int, after: int = 100) -> Path:
    """A session of `steps` steps, of which the last `after` follow a compaction."""
    directory = session(store, slug)
    before = steps - after - 1
    if before > 0:
        names(directory, 1, before, LINE)
        files(directory, before + 1, 1, compaction("archive"))
    files(directory, before + 2, steps - before - 1, LINE)
    return directory


def many_sessions(place: Path, count: int) -> StoreOnDisk:
    """A store of sessions that hold their meta only, made once for all that is measured with it."""
    path = place.parent / f"{count}-sessions"
    if not path.exists():
        _make_sessions(StoreOnDisk(path), count)
    return StoreOnDisk(path)


def _make_sessions(store: StoreOnDisk, count: int) -> None:
    meta = json.dumps(META, separators=(",", ":")).encode()
    root = os.open(store.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(1, count + 1):
            slug = f"crab_tg-{number % 100}_{number}"
            os.mkdir(slug, dir_fd=root)
            fd = os.open(f"{slug}/meta", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=root)
            os.write(fd, meta)
            os.close(fd)
    finally:
        os.close(root)
