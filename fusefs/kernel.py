"""What the tree asks of the kernel, and a kernel that nobody listens to."""

from __future__ import annotations

from typing import Protocol


class Kernel(Protocol):
    """The kernel's caches. No call holds up the loop, whose answers the kernel may wait for."""

    def attributes_changed(self, ino: int) -> None:
        """The attributes of an inode are to be asked for again."""

    async def grown(self, ino: int, size: int) -> None:
        """The inode has `size` bytes, the last of them a newline: once this returns, whoever reads
        it reads that far."""

    def entry_changed(self, parent: int, name: str) -> None:
        """The name in a directory is to be looked up again, soon, from a thread of its own."""


class PollWaiter(Protocol):
    """Somebody who waits in poll(2) until told."""

    def notify(self) -> None:
        """Wake the waiter, who then polls again."""
