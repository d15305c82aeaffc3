"""Going through a directory: the names as of its start, and for each what may be told without a look."""

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
    """None where only the type is told."""
    next: int


@dataclass(slots=True)
class OpenDirectory:
    """An open directory: the names as of when it was last gone through from the start."""

    directory: Directory
    private: bool
    """Whether it is listed for somebody who may read the private files."""
    names: Sequence[str] | None = None

    def begins(self, start: int) -> bool:
        """Whether who goes on from `start` needs a new list of names."""
        return start == 0 or self.names is None

    async def list(self) -> None:
        """List the names anew. Raises `StoreError`."""
        self.names = [*DOTS, *await self.directory.names(self.private)]

    def entries(self, start: int) -> Iterator[Entry]:
        """The entries after the one whose `next` was `start` (0: all). Whoever takes one counts a
        lookup of its inode."""
        names = self.names or ()
        for at in range(start, len(names)):
            name = names[at]
            if name in DOTS:
                yield Entry(name, self.directory, True, None, at + 1)
            elif (inode := self.directory.child(name)) is not None:
                yield Entry(name, inode, False, inode.listed(), at + 1)
