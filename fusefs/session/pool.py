"""The pool of open sessions: those in use, which have a descriptor, a watch and an index.

When too many are open, the least recently used ones rest: they give up the descriptor and keep the
rest for as long as their watch reports no change, so that a scan of more sessions than may be open
still finds them cached. When very many rest, some are closed. What the kernel was told stays with the
session, so that no inode ever shows less than before. So do the steps that a daemon may still
displace, and the watch that reports it, which needs no descriptor (G16).
"""

from __future__ import annotations

import errno
import os
import random
import resource
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Final

from fusefs.session.means import Means
from fusefs.session.session import Session
from storage.errors import StoreError
from storage.store import Store

OPEN_SESSIONS: Final = 1024
"""Limit of open sessions; lower if the limit of descriptors is low."""
RESTING_SESSIONS: Final = 3072
"""Limit of resting sessions, whose index and text are kept without a descriptor."""
TRIMMED_SESSIONS: Final = 128
"""Resting sessions closed at a time."""
OTHER_DESCRIPTORS: Final = 128
"""Descriptors reserved for everything else: steps being read and written, spools, threads."""
_NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})
INDEXED_STEPS: Final = 2_000_000
"""Limit of indexed steps of all sessions together, not counting the one in use."""
REMEMBERING_SESSIONS: Final = 4096
"""Limit of closed sessions that remember steps, at less than 10 KiB each."""
LOOKED_AT_SESSIONS: Final = 16
"""Candidates examined when some sessions must forget their steps."""


class Pool:
    """The open sessions, least recently used first. Loop-owned."""

    def __init__(self, store: Store, means: Means) -> None:
        self._store = store
        self._means = means
        self._open: OrderedDict[Session, None] = OrderedDict()
        self._resting: dict[Session, None] = {}
        self._closed: dict[Session, None] = {}
        """Sessions that are not open and remember steps."""
        descriptors = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_DESCRIPTORS)
        self._most = min(OPEN_SESSIONS, descriptors // 2)
        self._steps = 0
        """The indexed steps of all sessions, each counted when it was last used."""

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._open))

    @property
    def remembering(self) -> list[Session]:
        """The sessions that remember steps which a daemon may displace, open or not."""
        return [session for session in (*self._open, *self._closed) if len(session.recent)]

    def lease(self, session: Session) -> Lease:
        """A context manager that keeps the session open.

        Entering raises `StoreError`: ENOENT if the session is gone, EMFILE, EACCES and so on.
        """
        return Lease(self, session)

    async def hold(self, session: Session) -> None:
        """Open a session and keep it open until `release`. Raises as `lease`."""
        session.users += 1
        try:
            if not session.is_open:
                async with session.opening:
                    if not session.is_open:
                        await self._bring_in(session)
            self._open.move_to_end(session)
        except BaseException:
            session.users -= 1
            raise

    def keep(self, session: Session) -> None:
        """Add a user to an open session, until `release`."""
        session.users += 1

    def release(self, session: Session) -> None:
        """Remove a user; the last one of a deleted session closes it."""
        session.users -= 1
        self._weigh(session)
        if session.gone:
            self.close(session)

    def bury(self, session: Session) -> None:
        """Note that the session is gone from the store, and close it."""
        session.gone = True
        self.close(session)

    def close(self, session: Session) -> None:
        """Close a session, unless it is in use, and end its watch, unless it remembers steps."""
        if session.gone:
            self._forget(session)
        if (session.is_open or session.rests) and not session.busy:
            self._put_away(session)
        if not session.is_open and not len(session.recent):
            self._closed.pop(session, None)
            self._means.events.unwatch(session)

    def _forget(self, session: Session) -> None:
        session.recent.clear()
        if session.recent.owed:
            self._means.events.mark(session)

    def close_all(self) -> None:
        """Close every session, even if it is in use."""
        for session in (*self._open, *self._resting):
            self._put_away(session)

    async def _bring_in(self, session: Session) -> None:
        if session.gone:
            raise session.deleted()
        self._trim()
        work, slug = self._means.work, session.slug
        try:
            opened = await work.small(slug, _Opened, self._store, slug)
        except StoreError as error:
            if error.errno not in _NO_DESCRIPTOR:
                raise
            self.let_go()
            opened = await work.small(slug, _Opened, self._store, slug)
        if session.identity not in (None, opened.identity):
            raise session.replaced()
        session.identity = opened.identity
        begin = session.reopened if session.is_known else session.opened
        begin(opened.take(), near=work.near, documents=self._means.documents)
        self._open[session] = None
        self._resting.pop(session, None)
        self._closed.pop(session, None)
        if session.watch is None:
            session.recent.doubt()
            if work.near:
                self._watch(session)

    def _watch(self, session: Session) -> None:
        """Watch its directory; if watches run out, close some resting sessions to free theirs."""
        self._means.events.watch(session)
        if session.watch is None and self._resting:
            for other in islice(list(self._resting), TRIMMED_SESSIONS):
                self.close(other)
            self._means.events.watch(session)

    def let_go(self) -> None:
        """Free descriptors, of which there are none left: let all unused sessions rest."""
        for session in list(self._open):
            session.unsynced.let_go()
            self._let_rest(session)

    def _trim(self) -> None:
        """If too many sessions are open, let the least recently used rest; if too many rest, close
        random ones, so that a scan of all still finds most of them cached."""
        if len(self._open) >= self._most:
            for session in list(self._open):
                if len(self._open) <= self._most * 3 // 4:
                    break
                self._let_rest(session)
        if len(self._resting) > RESTING_SESSIONS:
            for session in random.sample(list(self._resting), TRIMMED_SESSIONS):
                self.close(session)
        if self._steps > INDEXED_STEPS:
            for session in (*self._resting, *self._open):
                if self._steps <= INDEXED_STEPS // 2:
                    break
                self.close(session)

    def _let_rest(self, session: Session) -> None:
        """Close the directory of an unused session. If it has something to publish or to remember, or
        no watch that would report changes, close the session altogether."""
        events = self._means.events
        known = session.watch is not None and not session.stale
        owed = bool(session.unsynced) or len(session.recent) > 0 or events.owes(session)
        if not known or session.gone or owed:
            self.close(session)
        elif not session.busy:
            self._close_directory(session)
            session.rested()
            del self._open[session]
            self._resting[session] = None
            events.mark(session)  # its inodes may be reaped now

    def _weigh(self, session: Session) -> None:
        steps = len(session.index.numbers)
        self._steps += steps - session.weighed
        session.weighed = steps

    def _put_away(self, session: Session) -> None:
        for epoch in session.epochs.values():
            self._means.cache.drop(epoch)
        if session.is_open:
            self._close_directory(session)
        session.closed()
        if len(session.recent):
            self._closed[session] = None
            self._means.events.follow(session)
            self._forget_earliest()
        else:
            self._means.events.unwatch(session)
        self._weigh(session)
        self._open.pop(session, None)
        self._resting.pop(session, None)
        self._means.events.mark(session)  # its inodes may be reaped now

    def _close_directory(self, session: Session) -> None:
        # Else a thread that was given up goes on in whatever gets the number of the descriptor next.
        self._means.work.afterwards(session.slug, partial(os.close, session.fd))

    def _forget_earliest(self) -> None:
        """If too many closed sessions remember steps, the first ones forget theirs, unless they owe
        something; queued events are applied before."""
        excess = len(self._closed) - REMEMBERING_SESSIONS
        if excess <= 0:
            return
        self._means.events.drain()
        earliest = list(islice(self._closed, LOOKED_AT_SESSIONS))
        for session in [session for session in earliest if not session.recent.owed][:excess]:
            self._forget(session)
            del self._closed[session]
            self._means.events.unwatch(session)


class Lease:
    """Keeps a session open within the context."""

    __slots__ = ("_pool", "_session")

    def __init__(self, pool: Pool, session: Session) -> None:
        self._pool = pool
        self._session = session

    async def __aenter__(self) -> Session:
        await self._pool.hold(self._session)
        return self._session

    async def __aexit__(self, *_error: object) -> None:
        self._pool.release(self._session)


class _Opened:
    """A new descriptor of a session, closed unless it is taken: when a far store answers at last, nobody
    may wait for it any more (G27b)."""

    __slots__ = ("_fd", "identity")

    def __init__(self, store: Store, slug: str) -> None:
        self._fd: int | None = None
        self._fd = store.open_session(slug)
        found = os.fstat(self._fd)
        self.identity = found.st_dev, found.st_ino

    def take(self) -> int:
        """The descriptor, which is the caller's to close from now on."""
        assert self._fd is not None
        fd, self._fd = self._fd, None
        return fd

    def __del__(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
