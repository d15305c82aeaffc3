"""Storing steps in one session: claims, durability, and what a daemon displaced.

Everything that stores holds the session's `writing` lock, so lines keep their order; the claims
themselves run in a thread when there are many, and only on the loop is anything remembered of them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import trio

from fusefs.displaced import Relocated, relocate
from fusefs.options import Sync
from fusefs.session import LiveSession
from fusefs.turns import Turn
from storage.errors import StoreError, from_os_error, printable
from storage.steps import Claim, Ownership, sync_steps

INLINE_CLAIMS: Final = 4
"""So few steps are stored on the loop: a thread would cost more than they do."""
KEPT: Final = 16
"""So many new steps are kept open to be synced one by one; more are synced as a whole."""

T = TypeVar("T")


@dataclass(slots=True)
class Unsynced:
    """The steps of a session that are not known to be on disk."""

    fds: list[int] = field(default_factory=list)
    whole: bool = False

    def __bool__(self) -> bool:
        return bool(self.fds) or self.whole

    def add(self, claim: Claim) -> None:
        """One more step, kept open where there are few."""
        if claim.fd is None:
            self.whole = True
        elif len(self.fds) < KEPT:
            self.fds.append(claim.fd)
        else:
            os.close(claim.fd)
            self.whole = True

    def close(self) -> None:
        """Forget about them."""
        for fd in self.fds:
            os.close(fd)
        self.fds, self.whole = [], False


class Storing:
    """Stores steps in one live session, as the mount's `sync` option wants it."""

    def __init__(self, live: LiveSession, sync: Sync) -> None:
        self.live = live
        self._sync = sync
        self._unsynced = Unsynced()
        self._syncing = Turn()

    async def append(self, steps: Sequence[bytes]) -> tuple[int, StoreError | None]:
        """Store `steps` in their order (G5): how many were, and why the next was not."""
        live = self.live
        async with live.writing:
            await live.ready()
            if live.dead:
                return 0, _gone(live)
            try:
                ownership = Ownership.of_session(live.fd)
            except OSError as gone:
                return 0, from_os_error(gone, f"store a step in {printable(live.slug)}")
            first = live.index.greatest + 1
            claim = partial(self._claim, steps, first, ownership)
            with live.lately.claiming():
                claims, error = await self._run(len(steps), claim)
                for step, claimed in zip(steps, claims, strict=False):
                    live.stored(claimed.number)
                    live.lately.remember(claimed.number, step)
                    if self._sync is Sync.CLOSE:
                        self._unsynced.add(claimed)
            if live.lately.displaced:
                live.on_displaced()
            if error is not None and len(claims) == len(steps):
                # All are stored, so write must not say otherwise; the close will say it.
                self._unsynced.whole, error = True, None
            return len(claims), error

    async def sync(self) -> None:
        """Make all that was stored durable (G17). Raises `StoreError`.

        Who comes while another syncs finds its own steps synced with the next batch, or done.
        """
        if not self._unsynced and not self._syncing.locked():
            return
        async with self._syncing:
            if not self._unsynced:
                return
            batch, self._unsynced = self._unsynced, Unsynced()
            work = partial(sync_steps, self.live.fd, batch.fds, batch.whole)
            try:
                await trio.to_thread.run_sync(work)
            except OSError as error:
                self._unsynced.whole = True
                raise from_os_error(error, f"sync {printable(self.live.slug)}") from error
            finally:
                batch.close()

    async def restore(self) -> Relocated:
        """Store again what a daemon displaced (G16)."""
        live = self.live
        async with live.writing:
            await live.ready()
            live.look()
            plan = live.lately.plan()
            if not plan:
                return Relocated()
            try:
                ownership = Ownership.of_session(live.fd)
            except OSError as error:
                live.lately.put_back(plan)
                return Relocated(error=from_os_error(error, "store displaced steps again"))
            durable = self._sync is not Sync.NEVER
            work = partial(relocate, live.claimer, ownership, plan, live.index.greatest, durable)
            with live.lately.claiming():
                done = await self._run(len(plan), work)
                live.look()  # the events of its own moves are past then
                for relocation, number in done.stored:
                    live.stored(number)
                    live.lately.relocated(relocation, number)
            live.lately.put_back(done.left)
            self._unsynced.whole |= durable and bool(done.stored)
        await self.sync()
        return done

    def close(self) -> None:
        """Let go of open steps."""
        self._unsynced.close()

    def _claim(
        self, steps: Sequence[bytes], first: int, ownership: Ownership
    ) -> tuple[list[Claim], StoreError | None]:
        claims: list[Claim] = []
        always = self._sync is Sync.ALWAYS
        keep = self._sync is Sync.CLOSE and len(steps) <= KEPT
        for step in steps:
            try:
                claimed = self.live.claimer.claim(first, step, ownership, sync=always, keep=keep)
            except StoreError as error:
                return claims, error
            claims.append(claimed)
            first = claimed.number + 1
        if always:
            try:
                os.fsync(self.live.fd)
            except OSError as error:
                return claims, from_os_error(error, "sync the session's directory")
        return claims, None

    async def _run(self, steps: int, work: Callable[[], T]) -> T:
        if steps <= INLINE_CLAIMS and self._sync is not Sync.ALWAYS:
            return work()
        return await trio.to_thread.run_sync(work)


def _gone(live: LiveSession) -> StoreError:
    sentence = f"the session {printable(live.slug)} was deleted"
    return StoreError(errno.ENOENT, "session-deleted", sentence)
