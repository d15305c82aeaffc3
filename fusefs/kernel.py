"""What the file system needs of the kernel: invalidated caches and woken pollers."""

from __future__ import annotations

from typing import Protocol


class Kernel(Protocol):
    """The kernel's caches. No call blocks the loop, since the kernel may be waiting for its answers."""

    def attributes_changed(self, ino: int) -> None:
        """Invalidate the cached attributes of an inode."""

    async def grown(self, ino: int, size: int) -> None:
        """Tell the kernel that a file has grown to `size` bytes, the last of them a newline. Once this
        returns, every reader can read that far."""

    def entry_changed(self, parent: int, name: str) -> None:
        """Invalidate a name in a directory: soon, from a thread."""


class PollWaiter(Protocol):
    """A caller waiting in poll(2)."""

    def notify(self) -> None:
        """Wake it; it then polls again."""
