"""What the tests of coherence compare: inodes, open files, all views of a session at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.model import VIEWS, shown
from tests.support.stores import SessionOnDisk, entry


def line(text: str) -> bytes:
    return entry(text) + b"\n"


def inode(path: Path) -> int:
    return path.stat().st_ino


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def whole(fd: int) -> bytes:
    """The whole contents of an open file."""
    return os.pread(fd, os.fstat(fd).st_size + 4096, 0)


def processor_ticks(pid: int) -> int:
    """The CPU time that a process has used, in clock ticks."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[11]) + int(words[12])


def listed(mountpoint: Path) -> list[str]:
    """The sessions in a listing of the mount."""
    return sorted(name for name in os.listdir(mountpoint) if name != ".stepfs")


def all_shown(at: Path, session: SessionOnDisk) -> None:
    """Assert that every view shows exactly what is in the store."""
    steps = session.steps()
    for view in VIEWS:
        assert (at / view).read_bytes() == shown(steps, view), view
