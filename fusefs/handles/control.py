"""Control files: take lines, and store each as a step (G5-G8).

Lines are framed by newlines, separately for each open file. Offsets and sizes have no meaning.
"""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from fusefs.failures import Caller, Failures
from fusefs.handles.base import OpenFile
from fusefs.handles.pending import PendingBudget
from fusefs.session.events import Events
from fusefs.session.meta_counter import MetaCounter
from fusefs.session.pool import Pool
from fusefs.session.session import Session
from fusefs.session.writer import Writer
from fusefs.turn import Turn
from fusefs.work import Work
from storage.archives import Memory
from storage.documents.pool import Documents
from storage.errors import StoreError, printable
from storage.formats.accept import stored_form
from storage.formats.kinds import Step
from storage.session.reader import LONG_BYTES

ROLES: Final = ("system", "user", "assistant", "tool")
"""Roles that model providers know."""
ODD_ROLES_MAX: Final = 10
"""At most this many unknown roles are warned about per open file."""
INLINE_BYTES: Final = 1 << 14
"""Lines up to this many bytes are judged on the loop."""


@dataclass(slots=True)
class Lines:
    """The lines that a write completes, and what is left over."""

    whole: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """The offset in the bytes written at which each line ends, including its newline."""
    rest: bytes = b""

    @classmethod
    def of(cls, pending: bytes | bytearray, data: bytes) -> Lines:
        """Cut `data`, whose first line began with `pending`."""
        lines, at = cls(), 0
        while (newline := data.find(b"\n", at)) >= 0:
            line = data[at:newline]
            lines.whole.append(line if lines.whole else b"".join((pending, line)))
            lines.ends.append(newline + 1)
            at = newline + 1
        lines.rest = data[at:]
        return lines


@dataclass(frozen=True, slots=True)
class Stores:
    """The services that control files of all sessions use to store steps."""

    pool: Pool
    work: Work
    events: Events
    writer: Writer
    counter: MetaCounter
    failures: Failures
    line_limit: int
    """In bytes; a longer line is refused (G6)."""
    durable: bool
    """Whether a meta is on disk when its close returns (G17)."""
    documents: Documents
    pending: PendingBudget
    archives: Memory


class Control(OpenFile):
    """An open control file: takes lines, and stores each as a step.

    Its pending bytes belong to the task that holds `_turn`: writes and flushes of one open file,
    which may come from several processes, are done one after the other.
    """

    def __init__(
        self,
        stores: Stores,
        session: Session,
        caller: Caller,
        text: bytes,
    ) -> None:
        self.session: str = session.slug
        self.caller = caller
        self._session = session
        self._writer = stores.writer
        self._counter = stores.counter
        self._failures = stores.failures
        self._pool = stores.pool
        self._work = stores.work
        self._documents = stores.documents
        self._budget = stores.pending
        self._counted = 0
        """The bytes that count towards the budget for this open file."""
        self._user = caller.uid
        self._limit = stores.line_limit
        self._text = text
        """Its text when it was opened."""
        self._pending = bytearray()
        self._writes = 0
        """The number of writes in which the pending bytes arrived."""
        self._ended = False
        """Whether the last line was taken at a flush: a newline that follows belongs to it."""
        self._why: str | None = None
        """The error with which the pending bytes were refused at a flush."""
        self._turn = Turn()
        stores.pool.keep(session)

    @abstractmethod
    def judge(self, line: bytes) -> Step:
        """The step that a line is stored as. Raises `StoreError`."""

    @abstractmethod
    def takes_at_flush(self) -> bool:
        """Whether a line without newline may be complete."""

    async def read(self, offset: int, size: int) -> bytes:
        return self._text[offset : offset + size]

    async def write(self, data: bytes) -> int:
        """Store lines (G5, G6); returns how many bytes of `data` were taken, up to a refused line."""
        async with self._turn:
            own_newline, self._ended = self._ended and data.startswith(b"\n"), False
            if not own_newline:
                return await self._take(data)
            try:
                return 1 + (await self._take(data[1:]) if len(data) > 1 else 0)
            except StoreError:
                return 1  # a short write: the error is raised when the rest is written again

    async def flush(self) -> None:
        """Store a last line without newline if it is complete (G7), and sync everything (G17)."""
        async with self._turn:
            if self._pending:
                try:
                    await self._take_last()
                except StoreError as error:
                    self._why = error.sentence
                    raise
        await self._writer.sync(self._session)

    async def sync(self) -> None:
        await self._writer.sync(self._session)

    async def release(self) -> None:
        """Drop what is still pending, and report that (G7)."""
        if self._pending:
            shown = bytes(self._pending[:60]).decode("utf-8", "backslashreplace")
            sentence = (
                f"the last line, {len(self._pending)} bytes beginning with {shown!r}, had no newline"
                f" and is lost: {self._why or 'it was not complete'}"
            )
            lost = StoreError(errno.EINVAL, "incomplete-line", sentence)
            self._failures.record(self.session, self.name, "release", lost, self.caller)
            self._set_pending(b"")
        try:
            await self._writer.settle(self._session)
        finally:
            self._pool.release(self._session)

    async def _take(self, data: bytes) -> int:
        lines = Lines.of(self._pending if b"\n" in data else b"", data)
        steps, refusal = await self._judge_all(lines.whole)
        if not lines.whole:
            return self._keep(data)
        stored, failure = await self._store(steps)
        failure = failure or refusal
        if failure is None and len(lines.rest) > self._limit:
            failure = self._too_long()
        if failure is None:
            failure = self._try_pending(lines.rest)
        if failure is None:
            return len(data)
        if failure is refusal and stored == 0:
            self._set_pending(b"")
        if stored == 0:
            raise failure
        self._set_pending(b"")
        return lines.ends[stored - 1]

    def _keep(self, data: bytes) -> int:
        if len(self._pending) + len(data) > self._limit:
            self._set_pending(b"")
            raise self._too_long()
        try:
            self._count_pending(len(self._pending) + len(data))
        except StoreError:
            self._set_pending(b"")
            raise
        self._pending += data
        self._writes += 1
        return len(data)

    async def _take_last(self) -> None:
        if not self.takes_at_flush():
            sentence = "the last line has no newline and came in several writes: end it with one"
            raise StoreError(errno.EINVAL, "incomplete-line", sentence)
        steps, refusal = await self._judge_all([bytes(self._pending)])
        if refusal is not None:
            raise refusal
        _, failure = await self._store(steps)
        if failure is not None:
            raise failure
        self._set_pending(b"")
        self._ended = True

    def _try_pending(self, data: bytes) -> StoreError | None:
        try:
            self._set_pending(data)
        except StoreError as error:
            return error
        return None

    def _count_pending(self, size: int) -> None:
        self._budget.resize(self._user, self._counted, size)
        self._counted = size

    def _set_pending(self, data: bytes) -> None:
        if self._counted or data:
            self._count_pending(len(data))
        self._pending = bytearray(data)
        self._writes = 1 if data else 0

    def _too_long(self) -> StoreError:
        sentence = f"a line is longer than {self._limit} bytes: raise the line_limit option"
        return StoreError(errno.EFBIG, "line-too-long", sentence)

    async def _judge_all(self, lines: Sequence[bytes]) -> tuple[list[Step], StoreError | None]:
        if sum(map(len, lines)) <= INLINE_BYTES:
            return self._judged(lines)
        long = max(map(len, lines)) > LONG_BYTES
        run = self._work.long if long else self._work.replay
        return await run(self._session.slug, self._judged, lines)

    def _judged(self, lines: Sequence[bytes]) -> tuple[list[Step], StoreError | None]:
        steps: list[Step] = []
        for line in lines:
            if len(line) > self._limit:
                return steps, self._too_long()
            try:
                steps.append(self.judge(line))
            except StoreError as error:
                return steps, error
        return steps, None

    async def _store(self, steps: Sequence[Step]) -> tuple[int, StoreError | None]:
        if not steps:
            return 0, None
        stored, failure = await self._writer.append(self._session, steps)
        self._count(steps[:stored])
        return stored, failure

    def _count(self, steps: Sequence[Step]) -> None:
        if not steps:
            return
        compacted = any(step.kind.is_compaction for step in steps)
        entries = sum(step.kind.is_entry for step in steps)
        self._counter.stored(self._session, entries, compacted)


class OpenAppend(Control):
    """`append`: a line is an entry, an event or a bare message."""

    name = "append"

    def __init__(self, stores: Stores, session: Session, caller: Caller, text: bytes) -> None:
        super().__init__(stores, session, caller, text)
        self._odd_roles: set[str] = set()
        """Roles about which the caller was warned."""

    def judge(self, line: bytes) -> Step:
        return self._documents.judge(line) if len(line) > LONG_BYTES else stored_form(line)

    def takes_at_flush(self) -> bool:
        return True

    def _count(self, steps: Sequence[Step]) -> None:
        super()._count(steps)
        for step in steps:
            if step.kind.is_entry and (role := step.value["message"]["role"]) not in ROLES:
                self._warn_of(role)

    def _warn_of(self, role: str) -> None:
        """Warn about an unknown role: the line is stored, but later readers may fail on it."""
        if role in self._odd_roles or len(self._odd_roles) >= ODD_ROLES_MAX:
            return
        self._odd_roles.add(role)
        sentence = (
            f"stored, but its role {printable(role)[:60]!r} is none of {', '.join(ROLES)}:"
            " a provider may refuse the conversation"
        )
        warning = StoreError(0, "unknown-role", sentence)
        self._failures.record(self.session, self.name, "write", warning, self.caller)
