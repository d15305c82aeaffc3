"""All sessions of the store, current as of each query: their names, and a line for each with its meta.

A session is examined again only if it changed. Where inotify works, events report that, for names in
the store's directory and for metas. A session whose meta cannot be watched and a directory that is not
yet a session are examined at each query (G12), and so is everything where there are no events.

Concurrency. The state is only touched in threads that hold `_lock`. If a far store does not answer, the
thread is abandoned at the deadline, and keeps the lock until it ends.
"""

from __future__ import annotations

import errno
import os
import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from stat import S_ISREG
from typing import Final, TypeVar

import orjson

from fusefs.catalogue.lines import Lines, Text
from fusefs.catalogue.meta_watches import Changed, MetaWatches
from fusefs.work import Work
from storage.errors import StoreError, printable
from storage.formats import jsontext
from storage.latest import Latest
from storage.session import meta
from storage.store import Store

Stamp = tuple[int, int, int]
"""Identifies a version of a meta: inode number, ctime in nanoseconds, size."""
NEVER: Final[Stamp] = (0, 0, 0)
"""The stamp of a meta that was not read."""
_LOOK: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_DIRECTORY: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
T = TypeVar("T")


@dataclass(slots=True)
class _Session:
    """A session as it was when it was last examined."""

    directory: int
    """Inode number of its directory."""
    stamp: Stamp


class Catalogue:
    """The sessions of a store."""

    def __init__(self, store: Store, work: Work) -> None:
        self.generation = 0
        """Counts changes of the list of sessions."""
        self._store = store
        self._watches = MetaWatches(store.fd) if work.near else None
        self._work = work
        self._read = meta.read_near if work.near else meta.read
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}
        self._slugs: list[str] = []
        """The slugs of all sessions, sorted."""
        self._missed = False
        """Whether all watches have become useless; set by the loop."""
        self._listed = False
        """Whether the store's directory was listed and events report what has changed since."""
        self._unsure: set[str] = set()
        """Names without events: sessions whose meta is not watched, directories without a meta."""
        self._lines: Lines | None = None
        """The lines; None until somebody reads them."""
        self._latest: Latest | None = None
        """The latest sessions; None until somebody reads them."""

    @property
    def is_followed(self) -> bool:
        """Whether events report changes, so that not every session must be examined."""
        return self._listed

    async def names(self) -> Sequence[str]:
        """The slugs of all sessions, sorted. Raises `StoreError`: ETIMEDOUT if it is silent."""
        return await self._locked(self._names)

    async def text(self) -> Text:
        """`sessions.jsonl`: a line for each session, in the order of their slugs (G12)."""
        return await self._locked(self._text)

    async def latest(self) -> Mapping[str, str]:
        """The latest session of each `<agent>_<sender>` (`.stepfs/latest/`)."""
        return await self._locked(self._links)

    def missed(self) -> None:
        """The store's directory was replaced: examine and watch everything again."""
        self._missed = True

    def close(self) -> None:
        """End all watches."""
        if self._watches is not None:
            self._watches.close()

    async def _locked(self, look: Callable[[], T]) -> T:
        def work() -> T:
            with self._lock:
                return look()

        return await self._work.long(self, work)

    # --- in a thread, one at a time --------------------------------------------------------------

    def _names(self) -> Sequence[str]:
        self._refresh()
        return tuple(self._slugs)

    def _text(self) -> Text:
        if self._lines is None:
            self._lines = Lines()
            for slug in self._slugs:  # known by name alone
                self._sessions[slug].stamp = NEVER
                self._unsure.add(slug)
        self._refresh()
        return self._lines.text()

    def _links(self) -> Mapping[str, str]:
        if self._latest is None:
            self._latest = Latest(self._store.meta_of)
            for slug in self._slugs:
                self._latest.put(slug)
        self._refresh()
        return self._latest.links(self._slugs)

    def _refresh(self) -> None:
        """Bring the sessions up to date."""
        changed = self._drain()
        if self._listed:
            for slug in changed:
                self._look(slug)
            for slug in [slug for slug in self._unsure if not self._is_same(slug)]:
                self._look(slug)
        else:
            self._list()

    def _drain(self) -> set[str]:
        """The names for which events have reported changes."""
        if self._watches is None:
            return set()
        if self._missed:
            self._missed = False
            self._watches.close()
            changed = Changed(lost=True)
        else:
            changed = self._watches.changed()
        if changed.lost:
            self._listed = False
            self._unsure.update(self._slugs)
        return changed.names | changed.metas

    def _list(self) -> None:
        """List the store's directory, and examine everything in it."""
        followed = self._watches is not None and self._watches.watch_root()
        found = self._store.directories()
        for slug in self._sessions.keys() - found.keys():
            self._look(slug)
        for slug, directory in sorted(found.items()):
            if self._watches is not None or not self._is_same(slug, directory):
                self._look(slug, directory)
        self._listed = followed

    def _is_same(self, slug: str, directory: int | None = None) -> bool:
        """Whether a session is unchanged, judging by one system call."""
        known = self._sessions.get(slug)
        if known is None or directory not in (None, known.directory):
            return False
        try:
            found = os.stat(f"{slug}/meta", dir_fd=self._store.fd, follow_symlinks=False)
        except OSError:
            return False
        return _stamp(found) == known.stamp

    def _look(self, slug: str, directory: int | None = None) -> None:
        """Examine a name: a session, a directory that may become one, or neither.

        `directory` is the inode number that a listing gave it. A session that cannot be examined, such
        as for want of descriptors, stays what it was, and is examined again at the next query (G19).
        """
        if slug.startswith("."):
            return
        self._unsure.add(slug)
        try:
            fd = os.open(slug, _LOOK, dir_fd=self._store.fd)
        except OSError as error:
            if error.errno in _NO_DIRECTORY:
                self._unsure.discard(slug)
                self._drop(slug)
            return
        try:
            watched = self._watches is not None and self._watches.watch(slug, fd)
            self._look_into(slug, fd, directory or os.fstat(fd).st_ino)
        except OSError:
            return
        finally:
            os.close(fd)
        known = self._sessions.get(slug)
        if watched and known is not None and known.stamp != NEVER:
            self._unsure.discard(slug)

    def _look_into(self, slug: str, fd: int, directory: int) -> None:
        seen = _seen(fd, directory)
        known = self._sessions.get(slug)
        if seen is None:
            self._drop(slug)
            return
        if known is None:
            insort(self._slugs, slug)
        if known is None or known.directory != seen.directory:
            self.generation += 1
        if known != seen:
            self._sessions[slug] = seen
            if self._lines is not None:
                try:
                    about = _about(fd, self._read)
                except OSError:
                    about, seen.stamp = b"", NEVER
                self._lines.put(slug, _line(slug, about))
            if self._latest is not None:
                self._latest.put(slug)

    def _drop(self, slug: str) -> None:
        if self._sessions.pop(slug, None) is None:
            return
        del self._slugs[bisect_left(self._slugs, slug)]
        self.generation += 1
        if self._lines is not None:
            self._lines.discard(slug)
        if self._latest is not None:
            self._latest.discard(slug)


def _seen(session_fd: int, directory: int) -> _Session | None:
    """The present state of the session in a directory; None if it is not a session, or none for this
    user. Raises `OSError` where it may be one."""
    try:
        found = os.stat("meta", dir_fd=session_fd, follow_symlinks=False)
    except (FileNotFoundError, PermissionError):
        return None
    if not S_ISREG(found.st_mode):
        return None
    return _Session(directory, _stamp(found))


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_ino, found.st_ctime_ns, found.st_size


def _about(session_fd: int, read: Callable[[int], meta.Seen]) -> bytes:
    """The meta of a session; nothing if it cannot be one, or is not for this user. Raises `OSError`
    where it may be read later."""
    try:
        return read(session_fd)[0]
    except (StoreError, PermissionError):
        return b""


def _line(slug: str, about: bytes) -> bytes:
    """`{"session": slug, …meta}`; only the session if its meta is broken."""
    start = b'{"session":' + orjson.dumps(slug if slug.isascii() else printable(slug))
    try:
        value = jsontext.parse(about)
    except jsontext.NotJSON:
        value = None
    if not isinstance(value, dict) or not value:
        return start + b"}\n"
    return start + b"," + jsontext.one_line(about)[1:].lstrip() + b"\n"
