"""Limits the inodes of the past that stay known: there is one for every step and every time (G29e)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from fusefs.inodes.inode import Inode
from fusefs.kernel import Kernel

KEPT_FILES: Final = 16
KEPT_LINES: Final = 1_000_000
"""Limit of the lines of all kept files except the last one, at 8 bytes each."""
KEPT_DIRECTORIES: Final = 512


class RecentPast:
    """The most recently used files and directories of the past, in all sessions.

    The kernel is told to drop the names of all others: it would keep them for as long as it has memory,
    and the table would keep their inodes. Open files stay.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._lines: OrderedDict[Inode, int] = OrderedDict()
        """Lines shown by each file, least recently used first."""
        self._directories: OrderedDict[Inode, None] = OrderedDict()

    def __contains__(self, file: Inode) -> bool:
        return file in self._lines

    def used(self, file: Inode, lines: int) -> None:
        """A file that shows `lines` lines was used."""
        self._lines[file] = lines
        self._lines.move_to_end(file)
        while len(self._lines) > 1 and self._are_many():
            self._let_go(self._lines.popitem(last=False)[0])

    def entered(self, directory: Inode) -> None:
        """A directory was looked up or listed."""
        self._directories[directory] = None
        self._directories.move_to_end(directory)
        if len(self._directories) > KEPT_DIRECTORIES:
            self._let_go(self._directories.popitem(last=False)[0])

    def drop(self, inode: Inode) -> None:
        """An inode was removed from the table."""
        self._lines.pop(inode, None)
        self._directories.pop(inode, None)

    def _are_many(self) -> bool:
        return len(self._lines) > KEPT_FILES or sum(self._lines.values()) > KEPT_LINES

    def _let_go(self, inode: Inode) -> None:
        assert inode.parent is not None
        self._kernel.entry_changed(inode.parent.ino, inode.name)
        inode.table.reap(inode)
