"""The reader of one session's steps: ahead of need on a far store, briefly on the loop of a near one.

What is long it leaves to who reads documents apart. A brief reader gives up where it would hold up the
loop, and a thread goes over the steps instead (G23).
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
from storage.session.steps import STEP_BYTES_MAX, LongStep, read_step

LONG_BYTES: Final = 256 << 10
"""A longer step is long: nobody who keeps the interpreter from others reads it."""
LOOP_BYTES: Final = 64 << 10
"""Bytes of steps that may be judged and rendered on the loop in one go."""
LOOP_SECONDS: Final = 0.002
"""For so long likewise: what waits for the disk, or is slow to show, is for a thread."""
TOO_LONG: Final = f"it is longer than {STEP_BYTES_MAX >> 20} MiB"
IRREGULAR: Final = "it is not a regular file"
NOT_REGULAR: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV})
NO_STEP: Final = NOT_REGULAR | {errno.EFBIG}
"""Errors of reading a file that is no step whatever it holds."""

Show = Callable[[Step, int, str], bytes | None]
"""The line that a view shows for a step, or None if it shows none; the descriptor of the session and
the name of the step's file tell where it is."""
Met = tuple[Step, bytes | None]
"""A step and its line."""
Skipped = list[tuple[str, str]]
"""Names that are no steps, each with a sentence."""
Read = Callable[[str], bytes]


class LongSteps(Protocol):
    """Who reads long steps apart: `storage.documents.pool.Documents`."""

    def meet(self, session_fd: int, name: str, flags: int, show: Show) -> Met:
        """As `Documents.meet`."""


class Reader:
    """Reads steps of one session, leaving their access times alone where the process may (G4).

    A long step is read by `documents`, where there are any, and else here.
    """

    def __init__(self, session_fd: int, documents: LongSteps | None = None) -> None:
        self.fd = session_fd
        self._flags = os.O_NOATIME
        self._near: bool | None = None
        self._documents = documents
        self._most = STEP_BYTES_MAX if documents is None else LONG_BYTES
        self._known: Mapping[str, Step] = MappingProxyType({})
        """Steps by name that need no reading."""
        self.judged: dict[str, Step] = {}
        """What was read, by name, where that is noted."""
        self._notes = False
        self._time_ns: int | None = None
        """Steps that were stored later are not there."""

    def ahead(self, names: Iterable[str]) -> Read:
        """What reads these names, in this order, for `meet`; some may be left out.

        On a far store many are read at a time, before they are asked for.
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
        """A reader for which steps that were stored after a time are not there (G30).

        `time_ns` is in nanoseconds since 1970. A step's time is its file's mtime, the only time that
        every step has: the daemon, mounts and forks leave it at the moment of storing, and copies made
        by `cp -p`, `tar` and `rsync -a` keep it. The times in events and compactions are their writers'
        words, and entries have none.
        """
        reader = copy(self)
        reader._time_ns = time_ns
        return reader

    def read(self, name: str, most: int = STEP_BYTES_MAX) -> bytes:
        """As `read_step`. Raises `FileNotFoundError` too for a step that was stored too late."""
        if self._time_ns is not None:
            found = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
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
        """The step `name`, read by `read` (see `ahead`), and what `show` makes of it.

        None for one that has gone, or that is no step: that is told to `skipped`. `show` is a function
        of a module, which a worker process can be told to call. A long step that documents have read
        has its value cut short, and no data. Raises `LongStep`, `StoreError` as `Documents.meet`, and
        `OSError` as `read_step`.
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
        """A reader for one pass on the loop of a near store; it need not read what is `known`."""
        return BriefReader(self, known if self._time_ns is None else {})

    def undocumented(self, known: Mapping[str, Step], *, noting: bool = False) -> Reader:
        """A reader for passes in threads that may compute: of a long step `LongStep`.

        With `noting` it notes what it has judged.
        """
        reader = copy(self)
        reader._documents, reader._notes, reader.judged = None, noting, {}
        reader._known = known if self._time_ns is None else {}
        return reader


class Spent(Exception):  # noqa: N818 - it says what became of the reader
    """A pass on the loop came to its limit: a thread has to do it."""


class BriefReader(Reader):
    """Reads and judges at most `LOOP_BYTES` for at most `LOOP_SECONDS`, and then raises `Spent`."""

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
