"""The smallest useful pyfuse3 file system: a directory tree, copied into memory and served.

stepfs is measured against it (the *floor*: a server that does nothing but serve the same bytes). It is
also the shortest introduction to FUSE in Python, for it does everything that any such file system has
to do:

- every name that `lookup` or `readdir` returns has an inode with a number, which stays valid until the
  kernel forgets it (here: for ever, since nothing is ever removed);
- `readdir` is paged: the kernel comes back with the `next_id` of the last entry that it took, and an
  entry that was not taken must not be counted as a lookup;
- attributes say how long the kernel may cache them (`attr_timeout`) and the name (`entry_timeout`), in
  seconds; pyfuse3's own default is 300;
- `open` says whether the page cache is kept (`keep_cache`); if not, every open reads anew;
- errors are raised as `FUSEError(errno)`: any other exception ends the mount.

`python -m tests.bench.floor SOURCE MOUNTPOINT [--ask]` serves the tree at SOURCE until it is
unmounted. With `--ask` a listing carries no attributes of files, so that the kernel has to ask for
those of each file, once. Writes to files succeed, and the data is dropped.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FUSEError,
    InodeT,
    ReaddirToken,
    RequestContext,
)

from tests.support.commands import PROJECT, environment, until

KEPT_SECONDS = 3600.0


@dataclass(slots=True)
class Inode:
    """A directory with its names, or a file with its bytes."""

    number: int
    text: bytes | None = None
    names: dict[bytes, Inode] = field(default_factory=dict)


class Floor(pyfuse3.Operations):
    """Serves a tree of files that never change."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, source: Path, ask: bool) -> None:
        super().__init__()
        self._ask = ask
        self._inodes: list[Inode] = [Inode(0)]  # FUSE's inode numbers start at 1
        self._load(source)

    def _load(self, path: Path) -> Inode:
        inode = Inode(len(self._inodes))
        self._inodes.append(inode)
        if path.is_dir():
            inode.names = {os.fsencode(name.name): self._load(name) for name in path.iterdir()}
        else:
            inode.text = path.read_bytes()
        return inode

    def _attributes(self, inode: Inode) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = InodeT(inode.number)
        is_file = inode.text is not None
        entry.st_mode = stat.S_IFREG | 0o644 if is_file else stat.S_IFDIR | 0o755
        entry.st_size = len(inode.text or b"")
        entry.st_blocks = -(-entry.st_size // 512)
        entry.entry_timeout = KEPT_SECONDS
        entry.attr_timeout = KEPT_SECONDS
        return entry

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        inode = self._inodes[parent_inode].names.get(name)
        if inode is None:
            raise FUSEError(errno.ENOENT)
        return self._attributes(inode)

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return self._attributes(self._inodes[inode])

    async def opendir(self, inode: int, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(inode)

    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        listed = list(self._inodes[fh].names.items())
        for at in range(start_id, len(listed)):
            name, inode = listed[at]
            attributes = self._attributes(inode)
            if self._ask and inode.text is not None:
                attributes.attr_timeout = 0
            if not pyfuse3.readdir_reply(token, name, attributes, at + 1):
                return

    async def releasedir(self, fh: int) -> None:
        pass

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        return FileInfo(fh=FileHandleT(inode), keep_cache=not writes, direct_io=writes)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return (self._inodes[fh].text or b"")[off : off + size]

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return len(buf)

    async def flush(self, fh: int) -> None:
        pass

    async def release(self, fh: int) -> None:
        pass


def serve(source: str, mountpoint: str, ask: bool) -> None:
    """Serve until unmounted."""
    operations = Floor(Path(source), ask)
    pyfuse3.init(operations, mountpoint, {"default_permissions", "fsname=floor", "subtype=stepfs"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


@contextmanager
def floor(source: Path, mountpoint: Path, ask: bool = False) -> Iterator[Path]:
    """Serve a copy of `source` from another process, until the context ends."""
    mountpoint.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.bench.floor", str(source), str(mountpoint)]
    command += ["--ask"] if ask else []
    with subprocess.Popen(command, cwd=PROJECT, env=environment()) as server:
        try:
            until(lambda: os.path.ismount(mountpoint))
            yield mountpoint
        finally:
            subprocess.run(["fusermount3", "-uz", str(mountpoint)], check=True)
            server.wait(30)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], "--ask" in sys.argv[3:])
