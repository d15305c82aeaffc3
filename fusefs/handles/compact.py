"""`compact`: names of archives, with their summaries where the memory is an exported tree (G8, G31)."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from functools import partial
from typing import Final

from fusefs.failures import Caller
from fusefs.handles.control import Control, Stores
from fusefs.permissions import may_change
from fusefs.session.session import Session
from storage.archives import Memory
from storage.errors import StoreError, from_os_error, printable
from storage.formats.accept import archive_and_summary, compaction
from storage.formats.kinds import Step, classify
from storage.memory_tree import Permission
from storage.session.steps import Ownership
from storage.times import now

_REFUSALS: Final = frozenset(
    {errno.EROFS, errno.EEXIST, errno.EACCES, errno.EINVAL, errno.ENAMETOOLONG}
)
"""A summary refused with one of these would be refused again: its line does not stay pending (G6)."""


class Summarized(Step):
    """A compaction whose archive text must be stored before it."""

    summary: str


class OpenCompact(Control):
    """`compact`: a line is the name of an archive, or an object that has its text as well (G31).

    Reading gives the present one.
    """

    name = "compact"

    def __init__(self, stores: Stores, session: Session, caller: Caller, text: bytes) -> None:
        super().__init__(stores, session, caller, text)
        self._archives = stores.archives
        self._durable = stores.durable

    def judge(self, line: bytes) -> Step:
        name, summary = archive_and_summary(line)
        step = classify(compaction(name, now()))
        if summary is None:
            return step
        summarized = Summarized(*step)
        summarized.summary = summary
        return summarized

    def takes_at_flush(self) -> bool:
        # Part of a name looks like a whole one, so a name without newline must come in one write. Part
        # of an object is not an object, and stays pending.
        return self._writes == 1 or self._pending.lstrip().startswith(b"{")

    async def _store(self, steps: Sequence[Step]) -> tuple[int, StoreError | None]:
        for stored, step in enumerate(steps):
            try:
                if isinstance(step, Summarized):
                    await self._keep_summary(step)
            except StoreError as error:
                if error.errno in _REFUSALS:
                    self._set_pending(b"")
                return stored, error
            _, failure = await super()._store([step])
            if failure is not None:
                return stored, failure
        return len(steps), None

    async def _keep_summary(self, step: Summarized) -> None:
        """Store the summary first: after a crash it does no harm, and the history is unchanged."""
        if self._session.gone:
            raise self._session.deleted()
        keep = partial(
            _keep_summary,
            self._archives,
            self._session.fd,
            step,
            partial(may_change, caller=self.caller),
            sync=self._durable,
        )
        try:
            await self._work.long(self.session, keep)
        except FileNotFoundError:
            raise self._session.deleted() from None
        except OSError as error:
            raise from_os_error(error, f"read {printable(self.session)}") from error


def _keep_summary(
    archives: Memory, session_fd: int, step: Summarized, may: Permission, *, sync: bool
) -> None:
    mode = Ownership.of_session(session_fd).mode
    archives.keep(step.value["archive_name"], step.summary, mode, may, sync=sync)
