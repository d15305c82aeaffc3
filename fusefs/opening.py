"""Opening a view: exact, also while compactions follow one another (G12, G13).

With a cached name an open reaches an inode whose name shows another by now. It is answered with
ESTALE, upon which the kernel looks the name up again and opens once more, but only once. What that
second open reaches was looked up after the caller had asked, so it is exact even if it was superseded
since, and is opened as if that had happened a moment later.
"""

from __future__ import annotations

import errno
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from fusefs.changes import Changes
from fusefs.failures import Caller
from fusefs.names import VIEWS
from fusefs.nodes import FileNode, SessionNode
from fusefs.openfiles import OpenView
from fusefs.session import LiveSession
from storage.errors import StoreError

SOON: Final = 10.0
"""Seconds within which the kernel's second open comes, after a lookup that may have to wait."""
MOST: Final = 256


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
    """Opens views. Loop-owned."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._second = SecondOpens()

    async def open(self, node: FileNode, live: LiveSession, caller: Caller) -> OpenView:
        """Open a view, with every step that is in the store now.

        Raises `StoreError`: ESTALE where the kernel shall look the name up again.
        """
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
