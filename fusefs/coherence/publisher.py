"""Publishing: the kernel's caches, and who waits in poll(2), follow the store (G12, G14).

Dirty sessions are taken one after the other: what the kernel knows of a session is brought up to date,
it is told which attributes and names to ask for again, and steps that a daemon displaced are stored
again (G16). What is owed is state (`_owed`), never only a task: nothing is forgotten when one fails.
"""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass
from typing import Final

import trio

from fusefs.coherence.events import EventQueue
from fusefs.coherence.hints import Hints
from fusefs.failures import KERNEL, Failures
from fusefs.inodes.inode import ROOT_INO
from fusefs.inodes.root import Root
from fusefs.inodes.session_directory import SessionDirectory
from fusefs.kernel import Kernel
from fusefs.session.pool import Pool
from fusefs.session.recent_steps import Relocated
from fusefs.session.refresh import ready
from fusefs.session.session import Session
from fusefs.session.writer import Writer
from storage.errors import StoreError, printable

WORKERS: Final = 4
"""So many sessions are published at a time: a long comparison of one must not hold up the others."""
PACE_SECONDS: Final = 0.003
"""Between two rounds for one session: being told must not slow a fast writer down."""
RETRY_SECONDS: Final = 1.0
"""After so long displaced steps that could not be stored again are tried again."""

log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class _Owed:
    said: str = ""
    """What errors.jsonl was last told of it."""


class Publisher:
    """Takes dirty sessions from the event queue and publishes them. Loop-owned."""

    def __init__(
        self,
        events: EventQueue,
        root: Root,
        pool: Pool,
        writer: Writer,
        kernel: Kernel,
        failures: Failures,
    ) -> None:
        self._events = events
        self._root = root
        self._pool = pool
        self._writer = writer
        self._means = writer.means
        self._kernel = kernel
        self._failures = failures
        self._owed: dict[Session, _Owed] = {}
        """Sessions with displaced steps that could not be stored again yet."""
        self._restoring: set[Session] = set()

    async def run(self) -> None:
        """Publish until cancelled; asleep while nothing happens."""
        for session in self._pool:  # what was noted before, or when this failed
            if session.recent.displaced:
                self._events.mark(session)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._events.run)
            nursery.start_soon(self._follow_root)
            nursery.start_soon(self._look)
            nursery.start_soon(self._retry)
            if self._events.hints is not None:
                nursery.start_soon(self._events.hints.run)
                nursery.start_soon(self._follow_hints, self._events.hints)
            nursery.start_soon(self._follow_displaced, nursery)
            for _ in range(WORKERS):
                nursery.start_soon(self._work, nursery)

    async def finish(self) -> None:
        """Before the end: what a daemon displaced is looked for and stored again, with one try each."""
        self._events.drain()
        for session in self._pool:
            if len(session.recent):
                await self._restore(session)

    def wrote(self, slug: str | None) -> None:
        """The mount itself stored something in a session."""
        directory = self._root.known(slug) if slug is not None else None
        if directory is not None:
            self._events.mark(directory.session)
            if len(directory.session.recent):
                self._events.follow(directory.session)

    async def _work(self, nursery: trio.Nursery) -> None:
        while True:
            session = await self._events.take()
            try:
                await self._publish(session)
            except StoreError as error:
                log.debug("nothing was published of %s: %s", session.slug, error.sentence)
            except Exception:
                log.exception("%s could not be published", printable(session.slug))
            finally:
                nursery.start_soon(self._rest, session)
            # One turn of the loop for all who ask, before the next session.
            await trio.lowlevel.checkpoint()

    async def _rest(self, session: Session) -> None:
        # One that has to be listed for it is published for half of the time at most.
        listing = session.listing_seconds if session.watch is None else 0
        try:
            await trio.sleep(max(PACE_SECONDS, listing))
        finally:
            self._events.back(session)

    async def _publish(self, session: Session) -> None:
        directory = self._root.of.get(session)
        if directory is None:
            return
        directory.recall()
        if session.gone:
            self._gone(directory)
            return
        if directory.lookups:
            self._kernel.attributes_changed(directory.ino)
        if not session.is_open:
            directory.reap()
            return
        async with self._pool.lease(session):
            if len(session.recent):
                await ready(
                    self._means, session, exact=False
                )  # which looks at what a daemon may have displaced
            for file in list(directory.views.values()):
                await file.publish(session)
            session.judged.clear()

    def _gone(self, directory: SessionDirectory) -> None:
        if self._root.known(directory.name) is directory:
            directory.bury()
        else:
            directory.tell()
        if not directory.is_open:
            directory.reap()

    async def _follow_displaced(self, nursery: trio.Nursery) -> None:
        while True:
            session = await self._events.take_displaced()
            if session not in self._owed:
                nursery.start_soon(self._restore, session)

    async def _restore(self, session: Session) -> None:
        """Store again what a daemon displaced; what cannot be stored now is owed."""
        if session in self._restoring:
            return
        self._restoring.add(session)
        try:
            await self._restore_once(session)
        finally:
            self._restoring.discard(session)

    async def _restore_once(self, session: Session) -> None:
        try:
            async with self._pool.lease(session):
                done = await self._writer.restore(session)
        except StoreError as error:
            done = Relocated(error=error)
        for step in done.compactions:
            self._lost_compaction(session.slug, step.archive or "")
        if done.error is None or session.gone:
            self._owed.pop(session, None)
            if session.recent.displaced and not session.gone:
                self._events.mark(session)  # more came meanwhile
            return
        owed = self._owed.setdefault(session, _Owed())
        if owed.said != done.error.sentence:
            owed.said = done.error.sentence
            self._failures.record(session.slug, "append", "restore", done.error, KERNEL)

    async def _retry(self) -> None:
        while True:
            await trio.sleep(RETRY_SECONDS)
            for session in list(self._owed):
                await self._restore(session)

    def _lost_compaction(self, slug: str, archive: str) -> None:
        sentence = (
            f"another program replaced the compaction {printable(archive)!r}; it is not stored again,"
            " because it would hide what came after: write the name to compact once more if it counts"
        )
        lost = StoreError(errno.EEXIST, "compaction-displaced", sentence)
        self._failures.record(slug, "compact", "restore", lost, KERNEL)

    async def _follow_root(self) -> None:
        while True:
            names = await self._events.take_root()
            self._kernel.attributes_changed(ROOT_INO)
            for name in names:
                directory = self._root.known(name)
                if directory is not None:
                    await self._look_for(directory)

    async def _look_for(self, directory: SessionDirectory) -> None:
        """Its name went; it may be another session's, or this one's again, by now."""
        try:
            await directory.status()
        except StoreError as error:
            log.debug("%s: %s", printable(directory.name), error.sentence)

    async def _follow_hints(self, hints: Hints) -> None:
        """Look again at what other hosts say they have stored something in."""
        while True:
            for slug in await hints.take():
                directory = self._root.known(slug)
                if directory is None or not directory.is_open:
                    self._kernel.attributes_changed(
                        ROOT_INO if directory is None else directory.ino
                    )
                elif directory.session.watch is None:
                    directory.session.missed()
                    self._events.mark(directory.session)
                if directory is not None:
                    await self._look_for(directory)  # it may have been deleted

    async def _look(self) -> None:
        """Where no events tell of changes, look for who follows."""
        while True:
            for session in await self._events.polling.take():
                self._events.mark(session)
