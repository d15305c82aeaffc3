"""The lock that serialises changes to a meta between mounts, also on different hosts (G9).

It is taken on a hidden file that only users with write access to the session can open; a lock on the
directory itself could be held by anybody who may read it.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from storage import posix as files
from storage.capabilities import is_near
from storage.errors import StoreError

LOCK = ".meta.lock"
"""The file on which the lock is taken."""
PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS = 0.001
_PAUSE_MAX_SECONDS = 0.05
_RACES_MAX = 8
"""Give up after the lock file was replaced this many times before it could be locked."""


@contextmanager
def locked(directory: int, seconds: float) -> Iterator[None]:
    """Hold the lock within the block, waiting up to `seconds` for it.

    On a near store the lock file exists only while somebody holds it. On a far one it stays: what a
    client caches about a name that comes and goes can be wrong. Raises `StoreError` EBUSY if the
    lock is not free in time, and `OSError`.
    """
    lock = _taken(directory, seconds)
    try:
        yield
    finally:
        if is_near(directory):
            with suppress(FileNotFoundError):
                os.unlink(LOCK, dir_fd=directory)
        os.close(lock)


def _taken(directory: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    pause = _PAUSE_SECONDS
    while True:
        lock = _taken_at_once(directory)
        if lock is not None:
            return lock
        if time.monotonic() >= deadline:
            sentence = "another program has kept the session locked for too long"
            raise StoreError(errno.EBUSY, "busy", sentence)
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, _PAUSE_MAX_SECONDS)


def _taken_at_once(directory: int) -> int | None:
    """Try to lock the lock file; its descriptor, or None if somebody else holds the lock.

    The previous holder unlinks the file, so by the time we have locked it the name may refer to
    another file. Then we lock that one instead.
    """
    for _ in range(_RACES_MAX):
        lock = _lock_file(directory)
        if lock is None:
            continue
        try:
            if files.lock(lock) is False:
                return None
            if _is_named(lock, directory):
                lock, mine = -1, lock
                return mine
        finally:
            if lock >= 0:
                os.close(lock)
    return None


def _is_named(lock: int, directory: int) -> bool:
    try:
        files.refresh(LOCK, directory)
        return files.is_same(LOCK, directory, lock)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return False


def _lock_file(directory: int) -> int | None:
    """Open the lock file, creating it if it is missing; None if that must be retried.

    Everybody who may create files in the directory may open it.
    """
    status = os.fstat(directory)
    writers = status.st_mode & 0o222
    mode, owner = 0o600 | writers | writers << 1, (status.st_uid, status.st_gid)
    with suppress(FileExistsError):
        files.write_new(LOCK, b"", directory, mode, owner, False)
    try:
        return os.open(LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except PermissionError:
        if not os.access(".", os.W_OK, dir_fd=directory, effective_ids=True):
            raise
        return None  # its creator has not set its mode yet
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return None
