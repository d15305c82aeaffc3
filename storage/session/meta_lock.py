"""The lock under which mounts change a meta one after the other, on several hosts too (G9).

A hidden file carries it that only those can open who may write the session: a directory can be locked by
whoever may read it.
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
"""The file that carries the lock."""
PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS = 0.001
_PAUSE_MAX_SECONDS = 0.05
_RACES_MAX = 8
"""How often the lock's file may be another by the time that it is locked."""


@contextmanager
def locked(directory: int, seconds: float) -> Iterator[None]:
    """Hold the lock while the block lasts. Raises StoreError EBUSY after so many seconds, and OSError.

    On a near store the file that carries it is there only while somebody holds it. On a far one it
    stays: what a client believes of a name that comes and goes can be wrong.
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
    """The locked file, open, if nobody has it; it is the one of its name.

    Whoever had it unlinks it, so the file may be another by the time that it is locked. Then nobody
    holds it, and it is tried again.
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
    """The lock's file, made if it is not there, for whoever may make files in the directory."""
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
        return None  # it has not been given its mode yet
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return None
