"""Attributes for stat(2): sizes, times, owners and modes, taken from the store (G3, G21)."""

from __future__ import annotations

import functools
import stat
from dataclasses import dataclass
from typing import Final

from fusefs.config import MountOptions
from storage.store import AnyStatus

TIMEOUT_SECONDS: Final = 1.0
"""How long the kernel may cache attributes; changes are published long before (G12)."""
LENT_SECONDS: Final = 300.0
"""How long the kernel may cache lent attributes, which are recalled when anything changes."""


@dataclass(slots=True)
class Attributes:
    """The attributes of one inode; times in nanoseconds, sizes in bytes."""

    ino: int
    mode: int
    uid: int
    gid: int
    size: int = 0
    mtime_ns: int = 0
    nlink: int = 1
    """1 for a directory too, which means that its subdirectories are not counted."""
    entry_timeout: float = TIMEOUT_SECONDS
    attr_timeout: float = TIMEOUT_SECONDS


@dataclass(frozen=True, slots=True)
class Rights:
    """Owner, group and permission bits of a file."""

    uid: int
    gid: int
    bits: int

    def attributes(
        self, ino: int, kind: int, size: int, mtime_ns: int, timeout: float = TIMEOUT_SECONDS
    ) -> Attributes:
        """The attributes of an inode of this kind with these rights."""
        return Attributes(
            ino, kind | self.bits, self.uid, self.gid, size, mtime_ns, attr_timeout=timeout
        )


def _execute_as_read(bits: int) -> int:
    return (bits & 0o111) << 2


def _write_where_create(bits: int) -> int:
    """The permission classes that may create files in a directory: those with write and search."""
    return bits & 0o222 & (bits & 0o111) << 1


class Rules:
    """Permissions, derived from the store's own mode bits and the mount's options."""

    def __init__(self, options: MountOptions, mounter: tuple[int, int]) -> None:
        self._options = options
        self._mounter = mounter

    def view(self, meta: AnyStatus) -> Rights:
        """Readable by whoever may read the meta."""
        return self._shown(meta.st_uid, meta.st_gid, meta.st_mode & 0o444)

    def append(self, directory: AnyStatus) -> Rights:
        """Writable by whoever may create files there; readable as empty by whoever may enter."""
        bits = directory.st_mode
        allowed = _write_where_create(bits) | _execute_as_read(bits)
        return self._shown(directory.st_uid, directory.st_gid, allowed)

    def control(self, directory: AnyStatus, meta: AnyStatus) -> Rights:
        """Writable by whoever may create files there, readable by whoever may read the meta.

        A file has only one owner and group. If those of the directory and the meta differ, everybody may
        read it if both group and others may read the meta, otherwise nobody.
        """
        read = meta.st_mode & 0o444
        if (directory.st_uid, directory.st_gid) != (meta.st_uid, meta.st_gid):
            anybody = read >> 3 & read & 0o004
            read = anybody * 0o111
        allowed = _write_where_create(directory.st_mode) | read
        return self._shown(directory.st_uid, directory.st_gid, allowed)

    def directory(self, found: AnyStatus) -> Rights:
        """A directory of the store, as it is."""
        return self._shown(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))

    def public(self, root: AnyStatus, directory: bool) -> Rights:
        """For files that reveal no more than a listing of the store: readable by whoever may list it."""
        bits = root.st_mode & 0o444
        return self._shown(root.st_uid, root.st_gid, bits | (bits >> 2 if directory else 0))

    def private(self) -> Rights:
        """For files that reveal things about all sessions: for the mounting user only."""
        return self._shown(*self._mounter, 0o400)

    def _shown(self, uid: int, gid: int, bits: int) -> Rights:
        options = self._options
        return _rights(
            uid if options.uid is None else options.uid,
            gid if options.gid is None else options.gid,
            bits & ~options.umask,
        )


_rights: Final = functools.lru_cache(maxsize=1024)(Rights)
"""Those of most files of all sessions are the same."""
