"""How a change in the store reaches the tree, the kernel's caches and who waits.

Every operation that must be exact drains the inotify queue first (`look`); a task does so when nobody
asks. A session that something happened in is then pushed: its views that the kernel knows are brought
up to date, and the kernel told which attributes and names to ask for again (G12, G13, G14).
"""

from __future__ import annotations

import errno
import logging
import os
from typing import Final

import trio

from fusefs.coherence.publisher import Pusher
from fusefs.failures import KERNEL, Failures
from fusefs.inodes.inode import ROOT_INO, FileNode, SessionNode
from fusefs.inodes.table import VIEWS, Names
from fusefs.inotify import Change, EventsLostError, Watcher
from fusefs.kernel import Kernel
from fusefs.session.known import STAT_LAG
from fusefs.session.pool import LiveSessions
from storage.errors import StoreError, printable
from storage.store import Store

RETRY: Final = 1.0
"""Seconds until displaced steps that could not be stored again are tried again."""

PACE: Final = 0.002
"""Seconds in which the events of a busy store gather; whoever asks meanwhile looks for themselves."""

log: Final = logging.getLogger(__name__)


class Changes:
    """Loop-owned. `look` never waits; what takes longer is done by tasks of its own."""

    def __init__(
        self,
        store: Store,
        local: bool,
        watcher: Watcher,
        names: Names,
        live: LiveSessions,
        kernel: Kernel,
        failures: Failures,
    ) -> None:
        self.root_changed_at: float | None = None
        """When the list of sessions last changed; None where nothing would tell."""
        self._store = store
        self._watcher = watcher
        self._names = names
        self._live = live
        self._kernel = kernel
        self._failures = failures
        self._pusher = Pusher(self._push)
        self._root_watch = watcher.add(store.fd) if local else None
        if self._root_watch is not None:
            self.root_changed_at = 0.0
        self._displaced: set[SessionNode] = set()
        self._nursery: trio.Nursery

    async def run(self) -> None:
        """Watch and push, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._pusher.run)
            nursery.start_soon(self._ask)
            while True:
                await trio.lowlevel.wait_readable(self._watcher.fileno())
                self.look()
                await trio.sleep(PACE)

    async def _ask(self) -> None:
        """Where no events tell of changes, look once a second for who waits in poll(2)."""
        while True:
            await self._live.unwatched.wait()
            await trio.sleep(STAT_LAG)
            for node in self._live:
                waiting = any(child.pollers for child in node.children.values())
                if waiting and node.live is not None and node.live.watch is None:
                    self._pusher.note(node)

    def look(self) -> None:
        """Take in everything that happened in the store so far."""
        try:
            changes = self._watcher.drain()
        except EventsLostError:
            log.info("the inotify queue overflowed: every session is looked at again")
            self.everything_changed()
            return
        for change in changes:
            if change.watch == self._root_watch:
                self._root_changed(change)
            elif (node := self._live.watched(change.watch)) is not None and node.live is not None:
                node.live.changed(change)
                self._pusher.note(node)

    def wrote(self, slug: str | None) -> None:
        """The mount itself stored something in a session."""
        node = self._names.sessions.get(slug) if slug is not None else None
        if node is not None:
            self._pusher.note(node)

    def displaced(self, node: SessionNode) -> None:
        """A daemon renamed over steps of this mount: store them again (G16)."""
        if node not in self._displaced:
            self._displaced.add(node)
            self._nursery.start_soon(self._restore, node)

    def verify(self, session: SessionNode) -> None:
        """Make sure that a node is still the session of its name. Raises `StoreError` ESTALE, upon
        which the kernel looks the name up again."""
        if session.live is None or not session.live.verified:
            self.stat(session)

    def stat(self, session: SessionNode) -> tuple[os.stat_result, os.stat_result]:
        """What the store says of a session's directory and its meta; otherwise as `verify`."""
        try:
            found = self._store.stat_session(session.slug)
        except StoreError as error:
            if error.errno == errno.ENOENT:
                self._gone(session)
            raise
        if session.identity not in (None, (found[0].st_dev, found[0].st_ino)):
            self._gone(session)
        if session.dead:
            raise StoreError(errno.ESTALE, "session-replaced", "the session is another by now")
        if session.live is not None and self._root_watch is not None:
            session.live.verified = session.live.watch is not None
        return found

    def settle(self, session: SessionNode) -> None:
        """Give the names of views that were superseded to new nodes (G13)."""
        if session.live is None:
            return
        for name, view in list(session.live.views.items()):
            node = session.children.get(name)
            if node is None or node.view is view or node.view is None:
                continue
            self._names.succeed(node, view)
            self._kernel.entry_changed(session.ino, name)
            for opened in list(node.pollers):
                opened.grown()

    async def grow(self, node: FileNode) -> None:
        """Have the kernel know how far a view has grown since it was told, and so make that its size.

        The kernel throws an answer to a stat away if it was told of a change meanwhile, and reads
        up to the size it had before. So no answer holds a size that the kernel does not know yet.
        """
        view = node.view
        assert view is not None
        size = view.size
        if 0 <= node.told < size:
            await self._kernel.grown(node.ino, size)
        node.told = max(node.told, size)

    async def _push(self, session: SessionNode) -> None:
        live = session.live
        if session.lookups:
            self._kernel.attributes_changed(session.ino)
        if live is None or session.dead:
            return
        with self._live.use(session):
            for node in list(session.children.values()):
                view = node.view
                if view is None or not view.built or node.name not in VIEWS:
                    continue
                await live.refresh(view.manner)
                self.settle(session)
                if node.told >= 0 and not node.superseded:
                    await self.grow(node)
                for opened in list(node.pollers):
                    opened.grown()

    async def _restore(self, node: SessionNode) -> None:
        try:
            # More may be displaced while some are stored again, so look until none is left.
            while node.live is not None and not node.live.dead and node.live.lately.displaced:
                error = await self._restore_once(node)
                if error is not None:
                    self._failures.record(node.slug, "append", "restore", error, KERNEL)
                    await trio.sleep(RETRY)
        finally:
            self._displaced.discard(node)
            self._pusher.note(node)

    async def _restore_once(self, node: SessionNode) -> StoreError | None:
        assert node.storing is not None
        try:
            with self._live.use(node):
                done = await node.storing.restore()
        except StoreError as error:
            return error
        for step in done.compactions:
            self._lost_compaction(node.slug, step.archive or "")
        return done.error

    def _lost_compaction(self, slug: str, archive: str) -> None:
        sentence = (
            f"another program replaced the compaction {printable(archive)!r}; it is not stored again,"
            " because it would hide what came after: write the name to compact once more if it counts"
        )
        lost = StoreError(errno.EEXIST, "compaction-displaced", sentence)
        self._failures.record(slug, "compact", "restore", lost, KERNEL)

    def _root_changed(self, change: Change) -> None:
        self.root_changed_at = trio.current_time()
        self._kernel.attributes_changed(ROOT_INO)
        node = self._names.sessions.get(change.name)
        if node is not None and change.disappeared:
            self._gone(node)
        elif node is not None and node.live is not None:
            node.live.verified = False

    def _gone(self, session: SessionNode) -> None:
        if self._names.sessions.get(session.slug) is session:
            self._names.bury(session.slug)
            self._kernel.entry_changed(ROOT_INO, session.slug)
        for node in session.children.values():
            for opened in list(node.pollers):
                opened.grown()

    def everything_changed(self) -> None:
        """Anything may have changed: look at it again before it is shown."""
        if self.root_changed_at is not None:
            self.root_changed_at = trio.current_time()
        for node in self._live:
            if node.live is not None:
                node.live.overflowed()
                self._pusher.note(node)
