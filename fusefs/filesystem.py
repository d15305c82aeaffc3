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
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NoReturn

import trio

from fusefs.catalogue.catalogue import Catalogue
from fusefs.coherence.events import EventQueue
from fusefs.coherence.hints import Hints
from fusefs.coherence.publisher import Publisher
from fusefs.coherence.recovery import Recovery
from fusefs.coherence.store_directory import StoreDirectory
from fusefs.config import MountOptions, Sync
from fusefs.dotdir.directories import DOT_DIRECTORY, DotDirectory
from fusefs.dotdir.status import Status
from fusefs.failures import KERNEL, Caller, Failures
from fusefs.handles.base import OpenFile
from fusefs.handles.control import Stores
from fusefs.handles.pending import PendingBudget
from fusefs.inodes.attributes import Attributes, Rules
from fusefs.inodes.inode import ROOT_INO, Directory, Inode, refused
from fusefs.inodes.recent_past import RecentPast
from fusefs.inodes.root import Root
from fusefs.inodes.services import Services
from fusefs.inodes.session_directory import SessionDirectory
from fusefs.inodes.table import Table
from fusefs.kernel import Kernel, PollWaiter
from fusefs.operations import Operations
from fusefs.session.means import Means
from fusefs.session.meta_counter import MetaCounter
from fusefs.session.pool import Pool
from fusefs.session.removals import Removals
from fusefs.session.restorer import Restorer
from fusefs.session.step_texts import StepTexts
from fusefs.session.writer import Writer
from fusefs.views.text_cache import TextCache
from fusefs.work import Work
from storage.archives import Memory
from storage.capabilities import probe
from storage.documents.pool import Documents
from storage.errors import StoreError, printable
from storage.store import Store

SILENCE_SECONDS: Final = 0.6
"""After so long without an answer an ending mount gives a far store up."""
LEAST_SILENCE_SECONDS: Final = 0.4
"""So much of it may have passed before the end began."""

log: Final = logging.getLogger(__name__)
_ORDINARY: Final = frozenset({errno.ESTALE, errno.ENOENT, errno.EISDIR})
"""Answers to an open that are no failures."""
_DOTS: Final = (".", "..")


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file: its handle, and whether the kernel's page cache serves it."""

    handle: int
    cached: bool


class Entry(NamedTuple):
    """One entry of a listing."""

    name: str
    inode: Inode
    is_dot: bool
    """Whether it is `.` or `..`, which the kernel does not look up."""
    attributes: Attributes | None
    """None where only the type is told."""
    next: int


@dataclass(slots=True)
class OpenDirectory:
    """An open directory: the names as of when it was last gone through from the start."""

    directory: Directory
    private: bool
    """Whether it is listed for somebody who may read the private files."""
    names: Sequence[str] | None = None


class FileSystem:
    """One mounted store."""

    def __init__(self, store: Store, options: MountOptions, kernel: Kernel) -> None:
        """Raises `StoreError` where the kernel gives no inotify queue."""
        self.store = store
        self.options = options
        self.failures = Failures()
        self.operations = Operations()
        self.table = Table()
        self.capabilities = probe(store.fd, write=not options.read_only)
        if not options.read_only:
            self.capabilities.require_writable(printable(store.path))
        self.work = Work(self.capabilities.near, options.deadline)
        hints = None if options.notify is None else Hints(options.notify)
        self.events = EventQueue(store, self.work.near, hints)
        self._archives = _memory(store, options)
        self._documents = Documents()
        self._texts = StepTexts()
        means = Means(
            self.work,
            TextCache(options.cache),
            self._archives,
            self.events,
            self._documents,
            self._texts,
        )
        self.pool = Pool(store, means)
        self._writer = Writer(means, options.sync)
        self._counter = MetaCounter(self.pool, self.work, self.failures)
        self._removals = Removals(store, self.work)
        self._catalogue = Catalogue(store, self.work)
        self._store_directory = StoreDirectory(store, self.events, self._catalogue, self.failures)
        self._rules = Rules(options, (os.geteuid(), os.getegid()))
        self._files: dict[int, tuple[OpenFile, Inode]] = {}
        self._directories: dict[int, OpenDirectory] = {}
        self._next_handle = 1
        self._space = os.fstatvfs(store.fd)
        services = self._services(means, kernel)
        root = Root(services, self._removals, self._catalogue)
        self.status = Status(
            store.path,
            options,
            means.cache,
            self.pool,
            self.events,
            self.failures,
            self.operations,
            self.capabilities,
            self.work,
            self._store_directory,
            inodes=self.table,
            open_files=self._files,
        )
        root.fixed[DOT_DIRECTORY] = DotDirectory(services, root, self._catalogue, self.status)
        self._publisher = Publisher(self.events, root, self.pool, means, kernel, self.failures)
        restorer = Restorer(means, self._writer, durable=options.sync is not Sync.NEVER)
        self._recovery = Recovery(self.events, self.pool, self._writer, restorer, self.failures)

    def _services(self, means: Means, kernel: Kernel) -> Services:
        durable = self.options.sync is not Sync.NEVER
        stores = Stores(
            self.pool,
            self.work,
            self.events,
            self._writer,
            self._counter,
            self.failures,
            self.options.line_limit,
            durable,
            self._documents,
            PendingBudget(self.options.pending),
            self._archives,
        )
        return Services(
            self.store,
            self.work,
            self.table,
            self.pool,
            means,
            stores,
            self.events,
            self._rules,
            kernel,
            self.failures,
            os.fstat(self.store.fd),
            RecentPast(kernel),
        )

    # --- life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """The work in the background: watching, publishing, counting, removing; until cancelled."""
        async with trio.open_nursery() as nursery:
            for work in (
                self._publisher.run,
                self._recovery.run,
                self._counter.run,
                self._removals.run,
                self._catalogue.arm,
            ):
                nursery.start_soon(_unending, work)

    async def finish(self) -> None:
        """Before the end: open files are released, what is due is written and synced (G9, G17).

        A far store that does not answer any more is not waited for (G27).
        """
        if self.work.near:
            await self._finish()
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._give_up_on_silence, nursery.cancel_scope)
            await self._finish()
            nursery.cancel_scope.cancel()

    async def _give_up_on_silence(self, scope: trio.CancelScope) -> None:
        while True:
            silent = min(self.work.silent_seconds, LEAST_SILENCE_SECONDS)
            with trio.move_on_after(SILENCE_SECONDS - silent) as waiting:
                await self.work.small(self, os.fstatvfs, self.store.fd)
            if waiting.cancelled_caught:
                log.warning("the store does not answer: what was due is not written")
                scope.cancel()
                return
            await trio.sleep(SILENCE_SECONDS / 4)

    async def _finish(self) -> None:
        for handle, (opened, _) in list(self._files.items()):
            try:
                await opened.flush()
            except StoreError as error:
                self._failed(opened, "flush", error)
            await self.release(handle)
        await self._recovery.finish()
        await self._counter.finish()
        for session in self.pool:
            try:
                await self._writer.sync(session)
            except StoreError as error:
                self.failures.record(session.slug, "append", "sync", error, KERNEL)

    def close(self) -> None:
        """Close all that is open; nothing waits."""
        self._documents.close()
        self.pool.close_all()
        self.events.close()
        self._catalogue.close()
        self._archives.close()
        self._texts.close()
        self.store.close()

    def reload(self) -> None:
        """Look at the whole store again, and at the daemon's memory."""
        self.events.missed()

    # --- names ---------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: str) -> Attributes:
        """The attributes of a name, which the kernel now holds once more. Raises ENOENT, …"""
        self._catch_up()
        inode = await self._directory(parent).lookup(name)
        attributes = await self._counted(inode)
        successor = inode.successor
        if successor is not inode:  # it was superseded while it was brought up to date
            self.table.forget(inode, 1)
            return await self._counted(successor)
        return attributes

    async def _counted(self, inode: Inode) -> Attributes:
        """The attributes of an inode, and one more lookup of it, counted before anything awaits:
        those that the kernel does not know go when they are superseded."""
        inode.lookups += 1
        try:
            return await self._attributes(inode, exact=False)
        except BaseException:
            self.table.forget(inode, 1)
            raise

    async def _attributes(self, inode: Inode, exact: bool) -> Attributes:
        try:
            return await inode.attributes(exact)
        except StoreError as error:
            if error.errno not in (errno.ESTALE, errno.ENOENT):
                self.failures.record(*inode.place, "stat", error, KERNEL)
            raise

    async def getattr(self, ino: int) -> Attributes:
        """The attributes of an inode, exact (G3)."""
        self._catch_up()
        return await self._attributes(self._inode(ino), exact=True)

    def forget(self, ino: int, lookups: int) -> None:
        """The kernel drops so many references."""
        inode = self.table.get(ino)
        if inode is not None:
            self.table.forget(inode, lookups)

    async def readlink(self, ino: int) -> str:
        """Where a symlink leads."""
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
        directory = self._inode(parent)
        if isinstance(directory, SessionDirectory):
            await directory.status()
        with self._noted(parent, name, operation, caller):
            if operation == "create" and isinstance(directory, SessionDirectory):
                raise StoreError(errno.EPERM, "no-new-files", _NO_COPIES)
            raise refused(_WHY_NOT[operation])

    # --- directories ---------------------------------------------------------------------------

    def opendir(self, ino: int, caller: Caller) -> int:
        """Open a directory. Private files are listed for the mounting user only, so that everybody
        else's `grep -r` meets no error (G4)."""
        private = caller.uid in (0, self._rules.private().uid)
        handle = self._new_handle()
        self._directories[handle] = OpenDirectory(self._directory(ino), private)
        return handle

    async def prepare(self, handle: int, start: int) -> None:
        """Make ready to go through a directory; from the start it is listed anew."""
        opened = self._open_directory(handle)
        if start == 0 or opened.names is None:
            self._catch_up()
            opened.names = [*_DOTS, *await opened.directory.names(opened.private)]

    def entries(self, handle: int, start: int) -> Iterator[Entry]:
        """The entries after the one whose `next` was `start` (0: all). Whoever takes one counts a
        lookup of its inode."""
        opened = self._open_directory(handle)
        names = opened.names or ()
        for at in range(start, len(names)):
            name = names[at]
            if name in _DOTS:
                yield Entry(name, opened.directory, True, None, at + 1)
            elif (inode := opened.directory.child(name)) is not None:
                yield Entry(name, inode, False, inode.listed(), at + 1)

    def releasedir(self, handle: int) -> None:
        """A directory is closed."""
        self._directories.pop(handle, None)

    # --- open files ----------------------------------------------------------------------------

    async def open(self, ino: int, flags: int, caller: Caller) -> Opened:
        """Open a file; it shows every step that is in the store now (G12)."""
        self._catch_up()
        inode = self._inode(ino)
        try:
            opened = await inode.open(flags, caller)
        except StoreError as error:
            if error.errno not in _ORDINARY:
                self.failures.record(*inode.place, "open", error, caller)
            raise
        opened.caller = caller
        handle = self._new_handle()
        self._files[handle] = opened, inode
        return Opened(handle, opened.cached)

    async def read(self, handle: int, offset: int, size: int) -> bytes | memoryview:
        """Bytes of an open file."""
        opened = self._open_file(handle)
        try:
            return await opened.read(offset, size)
        except StoreError as error:
            self._failed(opened, "read", error)
            raise

    async def write(self, handle: int, data: bytes) -> int:
        """Give bytes to an open file; how many were taken (G5, G6)."""
        opened = self._open_file(handle)
        self.events.drain()
        try:
            return await opened.write(data)
        except StoreError as error:
            self._failed(opened, "write", error)
            raise
        finally:
            self._publisher.wrote(opened.session)

    async def flush(self, handle: int) -> None:
        """A descriptor of an open file is closed (G7)."""
        opened = self._open_file(handle)
        if opened.cached:
            return  # nothing was written, and nobody is to be told anything
        self.events.drain()
        try:
            await opened.flush()
        except StoreError as error:
            if error.errno == errno.EINVAL:
                opened.caller = opened.caller.remembered()  # told at release, if it stays so
            else:
                self._failed(opened, "close", error)
            raise
        finally:
            self._publisher.wrote(opened.session)

    async def fsync(self, handle: int) -> None:
        """What was written through an open file is on disk when this returns (G17)."""
        opened = self._open_file(handle)
        try:
            await opened.sync()
        except StoreError as error:
            self._failed(opened, "fsync", error)
            raise

    async def release(self, handle: int) -> None:
        """The last descriptor of an open file is gone."""
        found = self._files.pop(handle, None)
        if found is not None:
            opened, inode = found
            await opened.release()
            self.table.reap(inode)  # the kernel may forget a file before it has closed it

    async def poll(self, handle: int, waiter: PollWaiter | None) -> int:
        """What poll(2) is told (G14)."""
        return await self._open_file(handle).poll(waiter)

    async def setattr(self, ino: int, caller: Caller) -> Attributes:
        """Sizes, times and modes of control files mean nothing, and changing them does no harm."""
        inode = self._inode(ino)
        if not inode.may_be_set:
            error = refused("attributes here are those of the store, and cannot be set")
            self.failures.record(*inode.place, "setattr", error, caller)
            raise error
        return await self.getattr(ino)

    async def statfs(self) -> os.statvfs_result:
        """The space that the store has; as it was lately, where the store does not answer.

        Raises `StoreError`, `OSError`.
        """
        with self.work.patience():
            self._space = await self.work.small(None, os.fstatvfs, self.store.fd)
        return self._space

    # --- what is behind them ---------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Know what has happened in the store so far; nothing waits."""
        self.events.drain()
        self._store_directory.look()

    def _inode(self, ino: int) -> Inode:
        inode = self.table.get(ino)
        if inode is None:
            raise StoreError(errno.ESTALE, "unknown-inode", "the file is not known any more")
        return inode

    def _directory(self, ino: int) -> Directory:
        inode = self._inode(ino)
        if not isinstance(inode, Directory):
            raise StoreError(errno.ENOTDIR, "no-directory", "it is no directory")
        return inode

    def _new_handle(self) -> int:
        self._next_handle += 1
        return self._next_handle - 1

    def _open_directory(self, handle: int) -> OpenDirectory:
        opened = self._directories.get(handle)
        if opened is None:
            raise StoreError(errno.EBADF, "unknown-handle", "the directory is not open")
        return opened

    def _open_file(self, handle: int) -> OpenFile:
        found = self._files.get(handle)
        if found is None:
            raise StoreError(errno.EBADF, "unknown-handle", "the file is not open")
        return found[0]

    @contextmanager
    def _noted(self, parent: int, name: str, operation: str, caller: Caller) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            if parent == ROOT_INO and operation in ("mkdir", "rmdir", "rename"):
                self.failures.record(name, None, operation, error, caller)
            else:
                session, _ = self._inode(parent).place
                self.failures.record(session, name, operation, error, caller)
            raise

    def _failed(self, opened: OpenFile, operation: str, error: StoreError) -> None:
        self.failures.record(opened.session, opened.name, operation, error, opened.caller)


_MAKE: Final = "no file can be made here: write to append, or mkdir AGENT_SENDER_NUMBER"
_NO_COPIES: Final = (
    "no file can be made here: a session holds these and no others, so write lines to append"
)
_WHY_NOT: Final[Mapping[str, str]] = {
    "unlink": "no file can be removed here; rmdir of a session deletes it whole",
    "rename": "nothing can be renamed or replaced here: write into the file that is there",
    "create": _MAKE,
    "mknod": _MAKE,
    "symlink": _MAKE,
    "link": _MAKE,
}


async def _unending(work: Callable[[], Awaitable[Any]]) -> None:
    """Work that goes on whatever happens in it: nothing ends the mount but its end (G19)."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("work in the background failed, and goes on")
            await trio.sleep(1)


def _memory(store: Store, options: MountOptions) -> Memory:
    if options.memory is None:
        return Memory.beside(store.path)
    return Memory(None if options.memory == "none" else options.memory)
