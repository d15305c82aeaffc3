"""The table of inodes: numbers, and what the kernel holds."""

from __future__ import annotations

from typing import Final

from fusefs.inodes.inode import ROOT_INO, Inode

FIRST_INO: Final = ROOT_INO


class Table:
    """All inodes by number. Numbers are never used twice. Loop-owned."""

    def __init__(self) -> None:
        self._inodes: dict[int, Inode] = {}
        self._next = FIRST_INO

    def __len__(self) -> int:
        return len(self._inodes)

    def add(self, inode: Inode) -> int:
        """Know an inode, by the number that is returned. The first is the root."""
        number = self._next
        self._next += 1
        self._inodes[number] = inode
        return number

    def get(self, ino: int) -> Inode | None:
        """The inode of that number."""
        return self._inodes.get(ino)

    def forget(self, inode: Inode, lookups: int) -> None:
        """The kernel drops so many references."""
        inode.lookups -= lookups
        self.reap(inode)

    def reap(self, inode: Inode) -> None:
        """Let an inode go that nobody needs any more, and then its directory, if that is so of it."""
        at: Inode | None = inode
        while at is not None and at.lookups <= 0 and not at.kept and at.ino in self._inodes:
            del self._inodes[at.ino]
            at.forgotten()
            at = at.parent

    @property
    def lookups(self) -> int:
        """The sum of all lookup counts: what the kernel still holds."""
        return sum(inode.lookups for inode in self._inodes.values())
