"""A fair lock for the tasks of one event loop."""

from __future__ import annotations

import trio


class Turn:
    """A first-come, first-served lock that is cheap while free. Loop-owned.

    Unlike `trio.Lock` it takes no round of the loop then, and little memory, since every known session
    has several.
    """

    __slots__ = ("_taken", "_waiting")

    def __init__(self) -> None:
        self._taken = False
        self._waiting: trio.lowlevel.ParkingLot | None = None
        """Tasks waiting for their turn; None while there are none."""

    async def __aenter__(self) -> None:
        if not self._taken:
            self._taken = True
            return
        if self._waiting is None:
            self._waiting = trio.lowlevel.ParkingLot()
        await self._waiting.park()  # the lock is handed over to the task that is woken

    async def __aexit__(self, *_error: object) -> None:
        if self._waiting:
            self._waiting.unpark()
        else:
            self._taken, self._waiting = False, None

    def locked(self) -> bool:
        """Whether a task holds the lock."""
        return self._taken

    def wanted(self) -> bool:
        """Whether a task waits for the lock."""
        return bool(self._waiting)
