"""Lists a directory: the names when the listing began, with attributes that need no store access."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from fusefs.inodes.attributes import Attributes
from fusefs.inodes.inode import Directory, Inode

DOTS: Final = (".", "..")


class Entry(NamedTuple):
    """One entry of a listing."""

    name: str
    inode: Inode
    is_dot: bool
    """Whether it is `.` or `..`, which the kernel does not look up."""
    attributes: Attributes | None
    """None if only the type is given."""
    next: int


@dataclass(slots=True)
class OpenDirectory:
    """An open directory: its names when it was last read from the start."""

    directory: Directory
    private: bool
    """Whether the reader may see the private files."""
    names: Sequence[str] | None = None

    def begins(self, start: int) -> bool:
        """Whether reading from `start` needs a new list of names."""
        return start == 0 or self.names is None

    async def list(self) -> None:
        """List the names again. Raises `StoreError`."""
        self.names = [*DOTS, *await self.directory.names(self.private)]

    def entries(self, start: int) -> Iterator[Entry]:
        """The entries after the one whose `next` was `start` (0: all). The caller counts a lookup of
        each inode that it uses."""
        names = self.names or ()
        for at in range(start, len(names)):
            name = names[at]
            if name in DOTS:
                yield Entry(name, self.directory, True, None, at + 1)
            elif (inode := self.directory.child(name)) is not None:
                yield Entry(name, inode, False, inode.listed(), at + 1)
