"""System calls relative to directory descriptors that follow no symlink (G21)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

from storage.errors import StoreError, printable

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What a file system answers to a flag of renameat2(2) that it does not know."""

NO_LOCKS = UNSUPPORTED | {errno.ENOLCK, errno.EBADF}
"""What a file system answers to a lock that it does not know."""

_ATTEMPTS = 8
"""How often a name that another host may just be renaming over is looked up before it counts as gone."""
_F_OFD_SETLK = 37
_PUNCH_HOLE = 3
"""FALLOC_FL_PUNCH_HOLE and the FALLOC_FL_KEEP_SIZE that it takes."""
_WHOLE_FILE = struct.pack("hhlllhh", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0, 0, 0)
_libc = ctypes.CDLL(None, use_errno=True)

_T = TypeVar("_T")


def open_directory(name: str, at: int | None = None) -> int:
    """A new descriptor of the directory `name`.

    Below `at` a symlink is refused (ENOTDIR or ELOOP); without `at` the name is one that a person
    gave, and is followed. Raises OSError.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    return open_unnoticed(name, flags if at is None else flags | os.O_NOFOLLOW, at)


def open_unnoticed(name: str, flags: int, at: int | None = None) -> int:
    """As open(2), without updates of the access time where the process may ask for that (G4)."""
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=at)
    except PermissionError:
        return os.open(name, flags, dir_fd=at)


@contextmanager
def opened_directory(name: str, at: int | None = None) -> Iterator[int]:
    """As `open_directory`, while the block lasts."""
    descriptor = open_directory(name, at)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def reopened(directory: int) -> Iterator[int]:
    """A descriptor of `directory` with its own position and its own locks, closed at the end.

    Listings through one descriptor share a position, so threads would skip each other's names.
    """
    with opened_directory(".", directory) as own:
        yield own


def subdirectories(directory: int) -> dict[str, int]:
    """The real directories in `directory` that are not hidden, with their inode numbers.

    Raises OSError.
    """
    with reopened(directory) as own, os.scandir(own) as entries:
        return {
            entry.name: entry.inode()
            for entry in entries
            if entry.name[0] != "." and entry.is_dir(follow_symlinks=False)
        }


def token() -> str:
    """What makes a temporary name nobody else's. (The library of secrets takes long to load.)"""
    return os.urandom(8).hex()


def listing(directory: int) -> list[str]:
    """The names in `directory`, as they are now. Raises OSError."""
    with reopened(directory) as own:
        return os.listdir(own)


def status(name: str, at: int, *, kept: bool = False) -> os.stat_result:
    """The status of `name`, no symlink followed; `kept` as for `persistently`. Raises OSError."""
    look = partial(os.stat, name, dir_fd=at, follow_symlinks=False)
    return persistently(name, at, look, kept=kept)


def persistently(name: str, at: int, look: Callable[[], _T], *, kept: bool) -> _T:
    """What `look` finds by `name`, which is looked up afresh while another host renames over it.

    The name is stale for that moment, on some file systems even missing. Without `kept` a missing name
    is believed at once; with it it is one that is there as long as its directory is, such as a
    session's meta. Raises what `look` does.
    """
    passing = (errno.ESTALE, errno.ENOENT) if kept else (errno.ESTALE,)
    for _ in range(_ATTEMPTS - 1):
        try:
            return look()
        except OSError as error:
            if error.errno not in passing:
                raise
        refresh(name, at)
    return look()


def is_regular(name: str, at: int) -> bool:
    """Whether `name` is a regular file, looked at without opening it; False if it is not there.

    Raises OSError where that cannot be known.
    """
    try:
        return stat.S_ISREG(status(name, at).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def may_be_regular(name: str, at: int) -> bool:
    """Whether `name` is a regular file, or cannot be looked at: reading it will say what is wrong."""
    try:
        return stat.S_ISREG(status(name, at).st_mode)
    except OSError:
        return True


def is_same(name: str, at: int, descriptor: int) -> bool:
    """Whether `name` is still that of the open file. Raises OSError, ENOENT if it is no more."""
    named, opened = os.stat(name, dir_fd=at, follow_symlinks=False), os.fstat(descriptor)
    return os.path.samestat(named, opened)


def exists(name: str, at: int, *, kept: bool = False) -> bool:
    """Whether there is anything of that name, a dangling symlink too; `kept` as for `status`.

    Raises OSError.
    """
    try:
        status(name, at, kept=kept)
    except FileNotFoundError:
        return False
    return True


def read_regular(name: str, at: int, most: int) -> tuple[bytes, os.stat_result]:
    """The whole content of the regular file `name`, and its status when opened.

    Never follows a symlink and never blocks on a FIFO; whoever does not know the type asks
    `is_regular` first, since opening a FIFO or a device may be felt at its other end. Raises
    OSError, and StoreError EINVAL for anything but a regular file and for one of more than `most`
    bytes, of which nothing is read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = open_unnoticed(name, flags, at)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(errno.EINVAL, "not-a-file", f"{printable(name)} is not a regular file")
        if status.st_size > most:
            raise _too_long(name, most)
        content = os.read(descriptor, status.st_size + 1)
        if len(content) != status.st_size:  # it grows or shrinks just now
            content = read_on(descriptor, content, most)
            if len(content) > most:
                raise _too_long(name, most)
        return content, status
    finally:
        os.close(descriptor)


def _too_long(name: str, most: int) -> StoreError:
    sentence = f"{printable(name)} is longer than {most} bytes"
    return StoreError(errno.EINVAL, "file-too-long", sentence)


def read_on(descriptor: int, beginning: bytes, most: int) -> bytes:
    """`beginning` and what follows it in an open file, up to a little over `most` bytes."""
    pieces, length = [beginning], len(beginning)
    while pieces[-1] and length <= most:
        pieces.append(os.read(descriptor, 1 << 20))
        length += len(pieces[-1])
    return b"".join(pieces)


def exchange(a: str, b: str, at: int) -> None:
    """Gives each of two existing names in `at` what the other had, in one step.

    Raises OSError; its errno is in UNSUPPORTED where the file system cannot.
    """
    _renameat2(a, b, at, RENAME_EXCHANGE)


def rename_new(old: str, new: str, at: int) -> None:
    """Renames `old` to `new`, a name that must be free (EEXIST otherwise).

    Raises OSError; its errno is in UNSUPPORTED where the file system cannot.
    """
    _renameat2(old, new, at, RENAME_NOREPLACE)


def _renameat2(old: str, new: str, at: int, flags: int) -> None:
    done = _libc.renameat2(at, os.fsencode(old), at, os.fsencode(new), ctypes.c_uint(flags))
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old, None, new)


def punch(descriptor: int, at: int, length: int) -> None:
    """Gives back the room of `length` bytes at `at` of an open file, which are zeros from then on.

    Where the file system cannot do that nothing happens.
    """
    _libc.fallocate(descriptor, _PUNCH_HOLE, ctypes.c_long(at), ctypes.c_long(length))


def lock(descriptor: int) -> bool | None:
    """Locks an open file against other descriptors of it, on other hosts too, until it is closed.

    The file must be open for writing. True if it is locked now, False if somebody else has, None where
    the file system knows no locks; it never waits. Raises OSError.
    """
    try:
        fcntl.fcntl(descriptor, _F_OFD_SETLK, _WHOLE_FILE)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, says fcntl(2)
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None
    return True


def refresh(name: str, at: int) -> None:
    """Makes the next look at `name` show what another host has put there.

    Clients of shared file systems believe for a second or longer what a name was. Three calls that have
    no effect make them ask again, each where others do not: the beginning of a listing (NFS, for a name
    that was looked for in vain), a link of a directory, refused after its target was looked up
    (JuiceFS, NFS), and an attribute that no file has (Gluster). In this order: a listing of Gluster may
    bring back the file that was replaced, and the attribute finds that it is no more.
    """
    with suppress(OSError), reopened(at) as own, os.scandir(own) as entries:
        next(entries, None)
    with suppress(OSError):
        os.link(".", name, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
    with suppress(OSError):
        os.getxattr(f"/proc/self/fd/{at}/{name}", "user.stepfs", follow_symlinks=False)


def write_new(
    name: str, data: bytes, at: int, mode: int, owner: tuple[int, int] | None, sync: bool
) -> os.stat_result:
    """Makes the file `name` with exactly `mode`, and returns its status.

    `owner` is a user and a group id, given where the process may give them. With `sync` the
    contents are on disk on return (the name is not). Nothing is left on failure. Raises OSError,
    EEXIST if the name is taken.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=at)
    try:
        give(descriptor, owner)
        os.fchmod(descriptor, mode)
        write_all(descriptor, data)
        if sync:
            os.fsync(descriptor)
        return os.fstat(descriptor)
    except BaseException:
        os.unlink(name, dir_fd=at)
        raise
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of `data`, however many calls that takes. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def give(descriptor: int, owner: tuple[int, int] | None) -> None:
    """Gives the open file to `owner` (user and group id) where the process may."""
    if owner is None:
        return
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != owner:
        with suppress(PermissionError):
            os.fchown(descriptor, *owner)


def sync_filesystem(fd: int) -> None:
    """Writes all of the file system that `fd` is on to disk, as syncfs(2). Raises OSError."""
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
