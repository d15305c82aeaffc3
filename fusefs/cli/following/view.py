"""Reads a view of a mount line by line, with the numbers of the steps behind the lines.

A file of the mount only ever grows (G13), so new text follows the last text. The numbers of the steps
behind the lines from LINE on are in the target of the symlink `.stepfs/steps/INODE.LINE`.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterator
from typing import Final

from fusefs.dotdir.step_ranges import Shown, numbers_told

STEPS: Final = "../.stepfs/steps"
_CHUNK: Final = 1 << 20


class View:
    """An open view."""

    def __init__(self, session: int, name: str) -> None:
        """Open it in the directory `session`. Raises `OSError`."""
        self._session = session
        self.fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=session)
        self.inode = os.fstat(self.fd).st_ino
        self.shown = Shown()
        self._offset = 0
        self._complete: deque[bytes] = deque()
        """Lines that were read and not returned yet."""
        self._rest = b""

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The complete lines not returned yet, up to the present end, with their step numbers."""
        shown = self.shown
        while True:
            while self._complete:
                while len(shown.numbers) <= len(shown.digests):
                    if not self.know_more_numbers():
                        raise OSError(errno.EIO, "the mount does not tell the number of a step")
                line = self._complete.popleft()
                shown.digests.append(hash(line))
                yield shown.numbers[len(shown.digests) - 1], line + b"\n"
            chunk = os.pread(self.fd, _CHUNK, self._offset)
            # During many writes the kernel may end a read at an outdated size.
            if not chunk and os.fstat(self.fd).st_size <= self._offset:
                return
            *complete, self._rest = (self._rest + chunk).split(b"\n")
            self._complete.extend(complete)
            self._offset += len(chunk)

    def know_all_numbers(self) -> None:
        """Read the numbers behind all lines so far."""
        while self.know_more_numbers():
            pass

    def know_more_numbers(self) -> bool:
        """Read the numbers behind the lines after the last known one; False if there are none."""
        known = self.shown.numbers
        before = len(known)
        asked = f"{STEPS}/{self.inode}.{before}"
        known.extend(numbers_told(os.readlink(asked, dir_fd=self._session)))
        return len(known) > before
