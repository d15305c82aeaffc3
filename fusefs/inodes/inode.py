"""Inodes: base classes of the files and directories in a mount.

Each kind of file or directory is one class, which implements its attributes, its open and the names in
it. `Table` finds them by number and keeps their lookup counts.
"""

from __future__ import annotations

import errno
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, NoReturn

from fusefs.failures import Caller
from fusefs.handles.base import OpenFile
from fusefs.inodes.attributes import Attributes
from storage.errors import StoreError, printable

if TYPE_CHECKING:
    from fusefs.inodes.table import Table

ROOT_INO: Final = 1
_MAKE: Final = "no file can be made here: write to append, or mkdir AGENT_SENDER_NUMBER"
_WHY_NOT: Final[Mapping[str, str]] = {
    "unlink": "no file can be removed here; rmdir of a session deletes it whole",
    "rename": "nothing can be renamed or replaced here: write into the file that is there",
    "create": _MAKE,
    "mknod": _MAKE,
    "symlink": _MAKE,
    "link": _MAKE,
}


class Inode(ABC):
    """A file, directory or symlink. Loop-owned."""

    __slots__ = ("ino", "lookups", "name", "parent", "table")
    kind: ClassVar[int] = stat.S_IFREG
    permanent: ClassVar[bool] = False
    """Whether it stays in the table for as long as the mount lives."""
    may_be_set: ClassVar[bool] = False
    """Whether setting its size, times or mode succeeds without effect."""

    def __init__(self, table: Table, parent: Directory | None, name: str) -> None:
        self.table = table
        self.parent = parent
        self.name = name
        self.lookups = 0
        """The kernel's lookup count."""
        self.ino = table.add(self)

    @property
    def place(self) -> tuple[str | None, str | None]:
        """The session and the file that errors.jsonl names for it."""
        return None, self.name

    @property
    def kept(self) -> bool:
        """Whether it stays in the table although the kernel holds no reference to it."""
        return self.permanent

    @property
    def successor(self) -> Inode:
        """The inode to which its name refers by now, which may be another."""
        return self

    @abstractmethod
    async def attributes(self, exact: bool) -> Attributes:
        """Its attributes now. Raises `StoreError`.

        Unless `exact`, the size may be omitted if it is not known yet; the kernel then asks again later.
        """

    def listed(self) -> Attributes | None:
        """Attributes for a listing: lent ones, or those with the last size told; None for only the type.

        So a listing replays nothing (G3), and no inode ever seems to shrink (G13).
        """
        return None

    async def open(self, flags: int, caller: Caller) -> OpenFile:
        """Open it. Raises `StoreError`: ESTALE makes the kernel look its name up again."""
        raise StoreError(errno.EISDIR, "a-directory", "it is a directory")

    def readlink(self) -> str:
        """The target of a symlink. Raises `StoreError` EINVAL if it is not one."""
        raise StoreError(errno.EINVAL, "no-link", "it is not a symlink")

    def forgotten(self) -> None:  # noqa: B027 - most have nothing to release
        """It was removed from the table: release what it holds, and its name in its parent."""


class Directory(Inode):
    """A directory, which implements operations on the names in it."""

    __slots__ = ()
    kind = stat.S_IFDIR

    @abstractmethod
    async def lookup(self, name: str) -> Inode:
        """The inode of a name. Raises `StoreError` ENOENT, ESTALE …"""

    @abstractmethod
    async def names(self, private: bool) -> Sequence[str]:
        """The names for a listing; if `private`, including those for the mounting user only.

        Raises `StoreError`.
        """

    @abstractmethod
    def child(self, name: str) -> Inode | None:
        """The inode of a name that was just listed, without access to the store."""

    async def mkdir(self, name: str, caller: Caller) -> None:
        """Make a directory. Raises `StoreError`."""
        raise refused("a directory can be made only for a session, at the top")

    async def rmdir(self, name: str, caller: Caller) -> None:
        """Remove a directory. Raises `StoreError`."""
        raise refused("only a session can be removed")

    async def refusal(self, operation: str) -> StoreError:
        """The error for any other operation that creates, moves or removes a name (G11)."""
        return refused(_WHY_NOT[operation])

    def no_such_name(self, name: str) -> NoReturn:
        """Raises `StoreError` ENOENT."""
        raise StoreError(errno.ENOENT, "no-such-name", f"there is no {printable(name)}")


def refused(sentence: str) -> StoreError:
    """The error for an operation that nobody may do here: EPERM."""
    return StoreError(errno.EPERM, "not-possible", sentence)
