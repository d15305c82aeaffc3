"""A spool: an unlinked file that keeps text out of memory and out of the store."""

from __future__ import annotations

import os
import tempfile
import threading
from typing import Final

from storage.posix import punch

SMALL_BYTES: Final = 1 << 20
"""A file larger than this is closed in a thread, since freeing its blocks takes long."""

WRITTEN_BYTES: Final = 256 << 10
"""Limit of bytes per write(2): a longer one would occupy a core for too long."""


class Spool:
    """Keeps text in a file that nobody else can open, and that is made when it is first written.

    `write` and `read` may run in threads, one `write` at a time; a context of the spool keeps the file
    until they are done. Making the spool itself takes no system call, so it has its owner at once.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        self.size = 0
        self._users = 0
        self._closed = False

    def write(self, text: bytes) -> int:
        """Append `text`, and return its offset. Raises `OSError`, such as ENOSPC."""
        at = self.size
        self.put(at, text)
        return at

    def put(self, at: int, text: bytes) -> None:
        """Write `text` at offset `at`, which is unused. Raises `OSError`, such as ENOSPC."""
        if self._fd is None:
            self._fd = _unnamed_file()
        view, end = memoryview(text), at
        while view:
            written = os.pwrite(self._fd, view[:WRITTEN_BYTES], end)
            view, end = view[written:], end + written
            self.size = max(self.size, end)

    def punch(self, at: int, length: int) -> None:
        """Free the disk space of `length` bytes at `at`, if the file system can do that."""
        if self._fd is not None:
            punch(self._fd, at, length)

    def read(self, at: int, length: int) -> bytes:
        """Read `length` bytes at offset `at`, or as many as there are. Raises `OSError`."""
        return b"" if self._fd is None else os.pread(self._fd, length, at)

    def __enter__(self) -> Spool:
        """Keep its file open within the context, for use in a thread."""
        self._users += 1
        return self

    def __exit__(self, *_error: object) -> None:
        self._users -= 1
        if self._closed and self._users == 0:
            self._close()

    def close(self) -> None:
        """Close its file, as soon as no thread uses it."""
        self._closed = True
        if self._users == 0:
            self._close()

    def _close(self) -> None:
        if self._fd is None:
            return
        if self.size <= SMALL_BYTES:
            os.close(self._fd)
        else:
            threading.Thread(target=os.close, args=(self._fd,), daemon=True).start()


def _unnamed_file() -> int:
    fd, path = tempfile.mkstemp(prefix="stepfs-", dir=_directory())
    os.unlink(path)
    return fd


def _directory() -> str | None:
    # /tmp is often a tmpfs, and the spool is there to save memory.
    return None if "TMPDIR" in os.environ or not os.access("/var/tmp", os.W_OK) else "/var/tmp"
