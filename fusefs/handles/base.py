"""Open files: what a file handle stands for.

The kernel calls flush at every close of a descriptor, also in a child that inherited it, and release
once when the last is gone. Errors of release vanish, so what went wrong is said at write or flush.
"""

from __future__ import annotations

import errno
import select
import time
from collections.abc import Callable
from typing import Final

from fusefs.failures import Caller
from fusefs.inodes.inode import FileNode
from fusefs.kernel import PollWaiter
from fusefs.session.session import LiveSession
from fusefs.views.views import View
from storage.errors import StoreError

POLLABLE: Final = frozenset({"history.jsonl", "log.jsonl"})
"""Views of which an open file is told when they grow."""
REGULAR: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDNORM | select.EPOLLWRNORM
"""What poll(2) answers for regular files."""
AT_ONCE: Final = 0.1
"""Seconds within which somebody who was woken from poll(2) asks what there is."""


class OpenFile:
    """A file handle that can be neither read nor written."""

    session: str | None = None
    name = ""
    caller: Caller

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """At most `size` bytes from `offset`; fewer at the end."""
        raise StoreError(errno.EBADF, "not-readable", "the file is not open for reading")

    async def write(self, data: bytes) -> int:
        """How many bytes of `data` were taken."""
        raise StoreError(errno.EBADF, "not-writable", "the file is not open for writing")

    async def flush(self) -> None:
        """A descriptor is closed."""

    async def sync(self) -> None:
        """What was written is to be on disk."""

    async def release(self) -> None:
        """The last descriptor is gone."""

    async def poll(self, waiter: PollWaiter | None) -> int:
        """The events that are there now; `waiter` is to be told when there are others."""
        return REGULAR


class OpenText(OpenFile):
    """A file whose bytes are as of its open."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    async def read(self, offset: int, size: int) -> bytes:
        return self._text[offset : offset + size]


class OpenView(OpenFile):
    """An open view: it shows what its inode shows, as long as it is open (G13)."""

    def __init__(
        self, node: FileNode, live: LiveSession, view: View, look: Callable[[], None]
    ) -> None:
        self.session = live.slug
        self.name = node.name
        self.view = view
        self.node = node
        self._live = live
        self._look = look
        self._told = 0
        self._announced_at = 0.0
        self._waiter: PollWaiter | None = None
        live.users += 1
        view.opens += 1

    def begin(self) -> None:
        """The open succeeds: from here on, growth is told."""
        self._told = self.view.size
        if self.name in POLLABLE:
            self.node.pollers.add(self)

    async def release(self) -> None:
        self.node.pollers.discard(self)
        self._live.unpin(self.view)
        self._live.leave()

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        view = self.view
        end = min(offset + size, view.size)
        if offset >= end:
            return b""
        parts: list[bytes | memoryview] = []
        for segment in list(view.overlapping(offset, end)):
            at, length = segment.offset, segment.length
            text = await self._live.text(view, segment)
            start, stop = max(0, offset - at), min(length, end - at)
            parts.append(memoryview(text)[start:stop])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def poll(self, waiter: PollWaiter | None) -> int:
        """POLLPRI once for each growth since this open file was last told (G14).

        One event can be asked for twice: epoll does when a descriptor is added, and again when it is
        waited for. So somebody who waits is woken first, and told when they ask again, at once: who
        asks later may be another, because the one who was woken has ended.
        """
        if self.name not in POLLABLE:
            return REGULAR
        self._look()
        if not self.node.superseded and not self._live.dead:
            await self._live.refresh(self.view.manner)
        if self.node.superseded:
            return REGULAR | select.EPOLLPRI
        self._waiter = waiter
        announced = time.monotonic() - self._announced_at < AT_ONCE
        if self.view.size > self._told and waiter is not None and not announced:
            self._announce(waiter)
            return REGULAR
        self._announced_at = 0.0
        if self.view.size <= self._told:
            return REGULAR
        self._told = self.view.size
        return REGULAR | select.EPOLLPRI

    def grown(self) -> None:
        """The file grew or was replaced: wake who waits."""
        if self._waiter is not None and (self.node.superseded or self.view.size > self._told):
            self._announce(self._waiter)

    def _announce(self, waiter: PollWaiter) -> None:
        self._waiter = None
        self._announced_at = time.monotonic()
        waiter.notify()
