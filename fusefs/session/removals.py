"""Removes the files of deleted sessions in the background, after rmdir was answered."""

from __future__ import annotations

from fusefs.owed import Owed
from fusefs.work import Work
from storage.deletion import remove
from storage.store import Store


class Removals:
    """A queue of hidden trees, removed one after the other. Loop-owned.

    What is left when the mount ends is removed by `storage.sweep`, like the remains of a crash.
    """

    def __init__(self, store: Store, work: Work) -> None:
        self._store = store
        self._work = work
        self._hidden = Owed[str]()

    def add(self, hidden: str) -> None:
        """Queue a hidden tree for removal."""
        self._hidden.add(hidden)

    async def run(self) -> None:
        """Remove queued trees, until cancelled."""
        while True:
            hidden = await self._hidden.first()
            await self._work.long(self, remove, self._store, hidden)
            self._hidden.discard(hidden)
