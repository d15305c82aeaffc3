"""A store as another host sees it: the same files, on a file system where no events tell of changes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NO_BINDFS = pytest.mark.skipif(shutil.which("bindfs") is None, reason="needs bindfs")


@contextmanager
def bound(source: Path, at: Path) -> Iterator[Path]:
    """`source` once more, on a FUSE file system, where inotify sees nothing of what is done to it.

    Without hard_remove a rename there over a file that somebody has open is two renames; with it
    a file that has no name any more cannot be synced.
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
