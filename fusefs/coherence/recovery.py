"""Recovery: displaced steps are stored again as soon as they are noticed, without a reader (G16).

Sessions with such work are taken from the event queue. What remains to be done is state of the session
(`RecentSteps.owed`), never only of a task: failures are retried after a pause, and nothing is forgotten
when a task ends. Steps that cannot be restored, or not yet, are reported in errors.jsonl with their
numbers.
"""

from __future__ import annotations

import errno
import logging
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

import trio

from fusefs.coherence.events import EventQueue
from fusefs.failures import KERNEL, Failures
from fusefs.session.pool import Pool
from fusefs.session.restorer import (
    QUIET_SECONDS,
    QUIET_UNWATCHED_SECONDS,
    Restored,
    Restorer,
)
from fusefs.session.session import Session
from fusefs.session.writer import Writer
from storage.errors import StoreError, printable

WORKERS: Final = 4
"""Sessions recovered in parallel."""
RETRY_SECONDS: Final = 1.0
"""Pause before displaced steps that could not be stored again are retried."""
FINISH_SECONDS: Final = 6.0
"""Deadline for recovery at the end of a mount."""
FINISH_RETRY_SECONDS: Final = 0.5
FINISH_ATTEMPTS: Final = 4
"""Failed attempts at the end before recovery gives up."""
LET_GO_STEPS: Final = 1024
"""Steps of a deleted session forgotten at a time."""
TOLD_RUNS: Final = 8
"""Runs of consecutive numbers named in one line of errors.jsonl."""

log: Final = logging.getLogger(__name__)


class Recovery:
    """Takes sessions with displaced steps from the event queue and restores them. Loop-owned."""

    def __init__(
        self,
        events: EventQueue,
        pool: Pool,
        writer: Writer,
        restorer: Restorer,
        failures: Failures,
    ) -> None:
        self._events = events
        self._pool = pool
        self._writer = writer
        self._restorer = restorer
        self._failures = failures
        self._busy: set[Session] = set()
        self._failed: dict[Session, int] = {}
        """Sessions with steps that could not be stored again, and the errno that was reported."""
        self._waiting: set[Session] = set()
        """Sessions that are retried after a pause."""

    async def run(self) -> None:
        """Recover until cancelled; sleeps while nothing happens."""
        self._busy.clear()
        self._waiting.clear()
        for session in self._pool.remembering:  # what was noted before, or when this failed
            self._events.mark(session)
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._work, nursery)

    async def finish(self) -> None:
        """At the end of the mount, within `FINISH_SECONDS`: examine everything once more and store
        displaced steps again, with up to `FINISH_ATTEMPTS` failures. What is left is reported."""
        self._events.drain()
        for session in self._pool.remembering:
            if session.watch is None:
                session.recent.doubt()
        with trio.move_on_after(FINISH_SECONDS):
            attempts = 0
            while attempts < FINISH_ATTEMPTS and (owing := self._owing()):
                failed = False
                for session in owing:
                    failed |= await self._recover(session) == RETRY_SECONDS
                attempts += failed
                await trio.sleep(FINISH_RETRY_SECONDS if failed else QUIET_SECONDS / 4)
        for session in self._owing():
            left = session.recent.displaced_numbers()
            if left:
                self._lost(session, left, "the mount ended before they could be stored again")

    def _owing(self) -> list[Session]:
        return [session for session in self._pool.remembering if session.recent.owed]

    async def _work(self, nursery: trio.Nursery) -> None:
        while True:
            session = await self._events.displaced.take()
            if session in self._busy or self._is_to_wait(session):
                continue
            self._busy.add(session)
            try:
                pause = await self._recover(session)
            except Exception:
                log.exception("%s could not be recovered", printable(session.slug))
                pause = RETRY_SECONDS
            finally:
                self._busy.discard(session)
            if not session.recent.owed:
                continue
            if pause == 0:
                self._events.mark(session)
            elif session not in self._waiting:
                self._waiting.add(session)
                nursery.start_soon(self._later, session, pause)

    def _is_to_wait(self, session: Session) -> bool:
        if session not in self._waiting:
            return False
        return session in self._failed or not session.recent.doubtful

    async def _later(self, session: Session, pause: float) -> None:
        await trio.sleep(pause)
        self._waiting.discard(session)
        self._events.mark(session)

    async def _recover(self, session: Session) -> float:
        """Restore what can be restored now; the pause before the rest is tried, if there is any."""
        session.recent.let_go(LET_GO_STEPS)
        if not session.recent.owed:
            return 0
        try:
            async with self._pool.lease(session):
                done = await self._restorer.restore(session)
                if done.stored:
                    await self._writer.sync(session)
        except StoreError as error:
            done = Restored(error=error)
        for archive in done.archives:
            self._lost_compaction(session, archive)
        if done.lost:
            self._lost(session, done.lost, "there was no room to keep their texts")
        if session.gone:
            self._failed.pop(session, None)
            session.recent.clear()
            return 0
        return self._pause(session, done.error)

    def _pause(self, session: Session, error: StoreError | None) -> float:
        """The pause before the rest is tried; reports an `error` that it failed with."""
        recent = session.recent
        if error is not None and recent.owed:
            self._tell(session, error)
            return RETRY_SECONDS
        self._failed.pop(session, None)
        if recent.doubtful:
            return 0
        unwatched = session.watch is None and not recent.displaced
        return QUIET_UNWATCHED_SECONDS if unwatched else QUIET_SECONDS / 4

    def _tell(self, session: Session, error: StoreError) -> None:
        """Report once why displaced steps have to wait."""
        if self._failed.get(session) == error.errno:
            return
        self._failed[session] = error.errno
        numbers = session.recent.displaced_numbers()
        what = f"{_counted(numbers)} another program renamed over" if numbers else "steps"
        sentence = (
            f"{what} could not be stored again yet, and will be tried again: {error.sentence}"
        )
        waits = StoreError(error.errno, "restore-waits", sentence)
        self._failures.record(session.slug, "append", "restore", waits, KERNEL)

    def _lost(self, session: Session, numbers: Iterable[int], why: str) -> None:
        sentence = f"{_counted(numbers)} another program renamed over are lost: {why}"
        lost = StoreError(errno.EIO, "steps-lost", sentence)
        self._failures.record(session.slug, "append", "restore", lost, KERNEL)

    def _lost_compaction(self, session: Session, archive: str) -> None:
        sentence = (
            f"another program replaced the compaction {printable(archive)!r}; it is not stored again,"
            " because it would hide what came after: write the name to compact once more if it counts"
        )
        lost = StoreError(errno.EEXIST, "compaction-displaced", sentence)
        self._failures.record(session.slug, "compact", "restore", lost, KERNEL)


def _counted(numbers: Iterable[int]) -> str:
    """`3 steps (4 to 5, 9) that`, with a bounded number of runs."""
    ascending = sorted(numbers)
    runs: list[str] = []
    first = 0
    while first < len(ascending) and len(runs) < TOLD_RUNS:
        start = ascending[first]
        places = range(first, len(ascending))
        end = first + bisect_right(
            places, start - first, key=lambda place: ascending[place] - place
        )
        last = ascending[end - 1]
        runs.append(f"{start}" if start == last else f"{start} to {last}")
        first = end
    more = ["…"] if first < len(ascending) else []
    steps = "1 step" if len(ascending) == 1 else f"{len(ascending)} steps"
    return f"{steps} ({', '.join(runs + more)}) that"
