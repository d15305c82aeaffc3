"""Pushing: telling the kernel, and who waits in poll(2), what changed (G12, G14)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from fusefs.inodes.inode import SessionNode
from storage.errors import StoreError

log: Final = logging.getLogger(__name__)


AT_ONCE: Final = 4
"""So many sessions are pushed at a time: a long comparison of one must not hold up the others."""


PACE: Final = 0.003
"""Seconds between two pushes of one session: being told of must not slow a fast writer down."""


class Pusher:
    """Gathers the sessions that changed, and has each of them pushed once for many changes."""

    def __init__(self, push: Callable[[SessionNode], Awaitable[None]]) -> None:
        self._push = push
        self._changed: dict[SessionNode, None] = {}
        self._pushing: set[SessionNode] = set()
        self._idle = trio.lowlevel.ParkingLot()

    def note(self, node: SessionNode) -> None:
        """Something happened in a session."""
        self._changed[node] = None
        if node not in self._pushing:
            self._idle.unpark()

    async def run(self) -> None:
        """Push until cancelled; asleep while nothing happens."""
        self._pushing.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(self._work, nursery)

    async def _work(self, nursery: trio.Nursery) -> None:
        while True:
            node = self._next()
            if node is None:
                await self._idle.park()
                continue
            self._pushing.add(node)
            try:
                await self._push(node)
            except StoreError as error:
                log.debug("nothing was pushed for %s: %s", node.slug, error.sentence)
            finally:
                nursery.start_soon(self._rest, node)
            # One turn of the loop for all who ask, before the next session.
            await trio.lowlevel.checkpoint()

    async def _rest(self, node: SessionNode) -> None:
        await trio.sleep(PACE)
        self._pushing.discard(node)
        if node in self._changed:
            self._idle.unpark()

    def _next(self) -> SessionNode | None:
        node = next((node for node in self._changed if node not in self._pushing), None)
        if node is not None:
            del self._changed[node]
        return node
