"""Turns: who does something alone, in the order of coming."""

from __future__ import annotations

import trio


class Turn:
    """A lock that costs next to nothing where it is free: no round of the loop, unlike `trio.Lock`, and
    little memory, for every session that is known has some. Loop-owned.
    """

    __slots__ = ("_taken", "_waiting")

    def __init__(self) -> None:
        self._taken = False
        self._waiting: trio.lowlevel.ParkingLot | None = None
        """Tasks that wait for their turn; None while there are none."""

    async def __aenter__(self) -> None:
        if not self._taken:
            self._taken = True
            return
        if self._waiting is None:
            self._waiting = trio.lowlevel.ParkingLot()
        await self._waiting.park()  # whoever is woken has the turn

    async def __aexit__(self, *_error: object) -> None:
        if self._waiting:
            self._waiting.unpark()
        else:
            self._taken, self._waiting = False, None

    def locked(self) -> bool:
        """Whether somebody's turn is under way."""
        return self._taken

    def wanted(self) -> bool:
        """Whether somebody waits for a turn."""
        return bool(self._waiting)
