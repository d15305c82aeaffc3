"""Stores steps: claims and durability.

Whoever stores steps holds the session's `writing` lock, so lines keep their order. On a near store steps
are claimed on the loop in small batches: GIL contention would double the cost of each in a thread. A
thread is used only if every step waits for the disk, or one is long.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from fusefs.config import Sync
from fusefs.session.listing import ready
from fusefs.session.means import Means
from fusefs.session.session import Session
from fusefs.session.unsynced import KEPT_STEPS, Unsynced
from storage.ahead import Outcome
from storage.errors import StoreError, doing, from_os_error, printable
from storage.formats.kinds import Step
from storage.posix import status
from storage.session.claims import Claim, Claimer
from storage.session.steps import Ownership, sync_steps

BATCH_STEPS: Final = 32
"""Limit of steps stored before yielding to the loop."""
BATCH_BYTES: Final = 1 << 18
"""Limit of bytes stored before yielding; a longer step is written in a thread."""
BATCH_SECONDS: Final = 0.0005
"""Limit of time spent before yielding."""
FAR_BATCH_STEPS: Final = 16
"""Limit of steps in one batch on a far store."""
FAR_BATCH_SECONDS: Final = 2.0
"""Limit of time for one batch on a far store, well within the deadline."""
SLOW_SECONDS: Final = 0.002
"""Claims that take longer than this wait for the disk, so the next ones are made in a thread."""

Claims = tuple[list[Claim], StoreError | None]


class Writer:
    """Stores steps in the sessions of one mount, according to its `sync` option. Loop-owned."""

    def __init__(self, means: Means, sync: Sync) -> None:
        self.means = means
        self._sync = sync
        self._slow = False
        """Whether the last claims were slow, so that the next ones need a thread."""

    async def append(
        self, session: Session, steps: Sequence[Step]
    ) -> tuple[int, StoreError | None]:
        """Store `steps` in their order (G5); returns how many were stored, and the error of the next.

        Raises `StoreError` if the session cannot be listed.
        """
        async with session.writing:
            if session.stale or self.means.work.near:
                try:
                    await ready(self.means, session, shown=False)
                except StoreError:
                    if not session.gone:
                        raise
            # On a far store the last listing is good enough: claims skip what others have stored.
            if session.gone:
                return 0, session.deleted()
            try:
                ownership = session.claimer.took or await self.ownership(session)
            except OSError as gone:
                if gone.errno in (errno.ENOENT, errno.ESTALE):
                    return 0, session.deleted()
                return 0, from_os_error(gone, f"store a step in {printable(session.slug)}")
            stored, error = 0, None
            with session.recent.claiming():
                while stored < len(steps) and error is None:
                    if stored:
                        await trio.lowlevel.cancel_shielded_checkpoint()
                    try:
                        claims, error = await self._claim(
                            session, steps[stored:], len(steps), ownership
                        )
                    except StoreError as silent:  # earlier steps are still reported as stored
                        claims, error, session.stale = [], silent, True
                    self._took(session, list(zip(steps[stored:], claims, strict=False)))
                    if session.gone:
                        return 0, session.deleted()
                    stored += len(claims)
                    await self.means.texts.settle()
            if stored:
                self.means.events.stored(session.slug)
            if session.recent.owed:
                self.means.events.mark(session)
            if error is not None and self._sync is Sync.ALWAYS:
                session.unsynced.whole = True  # it may be the error of syncing what was stored
            # If all steps are stored, write(2) must succeed; close(2) will report the error.
            return stored, error if stored < len(steps) else None

    async def sync(self, session: Session) -> None:
        """Make everything that was stored durable (G17). Raises `StoreError`.

        A caller that arrives while another syncs has its steps synced by the next batch.
        """
        if not session.unsynced and not session.syncing.locked():
            return
        async with session.syncing:
            if not session.unsynced:
                return
            batch, session.unsynced = session.unsynced, Unsynced()
            work = partial(_sync, session.fd, batch, near=self.means.work.near)
            try:
                await self.means.work.long(session.slug, work)
            except OSError as error:
                session.unsynced.whole = True
                raise from_os_error(error, f"sync {printable(session.slug)}") from error
            except StoreError:
                session.unsynced.whole = True
                raise
            finally:
                batch.close()

    async def settle(self, session: Session) -> None:
        """Wait until the temporaries of the last steps are removed, and so nothing uses the session's
        descriptor any more. For a store that is silent this waits no longer than the deadline."""
        clearing = session.claimer.clearing
        if clearing is not None and not clearing.done:
            with suppress(StoreError):  # the store is silent
                await self.means.work.long(session.slug, clearing.get)

    async def ownership(self, session: Session) -> Ownership:
        """Owner and mode of new steps. Raises `OSError`: ENOENT if the session was deleted."""
        if self.means.work.near:
            return Ownership.of_session(session.fd)
        return await self.means.work.small(session.slug, _ownership, session.fd, session.identity)

    def _took(self, session: Session, taken: Sequence[tuple[Step, Claim]]) -> None:
        for step, claim in taken:
            if not self.means.work.near and claim.number != session.index.greatest + 1:
                session.stale = True  # others have stored steps that are not known yet
            session.stored(claim.number, step, claim.identity)
        # The names may have been freed just before they were claimed: an event that tells so is not
        # about these steps.
        self.means.events.drain()
        for step, claim in taken:
            archive = step.archive if step.kind.is_compaction else None
            session.recent.remember(claim.number, claim.identity, step.data, archive)
            if self._sync is Sync.CLOSE and self.means.work.near:
                session.unsynced.add(claim)

    async def _claim(
        self, session: Session, steps: Sequence[Step], most: int, ownership: Ownership
    ) -> Claims:
        """Claim one batch from the beginning of `steps`, the rest of `most` steps to be stored."""
        first, claimer, work = session.index.greatest + 1, session.claimer, self.means.work
        if not work.near:
            return await self._claim_far(session, steps, ownership)
        if self._sync is Sync.ALWAYS:
            names = partial(_sync_names, session.fd, session.slug)
            durably = partial(_claim_durably, claimer, steps, first, ownership, names)
            return await work.long(session.slug, durably)
        keep = self._sync is Sync.CLOSE and most <= KEPT_STEPS
        batch, began = _batch(steps), time.monotonic()
        claim = partial(
            _claim_all, claimer, batch, first, ownership, keep=keep, until=BATCH_SECONDS
        )
        long = self._slow or len(batch[0].data) > BATCH_BYTES
        claims, error = await (work.long if long else work.small)(session.slug, claim)
        self._slow = (time.monotonic() - began) / max(1, len(claims)) > SLOW_SECONDS
        return claims, error

    async def _claim_far(
        self, session: Session, steps: Sequence[Step], ownership: Ownership
    ) -> Claims:
        """Claim one batch on a far store. Names are synced by a thread that nobody waits for until the
        close, when it has mostly ended, or with `sync=always` until the write returns."""
        work, first = self.means.work, session.index.greatest + 1
        names = None
        if self._sync is not Sync.NEVER:
            names = Outcome(partial(_sync_names, session.fd, session.slug))
        confirm = partial(_ownership, session.fd, session.identity)
        claim = partial(_claim_far, session.claimer, steps, first, ownership, confirm, names)
        claims, error = await work.long(session.slug, claim)
        if claims and names is not None:
            session.unsynced.add_names(names)
            if self._sync is Sync.ALWAYS:
                try:
                    await work.long(session.slug, names.get)
                except StoreError as failed:
                    error = error or failed
        return claims, error


def _sync(session_fd: int, batch: Unsynced, *, near: bool) -> None:
    for names in batch.names:
        names.get()
    if batch.fds or batch.whole:
        # On a far store contents were on disk before their names, and syncfs(2) reaches no server.
        sync_steps(session_fd, batch.fds, batch.whole and near)


def _sync_names(session_fd: int, slug: str) -> None:
    with doing(f"sync {printable(slug)}"):
        os.fsync(session_fd)


def _ownership(session_fd: int, identity: tuple[int, int] | None) -> Ownership:
    """As `Ownership.of_session`, for a session on a far store: on a file system that works by paths
    a descriptor may lead to whatever has the session's name now, so the identity is checked."""
    directory = os.fstat(session_fd)
    meta = status("meta", session_fd, kept=True)
    if (directory.st_dev, directory.st_ino) != identity:
        raise FileNotFoundError(errno.ENOENT, "the session was deleted")
    return Ownership.of(directory, meta)


def _claim_far(
    claimer: Claimer,
    steps: Sequence[Step],
    first: int,
    ownership: Ownership,
    confirm: Callable[[], Ownership],
    names: Outcome[None] | None,
) -> Claims:
    batch = [step.data for step in _batch(steps)[:FAR_BATCH_STEPS]]
    return claimer.claim_batch(
        first,
        batch,
        ownership,
        sync=names is not None,
        names=names,
        until=FAR_BATCH_SECONDS,
        confirm=confirm,
    )


def _claim_durably(
    claimer: Claimer,
    steps: Sequence[Step],
    first: int,
    ownership: Ownership,
    sync_names: Callable[[], None],
) -> Claims:
    claims, error = _claim_all(claimer, steps, first, ownership, sync=True)
    try:
        sync_names()
    except StoreError as failed:
        error = error or failed
    return claims, error


def _claim_all(
    claimer: Claimer,
    steps: Sequence[Step],
    first: int,
    ownership: Ownership,
    *,
    sync: bool = False,
    keep: bool = False,
    until: float = math.inf,
) -> Claims:
    """Claim all steps, or as many as `until` seconds allow, but at least one."""
    claims: list[Claim] = []
    end = time.monotonic() + until
    for step in steps:
        if claims and time.monotonic() >= end:
            break
        try:
            claimed = claimer.claim(first, step.data, ownership, sync=sync, keep=keep)
        except StoreError as error:
            return claims, error
        claims.append(claimed)
        first = claimed.number + 1
    return claims, None


def _batch(steps: Sequence[Step]) -> Sequence[Step]:
    """The first steps that may be stored in one batch, at least one."""
    size = 0
    for at, step in enumerate(steps[:BATCH_STEPS]):
        size += len(step.data)
        if at > 0 and size > BATCH_BYTES:
            return steps[:at]
    return steps[:BATCH_STEPS]
