"""A model of the kernel: its caches of names and attributes, and the calls of programs.

It looks names up, caches them and their attributes until they time out or are invalidated, reads no
further than the size it knows, retries a lookup after ESTALE, and finally forgets everything.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from fusefs.failures import Caller
from fusefs.filesystem import FileSystem
from fusefs.inodes.attributes import Attributes
from fusefs.inodes.inode import ROOT_INO
from storage.errors import StoreError

T = TypeVar("T")


@dataclass(frozen=True)
class Stat:
    """The attributes that both drivers report."""

    ino: int
    mode: int
    size: int
    mtime_ns: int


class Caches:
    """The kernel's caches of names and attributes, as far as programs can observe them."""

    def __init__(self) -> None:
        self.names: dict[tuple[int, str], tuple[int, float]] = {}
        self.opened: dict[int, bool] = {}
        """Whether each open file is read through the page cache."""
        self.sizes: dict[int, int] = {}
        """The last known size of each inode."""
        self.changes: Counter[int] = Counter()
        """Counts attribute changes, so that a reply that was under way during one is not cached."""
        self._attributes: dict[int, tuple[Attributes, float]] = {}
        self._modes: dict[int, int] = {}
        self._lookups: dict[int, int] = {}

    def attributes_changed(self, ino: int) -> None:
        self.changes[ino] += 1
        self._attributes.pop(ino, None)

    async def grown(self, ino: int, size: int) -> None:
        await trio.lowlevel.checkpoint()
        if ino in self.sizes:
            self.attributes_changed(ino)
            self.sizes[ino] = max(self.sizes[ino], size)

    def entry_changed(self, parent: int, name: str) -> None:
        self.names.pop((parent, name), None)

    def name(self, parent: int, name: str) -> int | None:
        """The inode of a name, if its entry is still valid."""
        ino, until = self.names.get((parent, name), (0, 0.0))
        return ino if time.monotonic() < until else None

    def looked_up(self, parent: int, name: str, found: Attributes) -> int:
        """Take the reply to a lookup."""
        self.names[parent, name] = found.ino, time.monotonic() + found.entry_timeout
        self.held(found.ino)
        self.told(found)
        return found.ino

    def held(self, ino: int) -> None:
        """Add one to the lookup count of an inode."""
        self._lookups[ino] = self._lookups.get(ino, 0) + 1

    def told(self, found: Attributes) -> None:
        """Cache attributes. A view must never shrink: SIGBUS would kill a program that mapped it."""
        if found.mode & 0o222 == 0 and stat.S_ISREG(found.mode):
            assert found.size >= self.sizes.get(found.ino, 0), "an inode shrank"
        self.sizes[found.ino] = found.size
        self._modes[found.ino] = found.mode
        self._attributes[found.ino] = found, time.monotonic() + found.attr_timeout

    def attributes_of(self, ino: int) -> Attributes | None:
        """The attributes of an inode, if still valid."""
        found, until = self._attributes.get(ino, (None, 0.0))
        return found if time.monotonic() < until else None

    def is_directory(self, ino: int) -> bool:
        return stat.S_ISDIR(self._modes.get(ino, stat.S_IFDIR))

    def forget_all(self) -> list[tuple[int, int]]:
        """Forget everything; return the lookup counts."""
        lookups, self._lookups = self._lookups, {}
        self.names.clear()
        self._attributes.clear()
        self.sizes.clear()
        return list(lookups.items())


class ModelKernel:
    """The system calls of programs on a file system, in its loop. Failures are `StoreError`."""

    def __init__(self, filesystem: FileSystem, caches: Caches) -> None:
        """`caches` must be the object that the file system notifies of changes."""
        self.filesystem = filesystem
        self.kernel = caches
        self._threads: dict[trio.lowlevel.Task, int] = {}
        self.inodes: dict[int, int] = {}
        """The inode of each open file."""

    @property
    def caller(self) -> Caller:
        """The calling program: each task is a thread of its own, told apart by its number."""
        task = trio.lowlevel.current_task()
        number = self._threads.setdefault(task, os.getpid() + len(self._threads))
        return Caller(number, os.getuid(), os.getgid())

    async def write(self, handle: int, data: bytes) -> int:
        return await self.filesystem.write(handle, data)

    async def flush(self, handle: int) -> None:
        await self.filesystem.flush(handle)

    async def close(self, handle: int) -> None:
        del self.inodes[handle]
        try:
            await self.filesystem.flush(handle)
        finally:
            await self.filesystem.release(handle)

    async def fstat(self, handle: int) -> Stat:
        return await self.attributes(self.inodes[handle])

    async def _again_if_stale(self, path: str, do: Callable[[int], Awaitable[T]]) -> T:
        try:
            return await do(await self._walk(path))
        except StoreError as error:
            if error.errno != errno.ESTALE:
                raise
        self.kernel.names.clear()
        return await do(await self._walk(path))

    async def _walk(self, path: str) -> int:
        ino = ROOT_INO
        for name in filter(None, path.split("/")):
            ino = self.kernel.name(ino, name) or self.kernel.looked_up(
                ino, name, await self.filesystem.lookup(ino, name)
            )
        return ino

    async def attributes(self, ino: int) -> Stat:
        known = self.kernel.attributes_of(ino)
        if known is None:
            changes = self.kernel.changes[ino]
            known = await self.filesystem.getattr(ino)
            if changes == self.kernel.changes[ino]:
                self.kernel.told(known)
        return Stat(known.ino, known.mode, known.size, known.mtime_ns)

    async def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        async def do(ino: int) -> tuple[int, int]:
            if self.kernel.is_directory(ino):
                raise StoreError(errno.EISDIR, "a-directory", "it is a directory")
            opened = await self.filesystem.open(ino, flags, self.caller)
            self.kernel.opened[opened.handle] = opened.cached
            return opened.handle, ino

        handle, ino = await self._again_if_stale(path, do)
        self.inodes[handle] = ino
        return handle

    async def read(self, handle: int, offset: int = 0, size: int = 1 << 24) -> bytes:
        if self.kernel.opened[handle]:
            ino = self.inodes[handle]
            await self.attributes(ino)
            size = min(size, self.kernel.sizes.get(ino, 0) - offset)
        return bytes(await self.filesystem.read(handle, offset, size)) if size > 0 else b""

    async def stat(self, path: str) -> Stat:
        return await self._again_if_stale(path, self.attributes)

    async def listdir(self, path: str) -> list[str]:
        handle = await self.filesystem.opendir(await self._walk(path), self.caller)
        try:
            await self.filesystem.prepare(handle, 0)
            names = []
            for entry in self.filesystem.entries(handle, 0):
                if not entry.is_dot:
                    entry.inode.lookups += 1
                    self.kernel.held(entry.inode.ino)
                    names.append(entry.name)
            return names
        finally:
            self.filesystem.releasedir(handle)

    async def mkdir(self, path: str) -> None:
        parent, name = await self._parent(path)
        self.kernel.looked_up(parent, name, await self.filesystem.mkdir(parent, name, self.caller))

    async def rmdir(self, path: str) -> None:
        parent, name = await self._parent(path)
        await self.filesystem.rmdir(parent, name, self.caller)
        self.kernel.entry_changed(parent, name)

    async def truncate(self, path: str) -> None:
        self.kernel.told(await self.filesystem.setattr(await self._walk(path), self.caller))

    async def _parent(self, path: str) -> tuple[int, str]:
        directory, _, name = path.rpartition("/")
        return await self._walk(directory), name

    async def forget_everything(self) -> None:
        for ino, lookups in self.kernel.forget_all():
            self.filesystem.forget(ino, lookups)
        assert self.filesystem.superblock.table.lookups == 0
        self.filesystem.superblock.pool.let_go()
