"""The tree: what every name is, and what is done to it.

It knows no kernel but `fusefs.kernel.Kernel`, so that all of it is used without a mount as well.

Concurrency. The tree and everything it holds belong to the loop. A task owns all state between two
awaits; a method that awaits says so by being async, and looks again afterwards at whatever may have
changed. Threads are used for replays, listings, long steps, syncs and metas, and are given copies.
The inotify queue is drained at the start of every operation that must be exact (`Changes.look`), and
by a task of its own when nobody asks.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, NoReturn

import trio

from fusefs.catalogue.catalogue import Catalogue
from fusefs.coherence.events import Changes
from fusefs.config import MountOptions, Sync
from fusefs.dotdir.files import DIRECTORY, Hidden, Latest
from fusefs.dotdir.report import Report
from fusefs.failures import KERNEL, Caller, Failures
from fusefs.handles.base import OpenFile, OpenView
from fusefs.handles.opening import Opening
from fusefs.inodes.attributes import Attributes, Rules
from fusefs.inodes.inode import (
    ROOT_INO,
    FileNode,
    HiddenNode,
    LinkNode,
    Node,
    NodeTable,
    RootNode,
    SessionNode,
)
from fusefs.inodes.permissions import may_change
from fusefs.inodes.readdir import Entry, Listing, Listings
from fusefs.inodes.stats import Stats
from fusefs.inodes.table import CONTROLS, Names, is_latest
from fusefs.inotify import Watcher
from fusefs.kernel import Kernel, PollWaiter
from fusefs.session.meta_counter import Counting
from fusefs.session.pool import LiveSessions
from fusefs.views.text_cache import TextCache
from storage.archives import Memory, default_path
from storage.capabilities import probe
from storage.errors import StoreError, printable
from storage.store import Store

log: Final = logging.getLogger(__name__)
_ORDINARY: Final = frozenset({errno.ESTALE, errno.ENOENT, errno.EISDIR})
"""Answers to an open that are no failures."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file: its handle, and whether the kernel's page cache serves it."""

    handle: int
    cached: bool


class Tree:
    """One mounted store."""

    def __init__(self, store: Store, options: MountOptions, kernel: Kernel) -> None:
        self.store = store
        self.options = options
        self.failures = Failures()
        self.nodes = NodeTable()
        self.cache = TextCache(options.cache)
        self.counting = Counting(self.failures)
        self.report = Report()
        self.capabilities = probe(store.fd, write=not options.read_only)
        if not options.read_only:
            self.capabilities.require_writable(printable(store.path))
        self.local = self.capabilities.near
        self.watcher = Watcher()
        self._memory = Memory(_memory_path(store, options))
        self._rules = Rules(options, (os.geteuid(), os.getegid()))
        self._durable = options.sync is not Sync.NEVER
        self.live = LiveSessions(
            store, self.watcher, self.local, self.cache, self._memory, options.sync
        )
        self.names = Names(store, self.nodes, self.live, self.cache)
        self.changes = Changes(
            store, self.local, self.watcher, self.names, self.live, kernel, self.failures
        )
        self.live.on_displaced = self.changes.displaced
        self.live.look = self.changes.look
        self._catalogue = Catalogue(store, self.local)
        self._hidden = Hidden(
            store, self._rules, self.failures, self._catalogue, lambda: self.report.make(self)
        )
        self._latest = Latest(store, lambda: self.changes.root_changed_at)
        self._stats = Stats(store, self._rules, self.live, self.changes, self._hidden)
        self._listings = Listings(
            store, self._catalogue, self.names, self._latest, self._hidden, self._stats
        )
        self._opening = Opening(
            store,
            options,
            self.live,
            self.changes,
            self._stats,
            self._hidden,
            self.counting,
            self.failures,
        )
        self.handles: dict[int, OpenFile | Listing] = {}
        self._next_handle = 1

    # --- life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """The work in the background: watching, pushing, counting; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_unending, self.changes.run)
            nursery.start_soon(_unending, self.counting.run)
            nursery.start_soon(_unending, self._catalogue.arm)

    async def finish(self) -> None:
        """Before the end: open files are released, what is due is written and synced (G9, G17)."""
        for handle in list(self.handles):
            opened = self.handles.pop(handle)
            if isinstance(opened, OpenFile):
                try:
                    await opened.flush()
                except StoreError as error:
                    self._failed(opened, "flush", error)
                await opened.release()
        await self.counting.finish()
        for node in self.live:
            if node.storing is not None:
                try:
                    await node.storing.sync()
                except StoreError as error:
                    self.failures.record(node.slug, "append", "sync", error, KERNEL)

    def close(self) -> None:
        """Close all that is open; nothing waits."""
        self.live.close()
        self.watcher.close()
        self._catalogue.close()
        self._memory.close()
        self.store.close()

    # --- names ---------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: str) -> Attributes:
        """The attributes of a name, which the kernel now holds once more. Raises ENOENT, …"""
        self.changes.look()
        node = await self._child(self._node(parent), name)
        attributes = await self._counted(node)
        if isinstance(node, FileNode) and node.superseded:
            # It was superseded while it was brought up to date: the name is another's.
            self.changes.settle(node.session)
            current = node.session.children.get(node.name, node)
            if current is not node:
                self.forget(node.ino, 1)
                return await self._counted(current)
        return attributes

    async def _counted(self, node: Node) -> Attributes:
        """The attributes of a node, and one more lookup of it, counted before anything awaits: nodes
        that the kernel does not know go when they are superseded."""
        node.lookups += 1
        try:
            return await self._stat(node, replay=False)
        except BaseException:
            self.forget(node.ino, 1)
            raise

    async def _stat(self, node: Node, replay: bool) -> Attributes:
        try:
            return await self._stats.of(node, replay)
        except StoreError as error:
            if error.errno not in (errno.ESTALE, errno.ENOENT):
                session = node.session.slug if isinstance(node, FileNode) else None
                self.failures.record(session, getattr(node, "name", None), "stat", error, KERNEL)
            raise

    async def getattr(self, ino: int) -> Attributes:
        """The attributes of an inode, exact (G3)."""
        self.changes.look()
        return await self._stat(self._node(ino), replay=True)

    def forget(self, ino: int, lookups: int) -> None:
        """The kernel drops so many references."""
        node = self.nodes.get(ino)
        if node is None:
            return
        node.lookups -= lookups
        if node.lookups <= 0 and node.ino != ROOT_INO:
            self.names.drop(node)

    async def readlink(self, ino: int) -> str:
        """Where a symlink leads."""
        node = self._node(ino)
        if not isinstance(node, LinkNode):
            raise StoreError(errno.EINVAL, "no-link", "it is no symlink")
        return node.target

    async def mkdir(self, parent: int, name: str, caller: Caller) -> Attributes:
        """Make the session of that name (G11)."""
        with self._noted(parent, name, "mkdir", caller):
            if not isinstance(self._node(parent), RootNode):
                raise _refused("a directory can be made only for a session, at the top")
            await trio.to_thread.run_sync(partial(self.store.make, name, sync=self._durable))
        return await self.lookup(parent, name)

    async def rmdir(self, parent: int, name: str, caller: Caller) -> None:
        """Delete a session, though files are in it (G11)."""
        with self._noted(parent, name, "rmdir", caller):
            if not isinstance(self._node(parent), RootNode) or name == DIRECTORY:
                raise _refused("only a session can be removed")
            self.changes.look()
            found = self.store.stat_session(name)
            if not may_change(found[0], caller):
                sentence = f"the session {printable(name)} is not yours to delete"
                raise StoreError(errno.EACCES, "not-yours", sentence)
            await trio.to_thread.run_sync(partial(self.store.delete, name, sync=self._durable))
        self.changes.look()
        self.names.bury(name)

    def refuse(self, parent: int, name: str, operation: str, caller: Caller) -> NoReturn:
        """No name is made, moved or removed but by mkdir and rmdir: EPERM, and why (G11)."""
        with self._noted(parent, name, operation, caller):
            raise _refused(_WHY_NOT[operation])

    # --- directories ---------------------------------------------------------------------------

    def opendir(self, ino: int, caller: Caller) -> int:
        """Open a directory. Private files are listed for the mounting user only, so that everybody
        else's `grep -r` meets no error (G4)."""
        mounter = self._rules.private().uid
        return self._handle(Listing(self._node(ino), caller.uid in (0, mounter)))

    async def prepare(self, handle: int, start: int) -> None:
        """Make ready to go through a directory; from the start it is listed anew."""
        listing = self._listing(handle)
        if start == 0 or listing.names is None:
            self.changes.look()
            await self._listings.fill(listing)

    def entries(self, handle: int, start: int) -> Iterator[Entry]:
        """The entries after the one whose `next` was `start` (0: all). Whoever takes one counts a
        lookup of its node."""
        return self._listings.entries(self._listing(handle), start)

    def releasedir(self, handle: int) -> None:
        """A directory is closed."""
        self.handles.pop(handle, None)

    # --- open files ----------------------------------------------------------------------------

    async def open(self, ino: int, flags: int, caller: Caller) -> Opened:
        """Open a file; it shows every step that is in the store now (G12)."""
        self.changes.look()
        node = self._node(ino)
        try:
            opened = await self._opening.open(node, flags, caller)
        except StoreError as error:
            if error.errno not in _ORDINARY:
                self.failures.record(*_place(node), "open", error, caller)
            raise
        opened.caller = caller
        return Opened(self._handle(opened), isinstance(opened, OpenView))

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
        self.changes.look()
        try:
            return await opened.write(data)
        except StoreError as error:
            self._failed(opened, "write", error)
            raise
        finally:
            self.changes.wrote(opened.session)

    async def flush(self, handle: int) -> None:
        """A descriptor of an open file is closed (G7)."""
        opened = self._open_file(handle)
        if isinstance(opened, OpenView):
            return  # nothing was written, and nobody is to be told anything
        self.changes.look()
        try:
            await opened.flush()
        except StoreError as error:
            if error.errno == errno.EINVAL:
                opened.caller = opened.caller.remembered()  # told at release, if it stays so
            else:
                self._failed(opened, "close", error)
            raise
        finally:
            self.changes.wrote(opened.session)

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
        opened = self.handles.pop(handle, None)
        if isinstance(opened, OpenFile):
            await opened.release()
        if isinstance(opened, OpenView) and opened.node.lookups <= 0:
            self.names.drop(opened.node)  # the kernel may forget a file before it has closed it

    async def poll(self, handle: int, waiter: PollWaiter | None) -> int:
        """What poll(2) is told (G14)."""
        return await self._open_file(handle).poll(waiter)

    async def setattr(self, ino: int, caller: Caller) -> Attributes:
        """Sizes, times and modes of control files mean nothing, and changing them does no harm."""
        node = self._node(ino)
        control = isinstance(node, FileNode) and node.name in CONTROLS
        if not control and not (isinstance(node, HiddenNode) and node.name == "create"):
            error = _refused("attributes here are those of the store, and cannot be set")
            self.failures.record(*_place(node), "setattr", error, caller)
            raise error
        return await self.getattr(ino)

    async def _child(self, parent: Node, name: str) -> Node:
        links = await self._latest.links() if is_latest(parent) else {}
        return self.names.child(parent, name, links)

    # --- what is behind them ---------------------------------------------------------------------

    def _node(self, ino: int) -> Node:
        node = self.nodes.get(ino)
        if node is None:
            raise StoreError(errno.ESTALE, "unknown-inode", "the file is not known any more")
        return node

    def _handle(self, opened: OpenFile | Listing) -> int:
        handle = self._next_handle
        self._next_handle += 1
        self.handles[handle] = opened
        return handle

    def _listing(self, handle: int) -> Listing:
        listing = self.handles.get(handle)
        if not isinstance(listing, Listing):
            raise StoreError(errno.EBADF, "unknown-handle", "the directory is not open")
        return listing

    def _open_file(self, handle: int) -> OpenFile:
        opened = self.handles.get(handle)
        if not isinstance(opened, OpenFile):
            raise StoreError(errno.EBADF, "unknown-handle", "the file is not open")
        return opened

    @contextmanager
    def _noted(self, parent: int, name: str, operation: str, caller: Caller) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            at = self._node(parent)
            if isinstance(at, RootNode) and operation in ("mkdir", "rmdir", "rename"):
                self.failures.record(name, None, operation, error, caller)
            else:
                self.failures.record(_place(at)[0], name, operation, error, caller)
            raise

    def _failed(self, opened: OpenFile, operation: str, error: StoreError) -> None:
        self.failures.record(opened.session, opened.name, operation, error, opened.caller)


_MAKE: Final = "no file can be made here: write to append, or mkdir AGENT_SENDER_NUMBER"
_WHY_NOT: Final = {
    "unlink": "no file can be removed here; rmdir of a session deletes it whole",
    "rename": "nothing can be renamed or replaced here: write into the file that is there",
    "create": _MAKE,
    "mknod": _MAKE,
    "symlink": _MAKE,
    "link": _MAKE,
}


def _place(node: Node) -> tuple[str | None, str | None]:
    """The session and the file that errors.jsonl names for a node."""
    if isinstance(node, FileNode):
        return node.session.slug, node.name
    if isinstance(node, SessionNode):
        return node.slug, None
    return None, node.name if isinstance(node, HiddenNode | LinkNode) else None


async def _unending(work: Callable[[], Awaitable[None]]) -> None:
    """Work that goes on whatever happens in it: nothing ends the mount but its end (G19)."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("work in the background failed, and goes on")
            await trio.sleep(1)


def _refused(sentence: str) -> StoreError:
    return StoreError(errno.EPERM, "not-possible", sentence)


def _memory_path(store: Store, options: MountOptions) -> str | None:
    if options.memory == "none":
        return None
    return options.memory or default_path(store.path)
