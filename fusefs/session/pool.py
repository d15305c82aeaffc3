"""Which sessions are open: watched, indexed and held, because somebody uses them.

Least recently used ones are closed when there are many. What the kernel was told of them stays with
the session, so that no inode ever shows less than it did. So do the steps that a daemon may still
displace, and the watch that tells of it, which needs no descriptor (G16).
"""

from __future__ import annotations

import errno
import os
import resource
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from fusefs.session.means import Means
from fusefs.session.session import Session, identity_of
from storage.errors import StoreError
from storage.store import Store

OPEN_SESSIONS: Final = 1024
"""So many at most, and fewer where the process may have few descriptors."""
OTHER_DESCRIPTORS: Final = 128
"""Left for everything else: steps being read and written, spools, threads at work."""
_NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})
INDEXED_STEPS: Final = 2_000_000
"""Indexed steps of all open sessions together, apart from the one that is used."""


class Pool:
    """The open sessions, least recently used first. Loop-owned."""

    def __init__(self, store: Store, means: Means) -> None:
        self._store = store
        self._means = means
        self._open: OrderedDict[Session, None] = OrderedDict()
        self._closed: dict[Session, None] = {}
        """Sessions that are not open and remember steps."""
        descriptors = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_DESCRIPTORS)
        self._most = min(OPEN_SESSIONS, descriptors // 2)
        self._steps = 0
        """The indexed steps of all, as of when each was used last."""

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._open))

    @property
    def remembering(self) -> list[Session]:
        """The sessions that remember steps which a daemon may displace, open or not."""
        return [session for session in (*self._open, *self._closed) if len(session.recent)]

    def lease(self, session: Session) -> Lease:
        """A context in which the session is open.

        Entering raises `StoreError`: ENOENT where the session is gone, EMFILE, EACCES …
        """
        return Lease(self, session)

    async def hold(self, session: Session) -> None:
        """Open a session, and keep it so until `release`. Raises as `lease`."""
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
        """One user more of a session that is open, until `release`."""
        session.users += 1

    def release(self, session: Session) -> None:
        """One user fewer; of a session that is gone the last one closes it."""
        session.users -= 1
        self._weigh(session)
        if session.gone:
            self.close(session)

    def bury(self, session: Session) -> None:
        """The session is gone from the store."""
        session.gone = True
        self.close(session)

    def close(self, session: Session) -> None:
        """Close a session, unless it is in use, and end its watch, unless it remembers steps."""
        if session.gone:
            session.recent.clear()
        if session.is_open and not session.busy:
            self._put_away(session)
        if not session.is_open and not len(session.recent):
            self._closed.pop(session, None)
            self._means.events.unwatch(session)

    def close_all(self) -> None:
        """Close every session, whoever uses it."""
        for session in list(self._open):
            self._put_away(session)

    async def _bring_in(self, session: Session) -> None:
        if session.gone:
            raise session.deleted()
        self._trim()
        work, slug = self._means.work, session.slug
        try:
            fd, identity = await work.small(slug, _opened, self._store, slug)
        except StoreError as error:
            if error.errno not in _NO_DESCRIPTOR:
                raise
            self.let_go()
            fd, identity = await work.small(slug, _opened, self._store, slug)
        if session.identity not in (None, identity):
            os.close(fd)
            raise StoreError(
                errno.ESTALE, "session-replaced", "another session has this name by now"
            )
        session.identity = identity
        session.opened(fd, near=work.near, documents=self._means.documents)
        self._open[session] = None
        self._closed.pop(session, None)
        if session.watch is None:
            session.recent.doubt()
            if work.near:
                self._means.events.watch(session)

    def let_go(self) -> None:
        """Descriptors are short: hold none that is only kept."""
        for session in self:
            session.unsynced.let_go()
            if session.is_open and not session.busy:
                self._put_away(session)

    def _trim(self) -> None:
        """Close those least recently used where there are too many."""
        if len(self._open) < self._most and self._steps <= INDEXED_STEPS:
            return
        for session in list(self._open):
            few = len(self._open) <= self._most * 3 // 4
            if few and self._steps <= INDEXED_STEPS // 2:
                break
            self.close(session)

    def _weigh(self, session: Session) -> None:
        steps = len(session.index.numbers)
        self._steps += steps - session.weighed
        session.weighed = steps

    def _put_away(self, session: Session) -> None:
        for epoch in session.epochs.values():
            self._means.cache.drop(epoch)
        os.close(session.fd)
        session.closed()
        if len(session.recent):
            self._closed[session] = None
            self._means.events.follow(session)
        else:
            self._means.events.unwatch(session)
        self._weigh(session)
        del self._open[session]
        self._means.events.mark(session)  # its inodes may be reaped now


class Lease:
    """A session kept open while the context lasts."""

    __slots__ = ("_pool", "_session")

    def __init__(self, pool: Pool, session: Session) -> None:
        self._pool = pool
        self._session = session

    async def __aenter__(self) -> Session:
        await self._pool.hold(self._session)
        return self._session

    async def __aexit__(self, *_error: object) -> None:
        self._pool.release(self._session)


def _opened(store: Store, slug: str) -> tuple[int, tuple[int, int]]:
    fd = store.open_session(slug)
    return fd, identity_of(fd)
