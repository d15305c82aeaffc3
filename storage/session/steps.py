"""Step files: names, reading, the mode and owner of a new one, and making them durable."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable
from functools import partial
from typing import Final, NamedTuple

from storage.posix import persistently, read_on, status, sync_filesystem

NUMBER_MAX: Final = 2**64 - 1
STEP_BYTES_MAX: Final = 64 << 20
"""A longer file counts as broken and is never read."""
READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STEP: Final = re.compile(r"step-([0-9]+)", re.ASCII)
_USUAL_LENGTH: Final = len("step-000001")
_CHUNK: Final = 1 << 16


def step_number(name: str) -> int | None:
    """The number in a step's name: `step-` and ASCII digits, from 1. None for any other name."""
    match = _STEP.fullmatch(name)
    return int(match[1]) or None if match else None


def step_name(number: int) -> str:
    """The name under which step `number` is stored."""
    return f"step-{number:06}"


def is_usual(name: str) -> bool:
    """Whether a step's name is the one that `step_name` gives to its number."""
    return len(name) == _USUAL_LENGTH or (len(name) > _USUAL_LENGTH and name[len("step-")] != "0")


def step_identity(found: os.stat_result) -> int:
    """A 64-bit value that changes if a step file is replaced or edited.

    It does not depend on the number of links, the mode or the owner. It may differ even if the contents
    are the same: some shared file systems set the mtime only when a file is closed.
    """
    return hash((found.st_ino, found.st_mtime_ns, found.st_size)) & NUMBER_MAX


class LongStep(Exception):  # noqa: N818 - it says what the step is
    """A step that is too long to be read by this reader."""


def read_step(
    name: str, session_fd: int, extra_flags: int = 0, most: int = STEP_BYTES_MAX
) -> bytes:
    """The bytes of a regular step file; `extra_flags` may be `O_NOATIME`.

    It is read again if another host has just renamed over it. Raises `OSError` as open(2) and read(2)
    do, and with EFBIG for a file longer than `STEP_BYTES_MAX`; raises `LongStep` for one longer than
    `most` bytes. Only the beginning of such files is read. The caller knows from a listing that the file
    is regular.
    """
    try:
        return _read_once(name, session_fd, extra_flags, most)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    again = partial(_read_once, name, session_fd, extra_flags, most)
    return persistently(name, session_fd, again, kept=False)


def _read_once(name: str, session_fd: int, extra_flags: int, most: int) -> bytes:
    fd = os.open(name, READ_FLAGS | extra_flags, dir_fd=session_fd)
    try:
        try:
            data = os.read(fd, _CHUNK)
        except FileNotFoundError as error:  # what Gluster calls stale now and then
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), name) from error
        if len(data) < _CHUNK and len(data) <= most:
            return data
        size = os.fstat(fd).st_size
        if most < size <= STEP_BYTES_MAX:
            raise LongStep(name)
        if size <= STEP_BYTES_MAX:
            data = read_on(fd, data, STEP_BYTES_MAX)
            if len(data) <= STEP_BYTES_MAX:
                return data
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
    finally:
        os.close(fd)


class Ownership(NamedTuple):
    """Attributes of a new step: permission bits, and uid and gid unless they are the process's."""

    mode: int
    owner: tuple[int, int] | None

    @classmethod
    def of_session(cls, session_fd: int) -> Ownership:
        """As `of`, for the session open as `session_fd`. Raises `OSError`."""
        return cls.of(os.fstat(session_fd), status("meta", session_fd, kept=True))

    @classmethod
    def of(cls, directory: os.stat_result, meta: os.stat_result) -> Ownership:
        """The mode of a session's `meta`, and the owner of its directory (G21).

        The owner is set only if it differs from the process's and the process is root.
        """
        mine = directory.st_uid == os.geteuid() and directory.st_gid == os.getegid()
        owner = None if mine or os.geteuid() != 0 else (directory.st_uid, directory.st_gid)
        return cls(stat.S_IMODE(meta.st_mode) & 0o666, owner)


def sync_steps(session_fd: int, claims: Iterable[int], whole: bool) -> None:
    """Make steps durable, contents before names (G17). Raises `OSError`.

    `claims` are open descriptors of new steps. With `whole` there were more than these: the whole file
    system is synced at once, which is cheaper than syncing many steps one by one.
    """
    if whole:
        sync_filesystem(session_fd)
        return
    for fd in claims:
        os.fdatasync(fd)
    os.fsync(session_fd)
