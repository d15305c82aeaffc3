"""An open view: shows one epoch for as long as it is open, and reports its growth to poll(2)."""

from __future__ import annotations

import select
import time
from typing import Final

from fusefs.handles.base import REGULAR, OpenFile
from fusefs.kernel import PollWaiter
from fusefs.session.held_text import text, unpin
from fusefs.session.means import Means
from fusefs.session.pool import Pool
from fusefs.session.refresh import refresh
from fusefs.session.session import Session
from fusefs.views.epoch import Epoch
from fusefs.views.formats import HISTORY, LOG
from storage.errors import StoreError

POLLABLE: Final = frozenset({HISTORY, LOG})
"""Formats whose growth is reported to poll(2)."""
WAKE_SECONDS: Final = 0.1
"""A process that was woken from poll(2) polls again within this time."""


class OpenView(OpenFile):
    """An open view: shows the epoch of its inode (G13). The session must be open, and is kept open."""

    cached = True

    def __init__(self, pool: Pool, means: Means, session: Session, epoch: Epoch) -> None:
        self.session: str = session.slug
        self.name = epoch.view.format.name
        self._pool = pool
        self._means = means
        self._session = session
        self._epoch = epoch
        self._told = 0
        """The size that was last reported to poll(2)."""
        self._announced_at = 0.0
        self._waiter: PollWaiter | None = None
        self._pollable = epoch.view.format in POLLABLE and epoch.view.cut is None
        pool.keep(session)
        epoch.opens += 1

    def begin(self) -> None:
        """The open succeeded: report growth from now on."""
        self._told = self._epoch.size
        if self._pollable:
            self._epoch.follow(self)

    async def release(self) -> None:
        self._epoch.unfollow(self)
        unpin(self._means, self._session, self._epoch)
        self._pool.release(self._session)

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        epoch = self._epoch
        end = min(offset + size, epoch.size)
        if offset >= end:
            return b""
        parts: list[bytes | memoryview] = []
        for segment in list(epoch.overlapping(offset, end)):
            at, length = segment.offset, segment.length
            held = await text(self._means, self._session, epoch, segment)
            start, stop = max(0, offset - at), min(length, end - at)
            parts.append(memoryview(held)[start:stop])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def poll(self, waiter: PollWaiter | None) -> int:
        """POLLPRI once for each growth since the last report to this open file (G14).

        The same event may be queried twice: epoll does so when a descriptor is added, and again when it
        is waited for. So a waiter is only woken, and gets the event if it polls again right after that.
        A later poll may come from another process, since the one that was woken may have ended.
        """
        if not self._pollable:
            return REGULAR
        epoch = self._epoch
        self._means.events.drain()
        if not self._replaced:
            with self._means.work.patience():
                try:
                    await refresh(self._means, self._session, epoch.view, exact=False)
                except StoreError:
                    if not self._session.gone:
                        raise
        if self._replaced:
            return REGULAR | select.EPOLLPRI
        self._waiter = waiter
        if waiter is not None:
            self._means.events.follow(self._session)
        announced = time.monotonic() - self._announced_at < WAKE_SECONDS
        if epoch.size > self._told and waiter is not None and not announced:
            self._announce(waiter)
            return REGULAR
        self._announced_at = 0.0
        if epoch.size <= self._told:
            return REGULAR
        self._told = epoch.size
        return REGULAR | select.EPOLLPRI

    def grown(self) -> None:
        """The file has grown or was replaced: wake the waiter."""
        if self._waiter is not None and (self._replaced or self._epoch.size > self._told):
            self._announce(self._waiter)

    @property
    def waits(self) -> bool:
        """Whether a process waits in poll(2)."""
        return self._waiter is not None

    @property
    def _replaced(self) -> bool:
        return self._epoch.superseded or self._session.gone

    def _announce(self, waiter: PollWaiter) -> None:
        self._waiter = None
        self._announced_at = time.monotonic()
        waiter.notify()
