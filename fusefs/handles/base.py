"""Open files: what a file handle stands for.

The kernel calls flush at every close of a descriptor, also in a child that inherited it, and release
once when the last is gone. Errors of release vanish, so what went wrong is said at write or flush.
"""

from __future__ import annotations

import errno
import select
from typing import Final

from fusefs.failures import KERNEL, Caller
from fusefs.kernel import PollWaiter
from storage.errors import StoreError

REGULAR: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDNORM | select.EPOLLWRNORM
"""The poll(2) answer for regular files."""


class OpenFile:
    """A file handle that can be neither read nor written."""

    session: str | None = None
    """The session that errors.jsonl names for it."""
    name = ""
    caller: Caller = KERNEL
    """The process that opened it."""
    cached = False
    """Whether the kernel's page cache serves what is read of it."""

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """At most `size` bytes from `offset`; fewer at the end. Raises `StoreError`."""
        raise StoreError(errno.EBADF, "not-readable", "the file is not open for reading")

    async def write(self, data: bytes) -> int:
        """Take bytes of `data`; the number taken. Raises `StoreError`."""
        raise StoreError(errno.EBADF, "not-writable", "the file is not open for writing")

    async def flush(self) -> None:
        """A descriptor is closed. Raises `StoreError`."""

    async def sync(self) -> None:
        """Make what was written durable. Raises `StoreError`."""

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
