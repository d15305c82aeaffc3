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
    """The session that errors.jsonl names for errors of this file."""
    name = ""
    caller: Caller = KERNEL
    """The process that opened it."""
    cached = False
    """Whether reads may be served from the kernel's page cache."""

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """Read up to `size` bytes at `offset`; fewer at the end. Raises `StoreError`."""
        raise StoreError(errno.EBADF, "not-readable", "the file is not open for reading")

    async def write(self, data: bytes) -> int:
        """Write `data`, and return the number of bytes taken. Raises `StoreError`."""
        raise StoreError(errno.EBADF, "not-writable", "the file is not open for writing")

    async def flush(self) -> None:
        """A descriptor was closed. Raises `StoreError`."""

    async def sync(self) -> None:
        """Make everything written durable. Raises `StoreError`."""

    async def release(self) -> None:
        """The last descriptor was closed."""

    async def poll(self, waiter: PollWaiter | None) -> int:
        """The events that are ready; `waiter` is woken when that changes."""
        return REGULAR


class OpenText(OpenFile):
    """A file whose content is fixed when it is opened."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    async def read(self, offset: int, size: int) -> bytes:
        return self._text[offset : offset + size]
