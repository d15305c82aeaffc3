"""The one error that the store and the mount raise on purpose."""

from __future__ import annotations

import errno as errnos
import os
from collections.abc import Iterator
from contextlib import contextmanager

FULL = frozenset({errnos.ENOSPC, errnos.EDQUOT})
"""What a system call that needs room fails with, until somebody makes some."""


class StoreError(Exception):
    """An operation was refused or failed, for a reason that a person can act on (G19).

    `errno` is what a file system would answer, `code` one word for programs (such as
    `"not-json"`), `sentence` one plain sentence that says what was wrong and what would be right.
    """

    def __init__(self, errno: int, code: str, sentence: str) -> None:
        super().__init__(errno, code, sentence)  # which is what a pickle of it is made of
        self.errno = errno
        self.code = code
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence

    @property
    def errno_name(self) -> str:
        """The errno as a word, such as `"EINVAL"`."""
        return errnos.errorcode.get(self.errno, str(self.errno))


def from_os_error(error: OSError, doing: str) -> StoreError:
    """The `StoreError` for a failed system call, its errno kept (G19).

    `doing` completes "could not …", such as `"store step-000012"`. What a shared file system calls
    stale was deleted on another host, and is ENOENT (G20).
    """
    number = error.errno or errnos.EIO
    if number == errnos.ESTALE:
        number = errnos.ENOENT
    return StoreError(number, "os-error", f"could not {doing}: {os.strerror(number)}")


@contextmanager
def doing(what: str) -> Iterator[None]:
    """A context that turns failed system calls into `StoreError`s, as `from_os_error` does."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, what) from error


def printable(name: str | bytes) -> str:
    """`name` as text that any log or JSON document can hold; bytes outside UTF-8 are escaped."""
    raw = os.fsencode(name) if isinstance(name, str) else name
    return raw.decode("utf-8", "backslashreplace")
