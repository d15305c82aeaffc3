"""Which sessions are live: watched, indexed and held open, because somebody looks at them.

Least recently used ones are let go when there are many. What the kernel was told of them stays with
their nodes, so that no inode ever shows less than it did.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from fusefs.config import Sync
from fusefs.inodes.inode import SessionNode
from fusefs.inotify import Watcher
from fusefs.session.known import session_deleted
from fusefs.session.session import LiveSession
from fusefs.session.writer import Storing
from fusefs.views.text_cache import TextCache
from storage.archives import Memory
from storage.errors import StoreError
from storage.store import Store

MOST: Final = 1024
REMEMBERING: Final = 4
"""Sessions written to lately are kept longer, up to so many times `MOST`, to notice displacements."""
MOST_STEPS: Final = 2_000_000
"""Indexed steps of all live sessions together, apart from the one that is used."""


class LiveSessions:
    """The live sessions by their nodes, least recently used first. Loop-owned."""

    def __init__(
        self,
        store: Store,
        watcher: Watcher,
        local: bool,
        cache: TextCache,
        memory: Memory,
        sync: Sync,
    ) -> None:
        self._store = store
        self._watcher = watcher
        self._local = local
        self._cache = cache
        self._memory = memory
        self._sync = sync
        self.on_displaced: Callable[[SessionNode], None] = lambda _node: None
        self.look: Callable[[], None] = lambda: None
        """Takes in what happened in the store."""
        self.on_let_go: Callable[[SessionNode], None] = lambda _node: None
        self._nodes: OrderedDict[SessionNode, None] = OrderedDict()
        self._by_watch: dict[int, SessionNode] = {}
        self._steps = 0
        """The indexed steps of all, as of when each was used last."""
        self.unwatched = trio.Event()
        """Set once there is a session of whose changes no events tell."""

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[SessionNode]:
        return iter(list(self._nodes))

    def watched(self, watch: int) -> SessionNode | None:
        """The session whose directory that watch is of."""
        return self._by_watch.get(watch)

    @contextmanager
    def use(self, node: SessionNode) -> Iterator[LiveSession]:
        """The live session of a node, kept for as long as the context lasts.

        Raises `StoreError`: ENOENT where the session is gone, EMFILE, EACCES …
        """
        live = node.live or self._wake(node)
        self._nodes.move_to_end(node)
        live.users += 1
        try:
            yield live
        finally:
            live.users -= 1
            self._weigh(live)
            if node.dead:
                self.let_go(node)

    def bury(self, node: SessionNode) -> None:
        """The session is gone from the store."""
        node.dead = True
        if node.live is not None:
            node.live.dead = True
            self.let_go(node)

    def close(self) -> None:
        """Let go of all."""
        for node in list(self._nodes):
            self._close_node(node)

    def _trim(self) -> None:
        """Let go of those least recently used where there are too many."""
        if len(self._nodes) <= MOST and self._steps <= MOST_STEPS:
            return
        for node in list(self._nodes):
            if len(self._nodes) <= MOST * 3 // 4 and self._steps <= MOST_STEPS // 2:
                break
            self.let_go(node)

    def _weigh(self, live: LiveSession) -> None:
        steps = 0 if live.closed else len(live.index.numbers)
        self._steps += steps - live.weighed
        live.weighed = steps

    def _wake(self, node: SessionNode) -> LiveSession:
        if node.dead:
            raise session_deleted(node.slug)
        self._trim()
        fd = self._store.open_session(node.slug)
        watch = self._watcher.add(fd) if self._local else None
        live = LiveSession(node.slug, fd, watch, self._local, self._cache, self._memory)
        if node.identity not in (None, live.identity):
            self._close(live)
            raise StoreError(
                errno.ESTALE, "session-replaced", "another session has this name by now"
            )
        node.identity = live.identity
        live.on_unused = lambda: self.let_go(node)
        live.on_displaced = lambda: self.on_displaced(node)
        live.look = self.look
        for child in node.children.values():
            if child.view is not None:
                child.view.suspect = child.view.built
                live.views[child.name] = child.view
        node.live = live
        node.storing = Storing(live, self._sync)
        self._nodes[node] = None
        if watch is not None:
            self._by_watch[watch] = node
        else:
            self.unwatched.set()
        return live

    def let_go(self, node: SessionNode) -> None:
        """Close a session, unless it is in use."""
        live = node.live
        if live is None or live.users or live.lock.locked() or live.writing.locked():
            return
        if len(live.lately) and not node.dead and len(self._nodes) <= MOST * REMEMBERING:
            return
        self._close_node(node)

    def _close_node(self, node: SessionNode) -> None:
        live = node.live
        assert live is not None
        for view in live.views.values():
            self._cache.drop(view)
        if node.storing is not None:
            node.storing.close()
        node.live = node.storing = None
        del self._nodes[node]
        self._close(live)
        self.on_let_go(node)

    def _close(self, live: LiveSession) -> None:
        if live.watch is not None:
            node = self._by_watch.get(live.watch)
            if node is not None and node.live in (live, None):
                del self._by_watch[live.watch]
            self._watcher.remove(live.watch)
        os.close(live.fd)
        live.closed = True
        self._weigh(live)
