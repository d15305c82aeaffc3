"""Opening files: views exact, also while compactions follow one another (G12, G13).

With a cached name an open reaches an inode whose name shows another by now. It is answered with
ESTALE, upon which the kernel looks the name up again and opens once more, but only once. What that
second open reaches was looked up after the caller had asked, so it is exact even if it was superseded
since, and is opened as if that had happened a moment later.
"""

from __future__ import annotations

import errno
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from fusefs.coherence.events import Changes
from fusefs.config import MountOptions, Sync
from fusefs.dotdir.files import Hidden
from fusefs.failures import Caller, Failures
from fusefs.handles.base import OpenFile, OpenText, OpenView
from fusefs.handles.control import OpenAppend, OpenCompact
from fusefs.handles.document import OpenCreate, OpenMeta
from fusefs.inodes.inode import FileNode, HiddenNode, Node, SessionNode
from fusefs.inodes.stats import Stats
from fusefs.inodes.table import VIEWS
from fusefs.session.meta_counter import Counting
from fusefs.session.pool import LiveSessions
from fusefs.session.session import LiveSession
from storage.errors import StoreError
from storage.store import Store

SOON: Final = 10.0
"""Seconds within which the kernel's second open comes, after a lookup that may have to wait."""
MOST: Final = 256
_HOW_TO_WRITE: Final = "what is read here is written through append and compact"


class SecondOpens:
    """Which threads were answered ESTALE just now, for which name. Loop-owned."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told: OrderedDict[int, tuple[SessionNode, str, float]] = OrderedDict()

    def tell(self, caller: Caller, node: FileNode) -> None:
        """The thread is answered ESTALE."""
        if caller.pid:  # 0 is anybody outside of the mount's PID namespace
            self._told[caller.pid] = (node.session, node.name, self._now())
            if len(self._told) > MOST:
                self._told.popitem(last=False)

    def take(self, caller: Caller, node: FileNode) -> bool:
        """Whether this is the second open of one that was answered ESTALE."""
        session, name, at = self._told.pop(caller.pid, (None, "", 0.0))
        return session is node.session and name == node.name and self._now() - at < SOON


class Opening:
    """Opens files. Loop-owned."""

    def __init__(
        self,
        store: Store,
        options: MountOptions,
        live: LiveSessions,
        changes: Changes,
        stats: Stats,
        hidden: Hidden,
        counting: Counting,
        failures: Failures,
    ) -> None:
        self._store = store
        self._limit = options.line_limit
        self._durable = options.sync is not Sync.NEVER
        self._live = live
        self._changes = changes
        self._stats = stats
        self._hidden = hidden
        self._counting = counting
        self._failures = failures
        self._second = SecondOpens()

    async def open(self, node: Node, flags: int, caller: Caller) -> OpenFile:
        """Open a file; a view with every step that is in the store now.

        Raises `StoreError`: ESTALE where the kernel shall look the name up again.
        """
        access = flags & os.O_ACCMODE
        if isinstance(node, HiddenNode):
            return await self._open_hidden(node, access, caller)
        if not isinstance(node, FileNode):
            raise StoreError(errno.EISDIR, "a-directory", "it is a directory")
        session = node.session
        self._changes.verify(session)
        with self._live.use(session) as live:
            if node.name in VIEWS:
                # The kernel would empty its page cache for O_TRUNC, under who has the file mapped.
                if access != os.O_RDONLY or flags & os.O_TRUNC:
                    raise StoreError(errno.EACCES, "read-only-file", _HOW_TO_WRITE)
                return await self._open_view(node, live, caller)
            return await self._open_control(node, live, access, caller)

    async def _open_control(
        self, node: FileNode, live: LiveSession, access: int, caller: Caller
    ) -> OpenFile:
        text = await self._stats.control_text(node, live)
        if access == os.O_RDONLY:
            return OpenText(text)
        if node.name == "meta.json":
            return OpenMeta(live, text, self._durable, self._failures, caller, self._limit)
        assert node.session.storing is not None
        kind = OpenAppend if node.name == "append" else OpenCompact
        storing = node.session.storing
        return kind(storing, self._counting, self._failures, caller, self._limit, text)

    async def _open_hidden(self, node: HiddenNode, access: int, caller: Caller) -> OpenFile:
        if node.name == "create":
            return OpenCreate(self._store, self._durable, self._failures, caller, self._limit)
        if access != os.O_RDONLY:
            sentence = "the file only tells, and takes nothing"
            raise StoreError(errno.EACCES, "read-only-file", sentence)
        return await self._hidden.open(node.name)

    async def _open_view(self, node: FileNode, live: LiveSession, caller: Caller) -> OpenView:
        second = self._second.take(caller, node)
        view = node.view
        if view is None or not view.superseded:
            view = node.view = live.view(VIEWS[node.name])
        opened = OpenView(node, live, view, self._changes.look)
        try:
            await self._bring_up_to_date(node, live, second)
        except BaseException as error:
            await opened.release()
            if isinstance(error, StoreError) and error.errno == errno.ESTALE:
                self._second.tell(caller, node)
            raise
        opened.begin()
        return opened

    async def _bring_up_to_date(self, node: FileNode, live: LiveSession, second: bool) -> None:
        view = node.view
        assert view is not None
        while True:
            await live.refresh(view.manner)
            self._changes.settle(node.session)
            if view.superseded and not second:
                raise _stale()
            try:
                await live.pin(view)
            except StoreError as error:
                if error.code != "changed-underneath":
                    raise
                if view.superseded:
                    raise _stale() from None
            else:
                await self._changes.grow(node)
                return


def _stale() -> StoreError:
    return StoreError(errno.ESTALE, "superseded", "the name shows another file by now")
