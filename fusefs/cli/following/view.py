"""A view of a mount, read line by line with the numbers of the steps behind the lines.

A file of the mount only ever grows (G13), so new text is what follows the last text. The numbers of the
steps behind the lines from line LINE on are told by the link `.stepfs/steps/INODE.LINE`.
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
        """Opens it below the directory `session`. Raises OSError."""
        self._session = session
        self.fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=session)
        self.inode = os.fstat(self.fd).st_ino
        self.shown = Shown()
        self._offset = 0
        self._complete: deque[bytes] = deque()
        """Lines that were read and not told yet."""
        self._rest = b""

    def close(self) -> None:
        """Closes the file."""
        os.close(self.fd)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The complete lines that were not told yet, up to the present end, with their numbers."""
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
            # Under many writes the kernel may end a read at a size that it knows to be old.
            if not chunk and os.fstat(self.fd).st_size <= self._offset:
                return
            *complete, self._rest = (self._rest + chunk).split(b"\n")
            self._complete.extend(complete)
            self._offset += len(chunk)

    def know_all_numbers(self) -> None:
        """Ask for the numbers behind all lines there are."""
        while self.know_more_numbers():
            pass

    def know_more_numbers(self) -> bool:
        """Ask for the numbers behind the lines after the last one that is known; False if none."""
        known = self.shown.numbers
        before = len(known)
        asked = f"{STEPS}/{self.inode}.{before}"
        known.extend(numbers_told(os.readlink(asked, dir_fd=self._session)))
        return len(known) > before
