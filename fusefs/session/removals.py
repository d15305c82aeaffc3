"""Removing the files of deleted sessions, after their deletion was answered."""

from __future__ import annotations

from collections import deque

import trio

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
        self._hidden: deque[str] = deque()
        self._waiting = trio.lowlevel.ParkingLot()

    def add(self, hidden: str) -> None:
        """Remove that tree when there is time."""
        self._hidden.append(hidden)
        self._waiting.unpark()

    async def run(self) -> None:
        """Remove what there is, until cancelled."""
        while True:
            while not self._hidden:
                await self._waiting.park()
            await self._work.long(self, remove, self._store, self._hidden[0])
            self._hidden.popleft()
