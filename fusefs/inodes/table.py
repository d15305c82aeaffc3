"""The table of inodes, by number, with the kernel's lookup counts."""

from __future__ import annotations

from typing import Final

from fusefs.inodes.inode import ROOT_INO, Inode

FIRST_INO: Final = ROOT_INO


class Table:
    """All inodes by number. Numbers are never reused. Loop-owned."""

    def __init__(self) -> None:
        self._inodes: dict[int, Inode] = {}
        self._next = FIRST_INO

    def __len__(self) -> int:
        return len(self._inodes)

    def add(self, inode: Inode) -> int:
        """Add an inode, and return its number. The first one added is the root."""
        number = self._next
        self._next += 1
        self._inodes[number] = inode
        return number

    def get(self, ino: int) -> Inode | None:
        """The inode with this number; None if there is none."""
        return self._inodes.get(ino)

    def forget(self, inode: Inode, lookups: int) -> None:
        """Subtract `lookups` from an inode's lookup count, and drop it if it is no longer needed."""
        inode.lookups -= lookups
        self.reap(inode)

    def reap(self, inode: Inode) -> None:
        """Drop an inode that is no longer needed, and then its directory if that is not either."""
        at: Inode | None = inode
        while at is not None and at.lookups <= 0 and not at.kept and at.ino in self._inodes:
            del self._inodes[at.ino]
            at.forgotten()
            at = at.parent

    @property
    def lookups(self) -> int:
        """The sum of all lookup counts: the references that the kernel still holds."""
        return sum(inode.lookups for inode in self._inodes.values())
