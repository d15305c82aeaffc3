"""A store as seen from another host: the same files, on a file system without change events."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NO_BINDFS = pytest.mark.skipif(shutil.which("bindfs") is None, reason="needs bindfs")


def needs_inodes(host: str) -> None:
    """Skip a test of a directory that was made again where it is "far": on `bound`."""
    if host == "far":
        pytest.skip("bindfs goes by paths, and the new directory may have the old one's number")


@contextmanager
def bound(source: Path, at: Path) -> Iterator[Path]:
    """Bind `source` to a FUSE file system on which inotify does not see what is done to `source`.

    Without hard_remove, a rename there over a file that somebody has open becomes two renames; with it,
    an open file whose last name is gone cannot be synced.
    """
    at.mkdir()
    options = "attr_timeout=0,entry_timeout=0,negative_timeout=0,hard_remove"
    subprocess.run(
        ["bindfs", "-o", options, source, at],
        check=True,
        timeout=10,
    )
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True, timeout=10)
        at.rmdir()
