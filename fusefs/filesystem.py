"""The file system: what every operation does, in the terms of the kernel.

It knows the kernel only as `fusefs.kernel.Kernel`, so all of it can be used without a mount as well.

Concurrency. The file system and everything it holds belong to the loop. A task owns all state between
two awaits; a method that awaits is async, and afterwards checks again whatever may have changed.
`fusefs.work` decides what runs in threads. The event queue is drained at the start of every operation
that must be exact, and by a background task otherwise.
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
"""Errors of an open that are not recorded as failures."""


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
        """The last known result of `statfs`."""

    # --- names ---------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: str) -> Attributes:
        """The attributes of a name, whose inode gains a lookup count. Raises `StoreError`: ENOENT, …"""
        self._catch_up()
        inode = await self._directory(parent).lookup(name)
        attributes = await self._counted(inode)
        successor = inode.successor
        if successor is not inode:  # superseded while its attributes were brought up to date
            self._table.forget(inode, 1)
            return await self._counted(successor)
        return attributes

    async def _counted(self, inode: Inode) -> Attributes:
        """The attributes of an inode, whose lookup count is raised before anything awaits: an inode
        that the kernel does not know is dropped when it is superseded."""
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
        """The kernel drops `lookups` of its references to an inode."""
        inode = self._table.get(ino)
        if inode is not None:
            self._table.forget(inode, lookups)

    async def readlink(self, ino: int) -> str:
        """The target of a symlink."""
        return self._inode(ino).readlink()

    async def mkdir(self, parent: int, name: str, caller: Caller) -> Attributes:
        """Create a session (G11). Raises `StoreError`."""
        with self._noted(parent, name, "mkdir", caller):
            self._catch_up()
            await self._directory(parent).mkdir(name, caller)
        return await self.lookup(parent, name)

    async def rmdir(self, parent: int, name: str, caller: Caller) -> None:
        """Delete a session, although its directory is not empty (G11). Raises `StoreError`."""
        with self._noted(parent, name, "rmdir", caller):
            self._catch_up()
            await self._directory(parent).rmdir(name, caller)

    async def refuse(self, parent: int, name: str, operation: str, caller: Caller) -> NoReturn:
        """Refuse any other operation that makes, moves or removes a name: EPERM, and why (G11).

        In a session that was deleted in the store it is ENOENT, as for any other name (G20).
        """
        refusal = await self._directory(parent).refusal(operation)
        with self._noted(parent, name, operation, caller):
            raise refusal

    # --- directories ---------------------------------------------------------------------------

    async def opendir(self, ino: int, caller: Caller) -> int:
        """Open a directory. Private files are listed only for root and the owner of the mount, so that
        a `grep -r` by anybody else meets no error (G4)."""
        self._catch_up()
        directory = self._directory(ino)
        # The kernel may still cache the name of a session that was replaced. Only an ESTALE from here
        # makes it look the name up again; from readdir it would fail the listing.
        await self._attributes(directory, exact=False)
        private = caller.uid in (0, self.superblock.rules.private().uid)
        return self._directories.add(OpenDirectory(directory, private))

    async def prepare(self, handle: int, start: int) -> None:
        """Prepare for `entries`; from the start of a directory, list it anew."""
        opened = self._directories.get(handle)
        if opened.begins(start):
            self._catch_up()
            await opened.list()

    def entries(self, handle: int, start: int) -> Iterator[Entry]:
        """As `OpenDirectory.entries`."""
        return self._directories.get(handle).entries(start)

    def releasedir(self, handle: int) -> None:
        """Close a directory."""
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
        """Read up to `size` bytes of an open file at `offset`."""
        opened = self._files.get(handle)
        try:
            return await opened.read(offset, size)
        except StoreError as error:
            self._files.failed(opened, "read", error)
            raise

    async def write(self, handle: int, data: bytes) -> int:
        """Write to an open file; returns how many bytes were taken (G5, G6)."""
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
            return  # a file that only reads: nothing to write or publish
        self._events.drain()
        try:
            await opened.flush()
        except StoreError as error:
            if error.errno == errno.EINVAL:
                opened.caller = (
                    opened.caller.remembered()
                )  # recorded at release, if it stays invalid
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
        """The last descriptor of an open file was closed."""
        await self._files.release(handle)

    async def poll(self, handle: int, waiter: PollWaiter | None) -> int:
        """The answer to poll(2) (G14)."""
        return await self._files.get(handle).poll(waiter)

    async def setattr(self, ino: int, caller: Caller) -> Attributes:
        """Accept and ignore changes of control files' attributes (O_TRUNC, touch); refuse all others."""
        inode = self._inode(ino)
        if not inode.may_be_set:
            error = refused("attributes here are those of the store, and cannot be set")
            self._failures.record(*inode.place, "setattr", error, caller)
            raise error
        return await self.getattr(ino)

    async def statfs(self) -> os.statvfs_result:
        """The space of the store; the last known result if a far store does not answer soon.

        Raises `StoreError`, `OSError`.
        """
        work, store = self.superblock.work, self.superblock.store
        with work.patience():
            self._space = await work.small(None, os.fstatvfs, store.fd)
        return self._space

    # --- helpers ---------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Take in what has happened in the store so far, without waiting."""
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
