"""Publishes changes in the store to the kernel's caches and to waiters in poll(2) (G12, G14).

Each dirty session's inodes are brought up to date, and the kernel is told which attributes and names
are no longer valid.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from fusefs.coherence.events import EventQueue
from fusefs.coherence.hints import Hints
from fusefs.failures import Failures
from fusefs.inodes.inode import ROOT_INO
from fusefs.inodes.root import Root
from fusefs.inodes.session_directory import SessionDirectory
from fusefs.kernel import Kernel
from fusefs.session.listing import ready
from fusefs.session.means import Means
from fusefs.session.pool import Pool
from fusefs.session.session import Session
from storage.errors import StoreError, printable

WORKERS: Final = 4
"""Sessions published in parallel: a long comparison of one must not hold up the others."""
PACE_SECONDS: Final = 0.003
"""Pause between two rounds for one session: publishing must not slow a fast writer down."""

log: Final = logging.getLogger(__name__)


class Publisher:
    """Takes dirty sessions from the event queue and publishes them. Loop-owned."""

    def __init__(
        self,
        events: EventQueue,
        root: Root,
        pool: Pool,
        means: Means,
        kernel: Kernel,
        failures: Failures,
    ) -> None:
        self._events = events
        self._root = root
        self._pool = pool
        self._means = means
        self._kernel = kernel
        self._failures = failures

    async def run(self) -> None:
        """Publish until cancelled; sleeps while nothing happens."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._events.run)
            nursery.start_soon(self._follow_root)
            nursery.start_soon(self._look)
            if self._events.hints is not None:
                nursery.start_soon(self._events.hints.run)
                nursery.start_soon(self._follow_hints, self._events.hints)
            for _ in range(WORKERS):
                nursery.start_soon(self._work, nursery)

    def wrote(self, slug: str | None) -> None:
        """This mount has stored something in a session."""
        directory = self._root.known(slug) if slug is not None else None
        if directory is not None:
            self._events.mark(directory.session)
            if len(directory.session.recent):
                self._events.follow(directory.session)

    async def _work(self, nursery: trio.Nursery) -> None:
        while True:
            session = await self._events.take()
            try:
                with _reporting(printable(session.slug)):
                    await self._publish(session)
            finally:
                nursery.start_soon(self._rest, session)
            # Let waiting operations run before the next session.
            await trio.lowlevel.checkpoint()

    async def _rest(self, session: Session) -> None:
        # Without events, publishing lists the session: spend at most half of the time on that.
        listing = session.listing_seconds if session.watch is None else 0
        try:
            await trio.sleep(max(PACE_SECONDS, listing))
        finally:
            self._events.back(session)

    async def _publish(self, session: Session) -> None:
        directory = self._root.of.get(session)
        if directory is None:
            return
        if session.is_known and not session.is_open:
            directory.reap()
            return
        directory.recall()
        if session.gone:
            self._gone(directory)
            return
        if directory.lookups:
            self._kernel.attributes_changed(directory.ino)
        if not session.is_open:
            self._pool.close(session)
            directory.reap()
            return
        async with self._pool.lease(session):
            if len(session.recent):
                # Without events, this finds the steps that a daemon may have displaced.
                await ready(self._means, session, exact=False)
            for file in list(directory.views.values()):
                # What is wrong with one view is nothing to those who wait for another.
                with _reporting(f"{printable(session.slug)}/{file.name}", but="store-silent"):
                    await file.publish(session)
            session.judged.clear()

    def _gone(self, directory: SessionDirectory) -> None:
        if self._root.known(directory.name) is directory:
            directory.bury()
        else:
            directory.tell()
        if not directory.is_open:
            directory.reap()

    async def _follow_root(self) -> None:
        while True:
            names = await self._events.take_root()
            self._kernel.attributes_changed(ROOT_INO)
            for name in names:
                directory = self._root.known(name)
                if directory is not None:
                    await self._look_for(directory)

    async def _look_for(self, directory: SessionDirectory) -> None:
        """Examine a session whose name disappeared; by now this or another session may have it."""
        try:
            await directory.status()
        except StoreError as error:
            log.debug("%s: %s", printable(directory.name), error.sentence)

    async def _follow_hints(self, hints: Hints) -> None:
        """Examine sessions in which other hosts have announced changes."""
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
        """Poll the followed sessions, if the store has no events."""
        while True:
            for session in await self._events.polling.take():
                if not session.is_open:
                    session.recent.doubt()
                self._events.mark(session)


@contextmanager
def _reporting(what: str, but: str = "") -> Iterator[None]:
    """Within it a failure, `but` for one code, only means that nothing is published of `what`."""
    try:
        yield
    except StoreError as error:
        if error.code == but:
            raise
        log.debug("nothing was published of %s: %s", what, error.sentence)
    except Exception:
        log.exception("%s could not be published", what)
