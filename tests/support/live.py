"""A session of a store as the mount holds it, without a file system: its pool, its events, its text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from fusefs.coherence.events import EventQueue
from fusefs.session.held_text import text
from fusefs.session.means import Means
from fusefs.session.pool import Pool
from fusefs.session.refresh import refresh
from fusefs.session.session import Session
from fusefs.session.step_texts import StepTexts
from fusefs.views.epoch import Epoch
from fusefs.views.formats import View
from fusefs.views.text_cache import TextCache
from fusefs.work import Work
from storage.archives import Memory
from storage.documents.pool import Documents
from storage.store import Store
from tests.support.stores import StoreOnDisk

CACHE_BYTES = 1 << 20


@dataclass(frozen=True)
class Live:
    """The parts of a mount that an open session needs."""

    store: Store
    means: Means
    pool: Pool
    events: EventQueue

    def session(self, slug: str) -> Session:
        """A session that is not open yet."""
        return Session(slug, texts=self.means.texts)

    async def shown(self, session: Session, view: View) -> bytes:
        """The whole text of a view, refreshed first."""
        epoch = await refresh(self.means, session, view)
        return await self.text(session, epoch)

    async def text(self, session: Session, epoch: Epoch) -> bytes:
        """The whole text of an epoch, current or not."""
        parts = [await text(self.means, session, epoch, segment) for segment in epoch.segments]
        return b"".join(parts)


@contextmanager
def living(
    on_disk: StoreOnDisk, cache: int = CACHE_BYTES, *, watched: bool = True
) -> Iterator[Live]:
    """Use within trio. With `watched` false, no events report changes, as on a far store."""
    store = Store(str(on_disk.path))
    events = EventQueue(store, near=watched)
    texts, documents = StepTexts(), Documents()
    means = Means(Work(near=watched), TextCache(cache), Memory(None), events, documents, texts)
    pool = Pool(store, means)
    try:
        yield Live(store, means, pool, events)
    finally:
        documents.close()
        pool.close_all()
        events.close()
        texts.close()
        store.close()


@asynccontextmanager
async def leased(
    on_disk: StoreOnDisk, cache: int = CACHE_BYTES, *, watched: bool = True
) -> AsyncIterator[tuple[Live, Session]]:
    """As `living`, with the session `a_b_1` open for the duration."""
    with living(on_disk, cache, watched=watched) as live:
        session = live.session("a_b_1")
        async with live.pool.lease(session):
            yield live, session
