"""Marks a session as deleted, for hosts that still have its name cached (G20, G25)."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

from storage.posix import exists
from storage.session import meta

TOMBSTONE: Final = ".deleted"
"""A file of this name in a session's directory says that the session is being removed."""


def is_deleted(session_fd: int) -> bool:
    """Whether a session that is held open was deleted, possibly on another host (G20, G25).

    The tombstone shows it while the session is being removed, the missing meta afterwards: a client
    may have a stale view of one of them, but not of both. Raises `OSError`.
    """
    try:
        return exists(TOMBSTONE, session_fd) or not exists(meta.NAME, session_fd, kept=True)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return True


def bury(session_fd: int) -> None:
    """Mark a directory that was renamed away as deleted, for those who hold it open."""
    with suppress(OSError):
        flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(TOMBSTONE, flags, 0o644, dir_fd=session_fd))
    with suppress(OSError):
        os.unlink(meta.NAME, dir_fd=session_fd)
