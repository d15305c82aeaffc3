"""Takes inotify's events, and keeps the set of dirty sessions.

Every operation that must be exact drains the queue first: an event is queued before the system call
that caused it returns, so nothing is missed (G12). Otherwise a task drains it. The session decides what
a change in it means; this module only keeps which sessions are dirty, for `Publisher` to take.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import trio

from fusefs.coherence.hints import Hints
from fusefs.coherence.polling import Polling
from fusefs.inotify import Change, EventsLostError, Watcher
from fusefs.owed import Owed
from fusefs.session.session import Meaning, Session
from storage.store import Store

GATHER_SECONDS: Final = 0.002
"""Debounce in seconds; handlers drain on demand."""

log: Final = logging.getLogger(__name__)


class EventQueue:
    """Owns the inotify queue and the set of dirty sessions. Loop-owned; `drain` never waits."""

    def __init__(self, store: Store, near: bool, hints: Hints | None = None) -> None:
        """`hints` are exchanged with other hosts, if they are.

        Raises `StoreError` where the kernel gives no inotify queue.
        """
        self.watcher = Watcher()
        self.near = near
        self.hints = hints
        self.polling = Polling()
        self.displaced = Owed[Session]()
        """Sessions with remembered steps to be examined, stored again or moved."""
        self.root_changed_at: float | None = None
        self._root_dirty = False
        """Whether the list of sessions has changed since that was last published."""
        self._disappeared: set[str] = set()
        """Names of sessions that disappeared, not published yet."""
        self._root_waiting = trio.lowlevel.ParkingLot()
        self._root_gone = trio.Event()
        self._watched: dict[int, Session] = {}
        self._dirty: dict[Session, None] = {}
        self._taken: set[Session] = set()
        self._waiting = trio.lowlevel.ParkingLot()
        self._root_watch: int | None = None
        self._watch_root(store)

    def close(self) -> None:
        """End all watches."""
        self.watcher.close()

    @property
    def works(self) -> bool:
        """Whether inotify is relied on."""
        return self.near and not self.watcher.exhausted

    @property
    def watches(self) -> int:
        """How many directories are watched."""
        return self.watcher.watches

    @property
    def hinting(self) -> dict[str, Any] | None:
        """How hints are exchanged with other hosts, if they are."""
        return None if self.hints is None else self.hints.document()

    def watch(self, session: Session) -> None:
        """Watch the session's directory, if possible, and apply its events to the session."""
        session.watch = self.watcher.add(session.fd)
        if session.watch is not None:
            self._watched[session.watch] = session

    def unwatch(self, session: Session) -> None:
        """End the watch of a session."""
        if session.watch is None:
            return
        if self._watched.get(session.watch) is session:
            del self._watched[session.watch]
        self.watcher.remove(session.watch)
        session.watch = None

    def drain(self) -> None:
        """Apply all queued events to their sessions."""
        try:
            changes = self.watcher.drain()
        except EventsLostError:
            log.info("the inotify queue overflowed: every session is examined again")
            self.missed()
            return
        for change in changes:
            if change.watch == self._root_watch:
                self._root(change)
                continue
            session = self._watched.get(change.watch)
            if session is not None and session.apply(change) is not Meaning.NOTHING:
                self.mark(session)

    def root_replaced(self, store: Store) -> None:
        """Watch the new directory of a store whose directory was replaced."""
        if self._root_watch is not None:
            self.watcher.remove(self._root_watch)
        self._watch_root(store)
        self.missed()
        self._root_dirty = True
        self._root_waiting.unpark()

    def missed(self) -> None:
        """Anything may have changed: examine everything again before it is shown."""
        if self.root_changed_at is not None:
            self.root_changed_at = trio.current_time()
        for session in self._watched.values():
            session.missed()
            self.mark(session)

    def follow(self, session: Session) -> None:
        """Somebody waits for changes of a session: poll for them if there are no events."""
        if session.watch is None:
            self.polling.follow(session)

    def stored(self, slug: str) -> None:
        """This mount stored something in a session, or created or deleted it: hint other mounts."""
        if self.hints is not None:
            self.hints.stored(slug)

    def mark(self, session: Session) -> None:
        """A session is dirty."""
        if session.recent.owed:
            self.displaced.add(session)
        self._dirty[session] = None
        if session not in self._taken:
            self._waiting.unpark()

    def owes(self, session: Session) -> bool:
        """Whether a session has changes that are not published yet."""
        return session in self._dirty or session in self._taken

    async def take(self) -> Session:
        """Wait for a dirty session, and reserve it for the caller, who must give it `back`."""
        while True:
            session = next((s for s in self._dirty if s not in self._taken), None)
            if session is not None:
                del self._dirty[session]
                self._taken.add(session)
                return session
            await self._waiting.park()

    def back(self, session: Session) -> None:
        """Give back a session from `take`: its changes were published, or could not be."""
        self._taken.discard(session)
        if session in self._dirty:
            self._waiting.unpark()

    async def take_root(self) -> set[str]:
        """Wait until the list of sessions has changed; the names that disappeared."""
        while not self._root_dirty:
            await self._root_waiting.park()
        self._root_dirty = False
        names, self._disappeared = self._disappeared, set()
        return names

    async def take_root_gone(self) -> None:
        """Wait until the store's directory itself has been renamed or removed."""
        await self._root_gone.wait()
        self._root_gone = trio.Event()

    async def run(self) -> None:
        """Drain the queue whenever there is something in it, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self.watcher.fileno())
            self.drain()
            await trio.sleep(GATHER_SECONDS)

    def _watch_root(self, store: Store) -> None:
        self._root_watch = self.watcher.add(store.fd) if self.near else None
        self.root_changed_at = None if self._root_watch is None else 0.0

    def _root(self, change: Change) -> None:
        self.root_changed_at = trio.current_time()
        self._root_dirty = True
        if change.disappeared:
            self._disappeared.add(change.name)
        if change.gone:
            self._root_gone.set()
        self._root_waiting.unpark()
