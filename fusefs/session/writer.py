"""Storing steps in one session: claims, durability, and what a daemon displaced.

Everything that stores holds the session's `writing` lock, so lines keep their order. Steps are claimed
on the loop, some at a time: in a thread each would cost twice, for the two keep the interpreter from
each other. Only where every step waits for the disk, or one is long, a thread does it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from fusefs.config import Sync
from fusefs.session.known import session_deleted
from fusefs.session.lock import Turn
from fusefs.session.recent_steps import Relocated, relocate
from fusefs.session.session import LiveSession
from storage.errors import StoreError, from_os_error, printable
from storage.session.steps import Claim, Ownership, sync_steps

AT_ONCE: Final = 32
"""So many steps are stored before others get a turn of the loop."""
BYTES_AT_ONCE: Final = 1 << 18
"""So many bytes likewise; a longer step is written by a thread."""
KEPT: Final = 16
"""So many new steps are kept open to be synced one by one; more are synced as a whole."""


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
                return 0, session_deleted(live.slug)
            try:
                ownership = Ownership.of_session(live.fd)
            except OSError as gone:
                return 0, from_os_error(gone, f"store a step in {printable(live.slug)}")
            stored, error = 0, None
            with live.lately.claiming():
                while stored < len(steps) and error is None:
                    claims, error = await self._claim(steps[stored:], len(steps), ownership)
                    for step, claimed in zip(steps[stored:], claims, strict=False):
                        live.stored(claimed.number)
                        live.lately.remember(claimed.number, step)
                        if self._sync is Sync.CLOSE:
                            self._unsynced.add(claimed)
                    stored += len(claims)
            if live.lately.displaced:
                live.on_displaced()
            if error is not None and stored == len(steps):
                # All are stored, so write must not say otherwise; the close will say it.
                self._unsynced.whole, error = True, None
            return stored, error

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
                done = await trio.to_thread.run_sync(work)
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

    async def _claim(
        self, steps: Sequence[bytes], most: int, ownership: Ownership
    ) -> tuple[list[Claim], StoreError | None]:
        """Claim the first of `steps`, of which there were `most`: as many as may be done at once."""
        if len(steps) < most:
            await trio.lowlevel.cancel_shielded_checkpoint()
        first = self.live.index.greatest + 1
        if self._sync is Sync.ALWAYS:
            return await trio.to_thread.run_sync(self._claim_durably, steps, first, ownership)
        keep = self._sync is Sync.CLOSE and most <= KEPT
        claim = partial(self._claim_all, _some(steps), first, ownership, keep=keep)
        if len(steps[0]) <= BYTES_AT_ONCE:
            return claim()
        return await trio.to_thread.run_sync(claim)

    def _claim_durably(
        self, steps: Sequence[bytes], first: int, ownership: Ownership
    ) -> tuple[list[Claim], StoreError | None]:
        claims, error = self._claim_all(steps, first, ownership, sync=True)
        try:
            os.fsync(self.live.fd)
        except OSError as failed:
            error = error or from_os_error(failed, "sync the session's directory")
        return claims, error

    def _claim_all(
        self,
        steps: Sequence[bytes],
        first: int,
        ownership: Ownership,
        *,
        sync: bool = False,
        keep: bool = False,
    ) -> tuple[list[Claim], StoreError | None]:
        claims: list[Claim] = []
        for step in steps:
            try:
                claimed = self.live.claimer.claim(first, step, ownership, sync=sync, keep=keep)
            except StoreError as error:
                return claims, error
            claims.append(claimed)
            first = claimed.number + 1
        return claims, None


def _some(steps: Sequence[bytes]) -> Sequence[bytes]:
    """The first of `steps`, as many as may be stored at once, and at least one."""
    size = 0
    for at, step in enumerate(steps[:AT_ONCE]):
        size += len(step)
        if at > 0 and size > BYTES_AT_ONCE:
            return steps[:at]
    return steps[:AT_ONCE]
