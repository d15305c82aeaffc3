"""`.stepfs/create`: creates new sessions (G11) and forks of others (G30)."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import trio

from fusefs.failures import Caller
from fusefs.handles.control import Stores
from fusefs.handles.document import Document
from fusefs.permissions import may_read
from storage.creation import create_next
from storage.errors import StoreError, printable
from storage.fork import Pieces, fork
from storage.session.steps import NUMBER_MAX
from storage.store import Store


class OpenCreate(Document):
    """`create`: an object says which session to create; the same open file then reads as its slug."""

    name = "create"

    def __init__(self, stores: Stores, store: Store, caller: Caller) -> None:
        super().__init__(stores, caller)
        self._store = store
        self._events = stores.events
        self._durable = stores.durable
        self._answer = b""
        self._written = 0

    async def write(self, data: bytes) -> int:
        taken = await super().write(data)
        self._written += taken
        return taken

    async def read(self, offset: int, size: int) -> bytes:
        """Read the slug, at offset 0 or from the end of what was written."""
        start = offset - self._written if offset >= self._written else offset
        return self._answer[start : start + size]

    async def apply(self, value: dict[str, Any]) -> None:
        if "from" in value:
            slug = await self._fork(value)
        else:
            agent, created_by = _who(value)
            work = partial(create_next, self._store, agent, created_by, sync=self._durable)
            slug = await self._work.long(self.name, work)
        self._events.stored(slug)
        self._answer = slug.encode("utf-8", "surrogateescape") + b"\n"

    async def _fork(self, value: Mapping[str, Any]) -> str:
        """Copy a session piece by piece, releasing the thread in between."""
        origin, how = _origin(value)
        directory, meta = await self._work.long(self.name, self._store.stat_session, origin)
        if not may_read(directory, meta, self.caller):
            sentence = f"the session {printable(origin)} is not yours to read"
            raise StoreError(errno.EACCES, "not-yours", sentence)
        pieces = fork(self._store, origin, sync=self._durable, **how)
        try:
            while (slug := await self._work.long(self.name, _next, pieces)) is None:
                pass
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self._work.long(self.name, _give_up, pieces)
            raise
        return slug


def _next(pieces: Pieces) -> str | None:
    """Copy the next piece; returns the slug after the last one."""
    try:
        next(pieces)
    except StopIteration as ended:
        slug: str = ended.value
        return slug
    return None


def _give_up(pieces: Pieces) -> None:
    with suppress(ValueError):  # a far store has not answered yet; the waiting call will close them
        pieces.close()


def _who(value: Mapping[str, Any]) -> tuple[str, str]:
    agent, created_by = value.get("agent"), value.get("created_by")
    if isinstance(agent, str) and isinstance(created_by, str) and len(value) == 2:
        return agent, created_by
    sentence = (
        'a session is made by {"agent":"…","created_by":"…"}, two strings and nothing else;'
        ' a fork by {"from":"SESSION"}'
    )
    raise StoreError(errno.EINVAL, "not-a-session", sentence)


def _origin(value: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A request for a fork."""
    how = {key: found for key, found in value.items() if key != "from"}
    at = how.get("at", 0)
    words = [value["from"], *(how.get(key, "") for key in ("agent", "created_by"))]
    sound = (
        how.keys() <= {"at", "agent", "created_by"}
        and all(isinstance(word, str) for word in words)
        and type(at) is int
        and 0 <= at <= NUMBER_MAX
    )
    if not sound:
        sentence = (
            'a fork is made by {"from":"SESSION"}, with "at" (a step\'s number), "agent" and'
            ' "created_by" (strings) where they are wanted, and nothing else'
        )
        raise StoreError(errno.EINVAL, "not-a-fork", sentence)
    return value["from"], how
