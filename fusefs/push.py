"""Pushing: telling the kernel, and who waits in poll(2), what changed (G12, G14)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from fusefs.nodes import SessionNode
from storage.errors import StoreError

log: Final = logging.getLogger(__name__)


class Pusher:
    """Gathers the sessions that changed, and has each of them pushed once for many changes."""

    def __init__(self, push: Callable[[SessionNode], Awaitable[None]]) -> None:
        self._push = push
        self._changed: dict[SessionNode, None] = {}
        self._woken = trio.Event()

    def note(self, node: SessionNode) -> None:
        """Something happened in a session."""
        self._changed[node] = None
        self._woken.set()

    async def run(self) -> None:
        """Push until cancelled; asleep while nothing happens."""
        while True:
            await self._woken.wait()
            self._woken = trio.Event()
            changed, self._changed = self._changed, {}
            for node in changed:
                try:
                    await self._push(node)
                except StoreError as error:
                    log.debug("nothing was pushed for %s: %s", node.slug, error.sentence)
            # One turn of the loop for all who ask, before the next batch.
            await trio.lowlevel.checkpoint()
