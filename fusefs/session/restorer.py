"""Stores displaced steps again, and restores the order of the steps stored after them (G16).

Every name is examined before it is acted on. Displaced steps are stored again as soon as daemons are
quiet, or else after a short time. Steps that still have their names are moved up behind them only while
daemons are quiet: no system call removes a name only if it belongs to a given file, and the next name
that a daemon renames over is that of such a step. While a daemon writes on, it displaces these steps
itself, which brings them into order as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from fusefs.session.listing import ready
from fusefs.session.looks import compare, identity, look
from fusefs.session.means import Means
from fusefs.session.session import Session
from fusefs.session.step_table import Remembered
from fusefs.session.writer import SLOW_SECONDS, Writer
from storage.ahead import Outcome, start
from storage.errors import StoreError, from_os_error
from storage.session.claims import Claimer
from storage.session.moving import Mover
from storage.session.steps import Ownership, step_name

BATCH_STEPS: Final = 64
"""Steps stored again, or moved, per job."""
QUICK_STEPS: Final = 16
"""Steps moved per job on the loop, while each takes less than `SLOW_SECONDS`."""
BATCH_BYTES: Final = 1 << 20
"""Bytes of text per job; a longer text is a batch of its own."""
LOOK_STEPS: Final = 1024
"""Names examined per job."""
TURN_SECONDS: Final = 0.2
"""Time for which the session's `writing` lock is held."""
SHARED_SECONDS: Final = 0.02
"""The same while writers of the session wait for the lock."""
SYNCED_STEPS: Final = 16
"""Batches of up to this many steps are synced step by step, larger ones as a whole."""
QUIET_SECONDS: Final = 0.02
"""A daemon that has not written for this long is quiet."""
PATIENCE_SECONDS: Final = 0.05
"""Displaced steps wait this long for daemons to be quiet."""
QUIET_UNWATCHED_SECONDS: Final = 2.5
"""`QUIET_SECONDS` without events, where steps are looked for once a second."""


@dataclass(slots=True)
class Restored:
    """The outcome of one `restore`."""

    archives: list[str] = field(default_factory=list)
    """Archives of displaced compactions, which are not stored again: that would hide later steps."""
    lost: list[int] = field(default_factory=list)
    """Numbers of steps that cannot be stored again because there was no room for their text."""
    error: StoreError | None = None
    """Why the rest could not be stored again this time."""
    stored: bool = False
    """Whether anything was stored and has to be synced."""


@dataclass(slots=True)
class _Done:
    """The outcome of one job."""

    stored: list[tuple[Remembered, int, int]] = field(default_factory=list)
    """Steps that were stored or moved, with their new numbers and identities."""
    found: list[Remembered] = field(default_factory=list)
    """Steps that still have their names."""
    given_up: list[Remembered] = field(default_factory=list)
    """Steps without a text to store."""
    error: StoreError | None = None
    """Why the job ended early."""


class _Turn:
    """Limits the time for which the session's writers wait; at least one job is done per turn."""

    def __init__(self, session: Session) -> None:
        self._writing = session.writing
        self._began = time.monotonic()

    def is_over(self) -> bool:
        most = SHARED_SECONDS if self._writing.wanted() else TURN_SECONDS
        return time.monotonic() > self._began + most


class Restorer:
    """Makes sure that what this mount stored stays in the store. Loop-owned."""

    def __init__(self, means: Means, writer: Writer, durable: bool) -> None:
        """`durable`: steps that are stored again are synced."""
        self.means = means
        self._writer = writer
        self._durable = durable
        self._slow = False
        """Whether the last moves were slow, so that the next ones need a thread."""
        self._unfinished: dict[Session, Outcome[_Done]] = {}
        """Steps being stored again for which the store did not answer in time; it may answer yet."""

    async def restore(self, session: Session) -> Restored:
        """Examine doubted steps, store displaced ones again, and move those that are out of order.

        The session is open. Does as much as one turn allows; `session.recent.owed` says whether there
        is more to do. Errors are returned, not raised.
        """
        done, recent = Restored(), session.recent
        self._unfinished = {of: store for of, store in self._unfinished.items() if not of.gone}
        try:
            async with session.writing:
                await ready(self.means, session, shown=False)
                self.means.events.drain()
                turn = _Turn(session)
                with recent.claiming():
                    await self._look(session, turn)
                    due = self._is_due(session)
                    while due and recent.displaced and not done.error:
                        await self._store(session, done)
                        due = not turn.is_over()
                    if not recent.displaced and done.error is None:
                        await self._move(session, done, turn)
        except OSError as error:
            done.error = from_os_error(error, "store displaced steps again")
        except StoreError as error:
            done.error = error
        return done

    def _is_due(self, session: Session) -> bool:
        recent, now = session.recent, trio.current_time()
        waited, quiet = recent.displaced_seconds(now), recent.reach.quiet_seconds(now)
        return quiet >= QUIET_SECONDS or waited >= PATIENCE_SECONDS

    async def _look(self, session: Session, turn: _Turn) -> None:
        """Examine the doubted steps."""
        recent, work = session.recent, self.means.work
        while recent.doubtful:
            steps = recent.doubted(LOOK_STEPS)
            try:
                gone, others = await work.replay(session.slug, look, session.fd, steps)
                same: list[Remembered] = []
                for batch in _batches(others):
                    texts = await self._texts(batch)
                    job = partial(compare, session.fd, batch, texts)
                    removed, alike = await work.replay(session.slug, job)
                    gone += removed
                    same += alike
            except BaseException:
                recent.doubt(step.number for step in steps)
                raise
            self.means.events.drain()
            recent.looked(gone, others, same)
            if turn.is_over():
                return

    async def _store(self, session: Session, done: Restored) -> None:
        recent = session.recent
        storing = self._unfinished.get(session) or start(await self._next_store(session))
        self._unfinished[session] = storing
        try:
            piece = await self.means.work.long(session.slug, storing.get)
        except BaseException:
            if storing.done and not storing.succeeded:
                del self._unfinished[session]
            raise
        del self._unfinished[session]
        self._take_in(session, piece, done)
        for step in piece.given_up:
            archive = recent.archive(step)
            if archive is None:
                done.lost.append(step.number)
            else:
                done.archives.append(archive)
            recent.given_up(step)
        for step in piece.found:
            recent.found(step)

    async def _next_store(self, session: Session) -> Callable[[], _Done]:
        """What stores the next displaced steps again."""
        recent = session.recent
        batch = next(_batches(recent.to_restore(BATCH_STEPS)))
        texts = await self._texts(batch)
        ownership = await self._writer.ownership(session)
        compactions = {step.at for step in batch if recent.archive(step) is not None}
        jobs = [
            (step, None if step.at in compactions else text)
            for step, text in zip(batch, texts, strict=True)
        ]
        # On a far store nothing else has contents on disk: syncfs(2) reaches no server.
        sync = self._durable and (len(jobs) <= SYNCED_STEPS or not self.means.work.near)
        target = recent.refuge(session.index.greatest)
        return partial(
            _store_again, session.claimer, session.fd, ownership, jobs, target, sync=sync
        )

    async def _move(self, session: Session, done: Restored, turn: _Turn) -> None:
        recent = session.recent
        watched = session.watch is not None
        enough = QUIET_SECONDS if watched else QUIET_UNWATCHED_SECONDS
        if not recent.order.broken or recent.reach.quiet_seconds(trio.current_time()) < enough:
            return
        while recent.order.broken and not recent.doubtful and done.error is None:
            self.means.events.drain()
            quiet = recent.reach.quiet_seconds(trio.current_time()) >= enough
            if not quiet or recent.displaced:
                return
            await self._move_some(session, done)
            if turn.is_over():
                return
            await trio.lowlevel.checkpoint()

    async def _move_some(self, session: Session, done: Restored) -> None:
        """Move the next steps: on the loop if that is quick, so that no event can come in between."""
        recent, work = session.recent, self.means.work
        quick = work.near and not self._slow
        steps = recent.take(recent.order.to_move(QUICK_STEPS if quick else BATCH_STEPS))
        if not steps:
            return
        mover = Mover(session.claimer, renames=work.near)
        move = partial(_move_up, mover, steps, recent.refuge(session.index.greatest))
        began = time.monotonic()
        try:
            piece = await (work.small if quick else work.long)(session.slug, move)
            self._take_in(session, piece, done)
        finally:
            for step in steps:
                recent.back(step)
        self._slow = (time.monotonic() - began) / len(steps) > SLOW_SECONDS

    def _take_in(self, session: Session, piece: _Done, done: Restored) -> None:
        for _, number, new in piece.stored:
            session.restored(number, new)
        self.means.events.drain()  # what befell the new names before does not concern these steps
        for step, number, new in piece.stored:
            session.recent.restored(step, number, new)
        if piece.stored:
            self.means.events.stored(session.slug)
            session.unsynced.whole |= self._durable
            done.stored = True
        done.error = piece.error

    async def _texts(self, steps: Sequence[Remembered]) -> list[bytes | None]:
        return await self.means.texts.read([(step.at, step.length) for step in steps])


def _batches(steps: Sequence[Remembered]) -> Iterator[Sequence[Remembered]]:
    """Split `steps` into batches of up to `BATCH_BYTES`, each of at least one step."""
    first = size = 0
    for at, step in enumerate(steps):
        if at > first and size + step.length > BATCH_BYTES:
            yield steps[first:at]
            first, size = at, 0
        size += step.length
    if first < len(steps):
        yield steps[first:]


def _store_again(
    claimer: Claimer,
    session_fd: int,
    ownership: Ownership,
    jobs: Sequence[tuple[Remembered, bytes | None]],
    target: int,
    *,
    sync: bool,
) -> _Done:
    """Store steps again from `target` on; those without a text are given up."""
    done = _Done()
    for step, text in jobs:
        try:
            if identity(session_fd, step) == step.identity:
                done.found.append(step)
            elif text is None:
                done.given_up.append(step)
            else:
                claim = claimer.claim(target, text, ownership, sync=sync)
                done.stored.append((step, claim.number, claim.identity))
                target = claim.number + 1
        except OSError as error:
            done.error = from_os_error(error, f"check {step_name(step.number)}")
            break
        except StoreError as error:
            done.error = error
            break
    return done


def _move_up(mover: Mover, steps: Sequence[Remembered], target: int) -> _Done:
    done = _Done()
    for step in steps:
        try:
            moved = mover.move(step.number, step.identity, target)
        except StoreError as error:
            done.error = error
            break
        if moved is not None:
            done.stored.append((step, moved, step.identity))
            target = moved + 1
    return done
