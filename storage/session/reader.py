"""Reads one session's steps: prefetched on a far store, in short passes on the loop on a near one.

Long steps are left to worker processes. A brief reader gives up before it would hold up the loop, and
a thread makes the pass instead (G23).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from functools import partial
from time import monotonic
from types import MappingProxyType
from typing import Final, Protocol

from storage.ahead import ahead
from storage.capabilities import is_near
from storage.formats.kinds import NotAStep, Step, classify
from storage.posix import status
from storage.session.steps import STEP_BYTES_MAX, LongStep, read_step

LONG_BYTES: Final = 256 << 10
"""A step longer than this is long, and is not parsed where that would hold the GIL for others."""
LOOP_BYTES: Final = 64 << 10
"""At most this many bytes of steps are judged and rendered on the loop in one pass."""
LOOP_SECONDS: Final = 0.002
"""Time limit of a pass on the loop: steps that wait for the disk or render slowly need a thread."""
TOO_LONG: Final = f"it is longer than {STEP_BYTES_MAX >> 20} MiB"
IRREGULAR: Final = "it is not a regular file"
NOT_REGULAR: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV})
NO_STEP: Final = NOT_REGULAR | {errno.EFBIG}
"""Errors on reading a file that cannot be a step, whatever it holds."""

Show = Callable[[Step, int, str], bytes | None]
"""Renders a step for a view: its line, or None to show nothing. The arguments are the step, the
session's descriptor and the name of the step's file."""
Met = tuple[Step, bytes | None]
"""A step and its line."""
Skipped = list[tuple[str, str]]
"""Names of files that are not steps, each with a sentence that says why."""
Read = Callable[[str], bytes]
"""Reads the step file of a name."""


class LongSteps(Protocol):
    """Reads long steps in other processes: `storage.documents.pool.Documents`."""

    def meet(self, session_fd: int, name: str, flags: int, show: Show) -> Met:
        """As `Documents.meet`."""


class Reader:
    """Reads steps of one session, without touching their access times if the process may do so (G4).

    Long steps are read by `documents` if that is given, else here.
    """

    def __init__(self, session_fd: int, documents: LongSteps | None = None) -> None:
        self.fd = session_fd
        self._flags = os.O_NOATIME
        self._near: bool | None = None
        self._documents = documents
        self._most = STEP_BYTES_MAX if documents is None else LONG_BYTES
        self._known: Mapping[str, Step] = MappingProxyType({})
        """Steps by name that need not be read."""
        self.judged: dict[str, Step] = {}
        """The steps that were read, by name, if `_notes`."""
        self._notes = False
        """Whether steps that were read are kept in `judged`."""
        self._time_ns: int | None = None
        """Steps stored after this time, in nanoseconds since 1970, count as missing."""

    def ahead(self, names: Iterable[str]) -> Read:
        """A function that reads these names in this order, for `meet`; some may be skipped.

        On a far store many are prefetched at a time.
        """
        read = partial(self.read, most=self._most)
        if self._near is None:
            self._near = is_near(self.fd)
        if self._near:
            return read
        coming = ahead(read, names)

        def take(name: str) -> bytes:
            return next(outcome for expected, outcome in coming if expected == name).get()

        return take

    def as_of(self, time_ns: int) -> Reader:
        """A reader to which steps stored after `time_ns` (nanoseconds since 1970) are missing (G30).

        A step's time is its file's mtime, the only time that every step has: the daemon, mounts and
        forks leave it at the moment of storing, and copies made by `cp -p`, `tar` and `rsync -a` keep
        it. The times in events and compactions are only claimed by their writers, and entries have
        none.
        """
        reader = copy(self)
        reader._time_ns = time_ns
        return reader

    def read(self, name: str, most: int = STEP_BYTES_MAX) -> bytes:
        """As `read_step`; also raises `FileNotFoundError` for a step stored after `as_of`'s time."""
        if self._time_ns is not None:
            found = status(name, self.fd)
            if found.st_mtime_ns > self._time_ns:
                raise FileNotFoundError(errno.ENOENT, "stored later", name)
        try:
            return read_step(name, self.fd, self._flags, most)
        except PermissionError:
            if not self._flags:
                raise
            self._flags = 0
            return read_step(name, self.fd, most=most)

    def meet(self, read: Read, name: str, show: Show, skipped: Skipped) -> Met | None:
        """Read step `name` with `read` (see `ahead`), and render it with `show`.

        Returns None if the file has gone or is not a step; the latter is added to `skipped`. `show` is
        a module-level function, so that it can be sent to a worker process. A long step that a worker
        has read comes with a shortened value and no data. Raises `LongStep`, `StoreError` as
        `Documents.meet` does, and `OSError` as `read_step` does.
        """
        try:
            return self._met(read, name, show)
        except NotAStep as error:
            skipped.append((name, error.sentence))
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in NO_STEP:
                raise
            skipped.append((name, TOO_LONG if error.errno == errno.EFBIG else IRREGULAR))
        return None

    def _met(self, read: Read, name: str, show: Show) -> Met:
        step = self._known.get(name)
        if step is None:
            try:
                step = classify(read(name))
            except LongStep:
                if self._documents is None:
                    raise
                return self._documents.meet(self.fd, name, self._flags, show)
            if self._notes:
                self.judged[name] = step
        return step, show(step, self.fd, name)

    def brief(self, known: Mapping[str, Step]) -> BriefReader:
        """A reader for one pass on the loop, on a near store; it does not read `known` steps again."""
        return BriefReader(self, known if self._time_ns is None else {})

    def undocumented(self, known: Mapping[str, Step], *, noting: bool = False) -> Reader:
        """A reader for passes in threads of the server: it raises `LongStep` for a long step.

        With `noting` it keeps the steps it has read in `judged`.
        """
        reader = copy(self)
        reader._documents, reader._notes, reader.judged = None, noting, {}
        reader._known = known if self._time_ns is None else {}
        return reader


class Spent(Exception):  # noqa: N818 - it says what became of the reader
    """A pass on the loop has reached its limit: a thread has to make it."""


class BriefReader(Reader):
    """Reads and judges up to `LOOP_BYTES` within `LOOP_SECONDS`, then raises `Spent`."""

    def __init__(self, reader: Reader, known: Mapping[str, Step]) -> None:
        super().__init__(reader.fd)
        self._flags, self._near, self._known = reader._flags, True, known
        self._time_ns = reader._time_ns
        self._left = LOOP_BYTES
        self._end = monotonic() + LOOP_SECONDS

    def read(self, name: str, most: int = STEP_BYTES_MAX) -> bytes:
        """As `Reader.read`."""
        try:
            data = super().read(name, min(most, self._left))
        except LongStep:
            raise Spent from None
        self._left -= len(data)
        return data

    def _met(self, read: Read, name: str, show: Show) -> Met:
        if self._left <= 0 or monotonic() > self._end:
            raise Spent
        step = self._known.get(name)
        if step is None:
            step = self.judged[name] = classify(read(name))
        else:
            self._left -= len(step.data)
        return step, show(step, self.fd, name)
