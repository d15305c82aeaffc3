"""The file system: what every operation does, in the words of the kernel.

It knows no kernel but `fusefs.kernel.Kernel`, so that all of it is used without a mount as well.

Concurrency. The file system and everything it holds belong to the loop. A task owns all state between
two awaits; a method that awaits says so by being async, and looks again afterwards at whatever may have
changed. What runs in threads is said by `fusefs.work`. The event queue is drained at the start of every
operation that must be exact, and by a task of its own when nobody asks.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NoReturn

from fusefs.failures import KERNEL, Caller
from fusefs.handles.table import HandleTable
from fusefs.inodes.attributes import Attributes
from fusefs.inodes.inode import ROOT_INO, Directory, Inode, refused
from fusefs.inodes.readdir import Entry, OpenDirectory
from fusefs.kernel import PollWaiter
from fusefs.superblock import Superblock
from storage.errors import StoreError

log: Final = logging.getLogger(__name__)
_ORDINARY: Final = frozenset({errno.ESTALE, errno.ENOENT, errno.EISDIR})
"""Answers to an open that are no failures."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file: its handle, and whether the kernel's page cache serves it."""

    handle: int
    cached: bool


class FileSystem:
    """The operations on one mounted store."""

    def __init__(self, superblock: Superblock) -> None:
        self.superblock = superblock
        self._table = superblock.table
        self._events = superblock.events
        self._failures = superblock.failures
        self._files = superblock.files
        self._directories: HandleTable[OpenDirectory] = HandleTable("directory")
        self._space = os.fstatvfs(superblock.store.fd)
        """The last answer of `statfs`."""

    # --- names ---------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: str) -> Attributes:
        """The attributes of a name, which the kernel now holds once more. Raises ENOENT, …"""
        self._catch_up()
        inode = await self._directory(parent).lookup(name)
        attributes = await self._counted(inode)
        successor = inode.successor
        if successor is not inode:  # it was superseded while it was brought up to date
            self._table.forget(inode, 1)
            return await self._counted(successor)
        return attributes

    async def _counted(self, inode: Inode) -> Attributes:
        """The attributes of an inode, and one more lookup of it, counted before anything awaits:
        those that the kernel does not know go when they are superseded."""
        inode.lookups += 1
        try:
            return await self._attributes(inode, exact=False)
        except BaseException:
            self._table.forget(inode, 1)
            raise

    async def _attributes(self, inode: Inode, exact: bool) -> Attributes:
        try:
            return await inode.attributes(exact)
        except StoreError as error:
            if error.errno not in (errno.ESTALE, errno.ENOENT):
                self._failures.record(*inode.place, "stat", error, KERNEL)
            raise

    async def getattr(self, ino: int) -> Attributes:
        """The attributes of an inode, exact (G3)."""
        self._catch_up()
        return await self._attributes(self._inode(ino), exact=True)

    def forget(self, ino: int, lookups: int) -> None:
        """The kernel drops so many references."""
        inode = self._table.get(ino)
        if inode is not None:
            self._table.forget(inode, lookups)

    async def readlink(self, ino: int) -> str:
        """The target of a symlink."""
        return self._inode(ino).readlink()

    async def mkdir(self, parent: int, name: str, caller: Caller) -> Attributes:
        """Make the session of that name (G11)."""
        with self._noted(parent, name, "mkdir", caller):
            self._catch_up()
            await self._directory(parent).mkdir(name, caller)
        return await self.lookup(parent, name)

    async def rmdir(self, parent: int, name: str, caller: Caller) -> None:
        """Delete a session, though files are in it (G11)."""
        with self._noted(parent, name, "rmdir", caller):
            self._catch_up()
            await self._directory(parent).rmdir(name, caller)

    async def refuse(self, parent: int, name: str, operation: str, caller: Caller) -> NoReturn:
        """No name is made, moved or removed but by mkdir and rmdir: EPERM, and why (G11).

        In a session that was deleted underneath it is ENOENT, as for any other name (G20).
        """
        refusal = await self._directory(parent).refusal(operation)
        with self._noted(parent, name, operation, caller):
            raise refusal

    # --- directories ---------------------------------------------------------------------------

    async def opendir(self, ino: int, caller: Caller) -> int:
        """Open a directory. Private files are listed for the mounting user only, so that everybody
        else's `grep -r` meets no error (G4)."""
        self._catch_up()
        directory = self._directory(ino)
        # The kernel may still have the name of a session that was replaced. Only here does ESTALE have
        # it look again: a listing that has begun would fail.
        await self._attributes(directory, exact=False)
        private = caller.uid in (0, self.superblock.rules.private().uid)
        return self._directories.add(OpenDirectory(directory, private))

    async def prepare(self, handle: int, start: int) -> None:
        """Make ready to go through a directory; from the start it is listed anew."""
        opened = self._directories.get(handle)
        if opened.begins(start):
            self._catch_up()
            await opened.list()

    def entries(self, handle: int, start: int) -> Iterator[Entry]:
        """As `OpenDirectory.entries`."""
        return self._directories.get(handle).entries(start)

    def releasedir(self, handle: int) -> None:
        """A directory is closed."""
        self._directories.pop(handle)

    # --- open files ----------------------------------------------------------------------------

    async def open(self, ino: int, flags: int, caller: Caller) -> Opened:
        """Open a file; it shows every step that is in the store now (G12)."""
        self._catch_up()
        inode = self._inode(ino)
        try:
            opened = await inode.open(flags, caller)
        except StoreError as error:
            if error.errno not in _ORDINARY:
                self._failures.record(*inode.place, "open", error, caller)
            raise
        opened.caller = caller
        return Opened(self._files.add(opened, inode), opened.cached)

    async def read(self, handle: int, offset: int, size: int) -> bytes | memoryview:
        """Bytes of an open file."""
        opened = self._files.get(handle)
        try:
            return await opened.read(offset, size)
        except StoreError as error:
            self._files.failed(opened, "read", error)
            raise

    async def write(self, handle: int, data: bytes) -> int:
        """Give bytes to an open file; how many were taken (G5, G6)."""
        opened = self._files.get(handle)
        self._events.drain()
        try:
            return await opened.write(data)
        except StoreError as error:
            self._files.failed(opened, "write", error)
            raise
        finally:
            self.superblock.publisher.wrote(opened.session)

    async def flush(self, handle: int) -> None:
        """A descriptor of an open file is closed (G7)."""
        opened = self._files.get(handle)
        if opened.cached:
            return  # nothing was written, and nobody is to be told anything
        self._events.drain()
        try:
            await opened.flush()
        except StoreError as error:
            if error.errno == errno.EINVAL:
                opened.caller = opened.caller.remembered()  # told at release, if it stays so
            else:
                self._files.failed(opened, "close", error)
            raise
        finally:
            self.superblock.publisher.wrote(opened.session)

    async def fsync(self, handle: int) -> None:
        """Make durable what was written through an open file (G17)."""
        opened = self._files.get(handle)
        try:
            await opened.sync()
        except StoreError as error:
            self._files.failed(opened, "fsync", error)
            raise

    async def release(self, handle: int) -> None:
        """The last descriptor of an open file is gone."""
        await self._files.release(handle)

    async def poll(self, handle: int, waiter: PollWaiter | None) -> int:
        """The answer to poll(2) (G14)."""
        return await self._files.get(handle).poll(waiter)

    async def setattr(self, ino: int, caller: Caller) -> Attributes:
        """Sizes, times and modes of control files mean nothing, and changing them does no harm."""
        inode = self._inode(ino)
        if not inode.may_be_set:
            error = refused("attributes here are those of the store, and cannot be set")
            self._failures.record(*inode.place, "setattr", error, caller)
            raise error
        return await self.getattr(ino)

    async def statfs(self) -> os.statvfs_result:
        """The space that the store has; as it was lately, where the store does not answer.

        Raises `StoreError`, `OSError`.
        """
        work, store = self.superblock.work, self.superblock.store
        with work.patience():
            self._space = await work.small(None, os.fstatvfs, store.fd)
        return self._space

    # --- what is behind them ---------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Know what has happened in the store so far; nothing waits."""
        self._events.drain()
        self.superblock.directory.look()

    def _inode(self, ino: int) -> Inode:
        inode = self._table.get(ino)
        if inode is None:
            raise StoreError(errno.ESTALE, "unknown-inode", "the file is no longer known")
        return inode

    def _directory(self, ino: int) -> Directory:
        inode = self._inode(ino)
        if not isinstance(inode, Directory):
            raise StoreError(errno.ENOTDIR, "no-directory", "it is not a directory")
        return inode

    @contextmanager
    def _noted(self, parent: int, name: str, operation: str, caller: Caller) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            if parent == ROOT_INO and operation in ("mkdir", "rmdir", "rename"):
                self._failures.record(name, None, operation, error, caller)
            else:
                session, _ = self._inode(parent).place
                self._failures.record(session, name, operation, error, caller)
            raise
