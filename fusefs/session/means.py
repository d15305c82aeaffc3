"""What refreshing a session needs; decides whether a pass over steps runs on the loop (G23)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

from fusefs.session.events import Events
from fusefs.session.session import Session
from fusefs.session.step_texts import StepTexts
from fusefs.views.cuts import AtTime, Cut
from fusefs.views.text_cache import TextCache
from fusefs.work import Work
from storage.archives import Memory
from storage.documents.pool import Documents
from storage.formats.kinds import Step
from storage.session.reader import Reader, Spent
from storage.session.steps import LongStep

INLINE_STEPS: Final = 128
"""Passes of up to this many steps are first tried on the loop: a thread costs more than most of them."""
JUDGED_SESSIONS: Final = 16
"""The last judged steps are kept for this many sessions, for their other views."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Means:
    """What refreshing a session needs besides the session."""

    work: Work
    cache: TextCache
    archives: Memory
    events: Events
    documents: Documents
    texts: StepTexts
    """Texts of the steps that may have to be stored again."""
    _judging: OrderedDict[Session, None] = field(default_factory=OrderedDict)
    """Sessions whose judged steps are kept, least recently used first."""

    async def replay(
        self, session: Session, steps: int, work: Callable[[Reader], T], cut: Cut | None = None
    ) -> T:
        """Run a pass over `steps` steps: on the loop if they are few, short and near, else in a thread.

        A pass that begins with a long step waits for a worker process, in a thread for long work.
        Raises what `work` raises.
        """
        key, reader, judged = session.slug, session.reader, session.judged
        if isinstance(cut, AtTime):
            reader = reader.as_of(cut.time_ns)
        if not self.work.near or steps > INLINE_STEPS:
            return await self._elsewhere(
                key, work, reader.undocumented(judged.steps.copy()), reader
            )
        brief = reader.brief(judged.steps)
        with suppress(Spent):
            try:
                return await self.work.small(key, work, brief)
            finally:
                self._keep(session, brief.judged)
        changes, noting = session.changes, reader.undocumented(judged.steps.copy(), noting=True)
        done = await self._elsewhere(key, work, noting, reader)
        if session.changes == changes:  # else what was read may be outdated
            self._keep(session, noting.judged)
        return done

    async def _elsewhere(
        self, key: str, work: Callable[[Reader], T], undocumented: Reader, reader: Reader
    ) -> T:
        with suppress(LongStep):
            return await self.work.replay(key, work, undocumented)
        return await self.work.long(key, work, reader)

    def _keep(self, session: Session, judged: Mapping[str, Step]) -> None:
        """Keep judged steps for the session's other views, which are often read next."""
        if not judged or session.stale or session.watch is None:
            return
        for name, step in judged.items():
            session.judged.add(name, step)
        self._judging[session] = None
        self._judging.move_to_end(session)
        if len(self._judging) > JUDGED_SESSIONS:
            self._judging.popitem(last=False)[0].judged.clear()
