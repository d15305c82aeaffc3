"""Updates the count and the time in sessions' metas after steps were stored (G9).

Each session's meta is written independently, in a thread of its share. Its lock is tried, not waited
for: if somebody holds it, no other session is delayed. Only at the end of the mount, after all others,
are held ones waited for a little. Where there is no room for a meta, its count waits until there is.
"""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from fusefs.failures import KERNEL, Failures
from fusefs.session.pool import Pool
from fusefs.session.session import Session
from fusefs.work import Work
from storage.errors import FULL, StoreError, from_os_error
from storage.session import meta, meta_update
from storage.times import now

DEBOUNCE_SECONDS: Final = 0.25
"""The meta is written once nothing was stored for this long."""
LATEST_SECONDS: Final = 0.8
"""Longest delay after the first store, so that the meta is written within a second."""
RETRY_SECONDS: Final = 0.5
"""Pause before trying a lock again that another program holds."""
FULL_SECONDS: Final = 1.0
"""Pause before trying again where there was no room. It grows with the time that the count has waited:
the disk may stay full for days."""
FULL_MAX_SECONDS: Final = 10.0
WAITING_SESSIONS: Final = 64
"""Limit of sessions that wait for room, since each is kept open: the counts of more are given up."""
LAST_SECONDS: Final = 1.0
"""How long the last try waits for a lock: another mount holds one for some milliseconds."""
FINISH_SECONDS: Final = 3.0
"""Deadline for all metas together at the end of the mount."""


@dataclass(slots=True)
class _Pending:
    """What is still to be written to one meta; times are trio's."""

    first: float
    """When the first of the steps to be counted was stored."""
    due: float
    """When it is to be written."""
    entries: int = 0
    """Messages to add to the count."""
    reset: bool = False
    """Whether they follow a compaction, which resets the count."""
    told: frozenset[int] = frozenset()
    """The errnos that were reported for what waits until there is room."""

    def then(self, later: _Pending) -> _Pending:
        """Both together, `later` after this."""
        entries = later.entries if later.reset else self.entries + later.entries
        reset, told = self.reset or later.reset, self.told | later.told
        return _Pending(self.first, later.due, entries, reset, told)


class MetaCounter:
    """Gathers counts of what was stored, and writes them to the metas a moment later. Loop-owned."""

    def __init__(self, pool: Pool, work: Work, failures: Failures) -> None:
        self._pool = pool
        self._work = work
        self._failures = failures
        self._pending: dict[Session, _Pending] = {}
        """What is to be written; each session in it is kept open."""
        self._writing: set[Session] = set()
        """Sessions whose meta is being written."""
        self._waiting: set[Session] = set()
        """Sessions for whose meta there was no room at the last try."""
        self._changed = trio.lowlevel.ParkingLot()
        """Unparked when something was stored or a write has ended."""

    def stored(self, session: Session, entries: int, compacted: bool) -> None:
        """Count `entries` stored in an open session; if `compacted`, after a compaction."""
        first = trio.current_time()
        self._add(session, _Pending(first, first + DEBOUNCE_SECONDS, entries, compacted))

    async def run(self) -> None:
        """Write what is due, until cancelled; sleeps while nothing is."""
        async with trio.open_nursery() as nursery:
            while True:
                due = [p.due for s, p in self._pending.items() if s not in self._writing]
                with trio.move_on_at(min(due, default=float("inf"))):
                    await self._changed.park()
                for session in self._startable(trio.current_time()):
                    nursery.start_soon(self._write, session, None)

    async def finish(self) -> None:
        """Write everything now, within `FINISH_SECONDS` in all; held locks are waited for last."""
        left: set[Session] = set()
        end = time.monotonic() + FINISH_SECONDS
        with trio.move_on_after(FINISH_SECONDS) as limit:
            while self._writing:
                await self._changed.park()
            for until in (None, end):
                async with trio.open_nursery() as nursery:
                    left.update(self._startable(float("inf")))
                    for session in left.copy():
                        nursery.start_soon(self._write_last, session, until, left)
        if limit.cancelled_caught:
            for session in left | self._writing | self._pending.keys():
                sentence = "the meta could not be written in time"
                late = StoreError(errno.ETIMEDOUT, "not-counted", sentence)
                self._report(session, late)

    def _add(self, session: Session, new: _Pending) -> None:
        """Add `new` to what is pending, which keeps the session open."""
        before = self._pending.get(session)
        if before is None:
            self._pool.keep(session)
            self._pending[session] = new
            self._changed.unpark_all()
            return
        # Never due earlier than before, so `run` need not be woken for every step.
        new = before.then(new)
        new.due = max(before.due, min(new.due, new.first + LATEST_SECONDS))
        self._pending[session] = new

    def _startable(self, until: float) -> list[Session]:
        found = [s for s, p in self._pending.items() if p.due <= until and s not in self._writing]
        self._writing.update(found)
        return found

    async def _write(self, session: Session, until: float | None, last: bool = False) -> None:
        """Write what is pending. If the lock is held, later; or if `until` is given, wait for it a
        little, up to that time of `time.monotonic`. If there is no room, later, unless it is the `last`
        try."""
        pending = self._pending.pop(session)
        change = meta.count_delta(pending.entries, now(), reset=pending.reset)
        work = partial(_count, session.fd, change, until)
        try:
            if not session.gone:
                await self._work.long(session.slug, work)
        except StoreError as error:
            if error.errno == errno.EBUSY and until is None:
                self._again(session, pending, RETRY_SECONDS)
            else:
                self._report(session, error)
        except OSError as error:
            if error.errno in FULL and self._may_wait(session) and not last:
                self._when_there_is_room(session, pending, error)
            elif not session.gone:
                self._report(session, from_os_error(error, "write the meta"))
        finally:
            if session not in self._pending:
                self._waiting.discard(session)
            self._writing.discard(session)
            self._changed.unpark_all()
            self._pool.release(session)

    async def _write_last(self, session: Session, until: float | None, left: set[Session]) -> None:
        await self._write(session, until, last=True)
        left.discard(session)

    def _may_wait(self, session: Session) -> bool:
        if session.gone:
            return False
        return session in self._waiting or len(self._waiting) < WAITING_SESSIONS

    def _when_there_is_room(self, session: Session, pending: _Pending, error: OSError) -> None:
        """Retry what found no room, which is reported once per errno until it is written."""
        self._waiting.add(session)
        if error.errno not in pending.told:
            self._report(session, from_os_error(error, "write the meta yet"))
            pending.told |= {error.errno or 0}
        waited = trio.current_time() - pending.first
        self._again(session, pending, min(max(FULL_SECONDS, waited), FULL_MAX_SECONDS))

    def _again(self, session: Session, pending: _Pending, pause: float) -> None:
        """Retry after a pause, together with what was stored since."""
        later = self._pending.get(session)
        if later is None:
            self._pool.keep(session)
        else:
            pending = pending.then(later)
        pending.due = trio.current_time() + pause
        self._pending[session] = pending

    def _report(self, session: Session, error: StoreError) -> None:
        self._failures.record(session.slug, "meta.json", "count", error, KERNEL)


def _count(session_fd: int, change: meta.Change, until: float | None) -> meta.Meta:
    left = 0.0 if until is None else min(LAST_SECONDS, max(0.0, until - time.monotonic()))
    return meta_update.update(session_fd, change, sync=False, patience_seconds=left)
