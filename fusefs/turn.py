"""Turns: who does something alone, in the order of coming."""

from __future__ import annotations

import trio


class Turn:
    """A lock that costs no round of the loop where it is free, unlike `trio.Lock`. Loop-owned."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def __aenter__(self) -> None:
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(self, *_error: object) -> None:
        self._lock.release()

    def locked(self) -> bool:
        """Whether somebody's turn is under way."""
        return self._lock.locked()
