"""A pyfuse3 server that does nothing: one file of constant bytes, everything cached.

`python -m tests.bench.floor MOUNTPOINT SIZE` serves `MOUNTPOINT/file` until it is unmounted.
"""

from __future__ import annotations

import errno
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyfuse3
import trio
from pyfuse3 import ROOT_INODE, EntryAttributes, FileInfo, FUSEError, InodeT, RequestContext

from tests.support.commands import PROJECT, environment, until

FILE_INODE = 2


class Floor(pyfuse3.Operations):
    """The least that serves a file from the kernel's page cache."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, size: int) -> None:
        super().__init__()
        self._text = b"x" * size

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        if name != b"file":
            raise FUSEError(errno.ENOENT)
        return await self.getattr(FILE_INODE, ctx)

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = InodeT(inode)
        root = inode == ROOT_INODE
        entry.st_mode = stat.S_IFDIR | 0o755 if root else stat.S_IFREG | 0o444
        entry.st_size = 0 if root else len(self._text)
        entry.entry_timeout = entry.attr_timeout = 3600
        return entry

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        return FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return self._text[off : off + size]

    async def release(self, fh: int) -> None:
        pass


def serve(mountpoint: str, size: int) -> None:
    """Serve until unmounted."""
    pyfuse3.init(Floor(size), mountpoint, {"default_permissions", "fsname=floor", "subtype=stepfs"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


@contextmanager
def floor(directory: Path, size: int) -> Iterator[Path]:
    """The path of a file of `size` bytes that such a server serves."""
    mountpoint = directory / "floor"
    mountpoint.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.bench.floor", str(mountpoint), str(size)]
    with subprocess.Popen(command, cwd=PROJECT, env=environment()) as server:
        try:
            until((mountpoint / "file").exists)
            yield mountpoint / "file"
        finally:
            subprocess.run(["fusermount3", "-uz", str(mountpoint)], check=True)
            server.wait(30)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
