"""What is known of one session: its steps, kept up to date by what happens in its directory.

Concurrency. All state here and in `fusefs.session.session` belongs to the loop. Between two awaits
a task owns it; what may change across an await is said by `disturbed`, the numbers of steps touched
meanwhile. `lock` orders the tasks that bring things up to date, `writing` those that store steps.
Threads run only the passes of `storage.session.replay` and `storage.session.index.scan`, which are
given copies and touch nothing shared.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import trio

from fusefs.inotify import Change
from fusefs.session.lock import Turn
from fusefs.session.recent_steps import Lately
from storage.errors import StoreError, from_os_error, printable
from storage.posix import is_regular
from storage.session.index import Index, scan
from storage.session.meta import NAME as META
from storage.session.replay import PASS_STEPS, Boundary, Pass, Reader, Show
from storage.session.steps import Claimer, step_name, step_number

INLINE_STEPS: Final = 16
"""Passes of at most so many steps are not worth a thread."""
INLINE_DIRECTORY: Final = 1 << 14
"""Directories of at most so many bytes are listed at once."""
STAT_LAG: Final = 1.0
"""Seconds that a stat may be behind where no events tell of changes (G12)."""

log: Final = logging.getLogger(__name__)
replays: Final = trio.CapacityLimiter(2)
T = TypeVar("T")


class KnownSession:
    """What is known of a session's directory."""

    def __init__(self, slug: str, fd: int, watch: int | None, local: bool) -> None:
        self.slug = slug
        self.fd = fd
        self.watch = watch
        found = os.fstat(fd)
        self.identity = (found.st_dev, found.st_ino)
        self.reader = Reader(fd)
        self.claimer = Claimer(fd, unnamed=local)
        self.index = Index()
        self.boundary: Boundary | None = None
        """Where the history begins; None while that is not known."""
        self.lately = Lately()
        self.dead = False
        self.closed = False
        self.weighed = 0
        """The steps that `fusefs.session.pool` counts for it."""
        self.users = 0
        """Open files and operations that need it kept."""
        self.lock = Turn()
        self.writing = Turn()
        self.verified = False
        """It is the session of its name, and nothing has happened since that could change that."""
        self.on_unused: Callable[[], None] = lambda: None
        self.on_displaced: Callable[[], None] = lambda: None
        self.look: Callable[[], None] = lambda: None
        """Takes in what happened in the store, by calling `changed` and `overflowed`."""
        self._disturbed: set[int] = set()
        self._listed_at = 0.0
        self._stale = True
        self._losses = 0
        self._backlog: list[Change] | None = None
        self._warned: set[str] = set()

    def leave(self) -> None:
        """One user fewer: of a deleted session the last one closes it."""
        self.users -= 1
        if self.dead and self.users == 0:
            self.on_unused()

    def changed(self, change: Change) -> None:
        """Take in what happened in the session's directory."""
        if change.gone or change.name == META:
            self.verified = False
        if self._backlog is not None:
            self._backlog.append(change)
        else:
            self._take(change)

    def overflowed(self) -> None:
        """Changes were missed: list again, and compare every view, before anything is shown."""
        self._stale, self.verified = True, False
        self._losses += 1

    def _take(self, change: Change) -> None:
        if change.gone:
            self.dead = True
            return
        number = step_number(change.name)
        if number is None:
            return
        if change.disappeared:
            self._lost(change.name)
        elif change.appeared:
            self._appeared(change, number)
        elif self.index.has(number):
            self.lately.forget(number)
            self._touched(number)

    def _lost(self, name: str) -> None:
        number = self.index.discard(name)
        if number is not None:
            self.lately.forget(number)
            self._touched(number)

    def _appeared(self, change: Change, number: int) -> None:
        if change.moved_from is None and self.index.knows(change.name, number):
            return  # the CREATE of a step that this mount stored itself
        if not self._may_be_read(change.name):
            self._warn(change.name, "it is no regular file")
            self._lost(change.name)  # the step that it may have replaced is gone
            return
        known = self.index.add(change.name) is None
        if not known:
            self.lately.appeared(number)
        elif self.lately.replaced(number, change.moved_from or ""):
            self.on_displaced()
        self._touched(number)

    def _may_be_read(self, name: str) -> bool:
        try:
            return is_regular(name, self.fd)
        except OSError:
            return True  # reading it will say what is wrong

    def _touched(self, number: int) -> None:
        """A step came, went or changed."""
        self._disturbed.add(number)
        if self.boundary is not None and number == self.boundary.number:
            self.boundary = None

    def _forget_contents(self) -> None:
        """Any step may have changed: what was concluded from their contents is not known any more."""
        self.boundary = None

    def stored(self, number: int) -> None:
        """A step was claimed by this mount."""
        if self.index.add(step_name(number)) is not None:
            self._touched(number)

    async def ready(self) -> None:
        """Know the steps that are in the store now. Raises `StoreError`."""
        if self._stale or self.watch is None:
            async with self.lock:
                try:
                    await self._relist(exact=True)
                except OSError as error:
                    raise from_os_error(error, f"list {printable(self.slug)}") from error

    # --- for those who look ----------------------------------------------------------------------

    async def _relist(self, exact: bool) -> None:
        if not self._stale and self.watch is not None:
            return
        now, losses = time.monotonic(), self._losses
        if not self._stale and not exact and now - self._listed_at < STAT_LAG:
            return
        stamped = self.watch is None
        self._backlog = []
        try:
            size = os.fstat(self.fd)
            if size.st_nlink == 0:
                self.dead = True
            small = size.st_size <= INLINE_DIRECTORY
            new = await self._run(0 if small else PASS_STEPS, partial(scan, self.fd, stamped))
        finally:
            backlog, self._backlog = self._backlog or [], None
        for name, sentence in new.strange:
            self._warn(name, sentence)
        self._compare_listing(self.index, new)
        self.index, self._listed_at, self._stale = new, now, self._losses != losses
        for change in backlog:
            self._take(change)

    def _compare_listing(self, old: Index, new: Index) -> None:
        if old.stamps is not None and new.stamps is not None:
            different = old.stamps.items() ^ new.stamps.items()
            numbers = {step_number(name) for name, _ in different}
        else:
            self._forget_contents()
            numbers = set()
        self.index = new
        for number in numbers:
            if number is not None:
                self._touched(number)
        if self.lately.unsure(self.reader):
            self.on_displaced()

    async def _pass(
        self, direction: Callable[..., Pass], numbers: Sequence[int], show: Show
    ) -> Pass:
        work = partial(direction, self.reader, numbers, dict(self.index.odd), show)
        found = await self._run(len(numbers), work)
        self.look()
        for name, sentence in found.skipped:
            self._warn(name, sentence)
        return found

    async def _run(self, steps: int, work: Callable[[], T]) -> T:
        if steps <= INLINE_STEPS:
            return work()
        return await trio.to_thread.run_sync(work, limiter=replays)

    def _touches(self, first: int, last: int) -> bool:
        return any(first <= number <= last for number in self._disturbed)

    def _warn(self, name: str, sentence: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            log.warning("%s/%s is skipped: %s", printable(self.slug), printable(name), sentence)


def session_deleted(slug: str) -> StoreError:
    """What whoever still has a session is told when it was deleted underneath (G20)."""
    sentence = f"the session {printable(slug)} was deleted"
    return StoreError(errno.ENOENT, "session-deleted", sentence)
