"""Removing the files of deleted sessions, after their deletion was answered."""

from __future__ import annotations

from fusefs.owed import Owed
from fusefs.work import Work
from storage.deletion import remove
from storage.store import Store


class Removals:
    """Hidden trees to be removed, one after the other. Loop-owned.

    What is left at the end `storage.sweep` clears, as it clears what a crash leaves.
    """

    def __init__(self, store: Store, work: Work) -> None:
        self._store = store
        self._work = work
        self._hidden = Owed[str]()

    def add(self, hidden: str) -> None:
        """Remove that tree when there is time."""
        self._hidden.add(hidden)

    async def run(self) -> None:
        """Remove what there is, until cancelled."""
        while True:
            hidden = await self._hidden.first()
            await self._work.long(self, remove, self._store, hidden)
            self._hidden.discard(hidden)
