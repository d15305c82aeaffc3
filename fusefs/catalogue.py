"""`sessions.jsonl`: a line per session, made of its meta."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

import orjson
import trio

from storage import jsontext
from storage.errors import StoreError
from storage.files import read_regular
from storage.sessions import Store

_Stamp = tuple[int, int, int]


@dataclass(slots=True)
class _Line:
    stamp: _Stamp
    text: bytes


class Catalogue:
    """The lines of all sessions; only metas that changed are read again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: dict[str, _Line] = {}
        self._lock = trio.Lock()

    async def text(self) -> bytes:
        """All lines, as of now, in the order of their slugs."""
        async with self._lock:
            return await trio.to_thread.run_sync(self._make)

    def _make(self) -> bytes:
        old, new = self._lines, {}
        for slug in sorted(self._store.names()):
            try:
                found = os.stat(f"{slug}/meta", dir_fd=self._store.fd, follow_symlinks=False)
                stamp = (found.st_ino, found.st_ctime_ns, found.st_size)
                known = old.get(slug)
                if known is None or known.stamp != stamp:
                    known = _Line(stamp, self._line(slug, found))
            except OSError:
                continue
            new[slug] = known
        self._lines = new
        return b"".join(line.text for line in new.values())

    def _line(self, slug: str, found: os.stat_result) -> bytes:
        """`{"session": slug, …meta}`; of a broken meta only the session is told."""
        name = orjson.dumps(slug.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        start = b'{"session":' + name
        if not stat.S_ISREG(found.st_mode):
            return start + b"}\n"
        session_fd = self._store.open_session(slug)
        try:
            data = jsontext.one_line(read_regular("meta", session_fd)[0])
            value = jsontext.parse(data)
        except (jsontext.NotJSON, StoreError):
            value = None
        finally:
            os.close(session_fd)
        if not isinstance(value, dict) or not value:
            return start + b"}\n"
        return start + b"," + data[1:].lstrip() + b"\n"
