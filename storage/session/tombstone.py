"""Marking a session as deleted, for hosts that still believe in its name (G20, G25)."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import partial
from typing import Final

from storage.ahead import start
from storage.posix import exists
from storage.session import meta

TOMBSTONE: Final = ".deleted"
"""In a session's directory: it was deleted and is being removed."""


def is_deleted(session_fd: int) -> bool:
    """Whether a session that is held open was deleted, on another host too (G20, G25).

    Its tombstone says so while it is being removed, and the missing meta after that: whatever of
    the two a client may still believe, it does not believe both.
    """
    known = start(partial(exists, meta.NAME, session_fd, kept=True))
    try:
        return exists(TOMBSTONE, session_fd) or not known.get()  # here what no client remembers
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return True


def bury(session_fd: int) -> None:
    """Mark a directory that has lost its name as no session any more, for who holds it open."""
    with suppress(OSError):
        flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(TOMBSTONE, flags, 0o644, dir_fd=session_fd))
    with suppress(OSError):
        os.unlink(meta.NAME, dir_fd=session_fd)
