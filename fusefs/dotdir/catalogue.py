"""`sessions.jsonl`: a line per session, made of its meta."""

from __future__ import annotations

import os
from dataclasses import dataclass
from stat import S_ISREG
from typing import Final

import orjson
import trio

from fusefs.dotdir.meta_watches import ROOT, MetaWatches
from storage.errors import StoreError, printable
from storage.formats import jsontext
from storage.posix import read_regular
from storage.store import Store

_Stamp = tuple[int, int, int]
_LOOK: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Line:
    directory: int
    """The inode number of the session's directory."""
    stamp: _Stamp | None
    """What the meta is told by; None where a watch tells of its change."""
    text: bytes


class Catalogue:
    """The lines of all sessions; only metas that changed are read again."""

    def __init__(self, store: Store, local: bool) -> None:
        self._store = store
        self._lines: dict[str, _Line] = {}
        self._directories: list[tuple[str, int]] | None = None
        """The list of sessions, in order; None where it must be made again."""
        self._lock = trio.Lock()
        self._watches = MetaWatches() if local else None

    async def text(self) -> bytes:
        """All lines, as of now, in the order of their slugs."""
        async with self._lock:
            return await trio.to_thread.run_sync(self._make)

    def close(self) -> None:
        """Watch the metas no longer."""
        if self._watches is not None:
            self._watches.close()

    def _make(self) -> bytes:
        self._drop_changed()
        old, new = self._lines, {}
        for slug, directory in self._list():
            line = old.get(slug)
            if line is None or line.directory != directory or line.stamp is not None:
                line = self._look(slug, directory, line)
            if line is not None:
                new[slug] = line
        self._lines = new
        return b"".join([line.text for line in new.values()])

    def _drop_changed(self) -> None:
        changed = {ROOT} if self._watches is None else self._watches.changed()
        if changed is None:
            self._lines.clear()
        for slug in changed or ():
            self._lines.pop(slug, None)
        if changed is None or ROOT in changed:
            self._directories = None

    def _list(self) -> list[tuple[str, int]]:
        if self._directories is not None:
            return self._directories
        told = self._watches is not None and self._watches.add_root(self._store.fd)
        found = self._store.directories()
        listed = [(slug, found[slug]) for slug in sorted(found)]
        self._directories = listed if told else None
        return listed

    def _look(self, slug: str, directory: int, known: _Line | None) -> _Line | None:
        """The line of a session as of now; None if it is none."""
        try:
            fd = os.open(slug, _LOOK, dir_fd=self._store.fd)
        except OSError:
            return None
        try:
            found = os.stat("meta", dir_fd=fd, follow_symlinks=False)
            if not S_ISREG(found.st_mode):
                return None
            stamp = (found.st_ino, found.st_ctime_ns, found.st_size)
            if known is not None and (known.directory, known.stamp) == (directory, stamp):
                return known
            watched = self._watches is not None and self._watches.add(fd, slug)
            return _Line(directory, None if watched else stamp, _text(slug, fd))
        except OSError:
            return None
        finally:
            os.close(fd)


def _text(slug: str, session_fd: int) -> bytes:
    """`{"session": slug, …meta}`; of a broken meta only the session is told."""
    start = b'{"session":' + orjson.dumps(printable(slug))
    try:
        data = jsontext.one_line(read_regular("meta", session_fd)[0])
        value = jsontext.parse(data)
    except (jsontext.NotJSON, StoreError):
        value = None
    if not isinstance(value, dict) or not value:
        return start + b"}\n"
    return start + b"," + data[1:].lstrip() + b"\n"
