"""Files that take one JSON object, and the first of them, `meta.json` (G10)."""

from __future__ import annotations

import errno
from abc import abstractmethod
from functools import partial
from typing import Any, Final

from fusefs.failures import Caller
from fusefs.handles.base import OpenFile, OpenText
from fusefs.handles.control import Stores
from fusefs.handles.pending import PendingBudget
from fusefs.session.session import Session
from fusefs.turn import Turn
from storage.errors import StoreError, from_os_error
from storage.formats.unfinished import UnfinishedObject
from storage.session import meta, meta_update

SMALL_BYTES: Final = 1 << 14
"""An object longer than this is parsed in a thread."""


class Document(OpenFile):
    """Collects what is written until it is one complete JSON object, and applies that."""

    def __init__(self, stores: Stores, caller: Caller) -> None:
        self.caller = caller
        self._user = caller.uid
        self._failures = stores.failures
        self._budget = stores.pending
        self._work = stores.work
        self._limit = min(stores.line_limit, meta.META_BYTES_MAX)
        self._object = UnfinishedObject()
        """The pending text; its length counts towards the budget for this open file."""
        self._turn = Turn()

    @abstractmethod
    async def apply(self, value: dict[str, Any]) -> None:
        """Apply the object. Raises `StoreError`, with nothing changed."""

    async def write(self, data: bytes) -> int:
        """Take text, and apply it once it is one object. A refusal discards what was pending."""
        async with self._turn:
            taken = self._taken()
            if len(taken) + len(data) > self._limit:
                sentence = f"the object is longer than {self._limit} bytes"
                raise StoreError(errno.EFBIG, "line-too-long", sentence)
            text = taken.take(data)
            if text is None:
                self._budget.resize(self._user, 0, len(taken))
                self._object = taken
            elif len(text) > SMALL_BYTES:
                await self.apply(await self._work.long(self, meta.patch, text))
            else:
                await self.apply(meta.patch(text))
            return len(data)

    async def flush(self) -> None:
        if self._object:
            raise self._incomplete()

    async def release(self) -> None:
        if self._object:
            self._failures.record(
                self.session, self.name, "release", self._incomplete(), self.caller
            )
            self._taken()

    def _taken(self) -> UnfinishedObject:
        """Remove and return what was pending."""
        taken, self._object = self._object, UnfinishedObject()
        self._budget.resize(self._user, len(taken), 0)
        return taken

    def _incomplete(self) -> StoreError:
        sentence = (
            f"what was written, {len(self._object)} bytes, is only the beginning of a JSON object:"
            " nothing was changed"
        )
        return StoreError(errno.EINVAL, "incomplete-object", sentence)


class CountedText(OpenText):
    """The text of an open meta. It counts towards the budget: it may be long, and open many times."""

    def __init__(self, budget: PendingBudget, caller: Caller, text: bytes) -> None:
        """Raises `StoreError` ENOBUFS."""
        super().__init__(text)
        budget.resize(caller.uid, 0, len(text))
        self._budget = budget
        self._user = caller.uid

    async def release(self) -> None:
        self._budget.resize(self._user, len(self._text), 0)


class OpenMeta(Document):
    """`meta.json`: reads as the meta when it was opened; what is written is merged into the meta."""

    name = "meta.json"

    def __init__(self, stores: Stores, session: Session, caller: Caller, text: bytes) -> None:
        super().__init__(stores, caller)
        self._shown = CountedText(stores.pending, caller, text)
        self.session = session.slug
        self._session = session
        self._durable = stores.durable
        self._pool = stores.pool
        self._events = stores.events
        stores.pool.keep(session)

    async def release(self) -> None:
        await super().release()
        await self._shown.release()
        self._pool.release(self._session)

    async def apply(self, value: dict[str, Any]) -> None:
        def change(now: dict[str, Any]) -> dict[str, Any]:
            return meta.merged(now, value)

        if self._session.gone:
            raise self._session.deleted()
        work = partial(meta_update.update, self._session.fd, change, sync=self._durable)
        try:
            await self._work.long(self._session.slug, work)
        except OSError as error:
            raise from_os_error(error, "write the meta") from error
        self._events.stored(self._session.slug)

    async def read(self, offset: int, size: int) -> bytes:
        return await self._shown.read(offset, size)
