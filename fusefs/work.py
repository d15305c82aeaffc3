"""What may run on the event loop, and where everything else runs.

All work on a store goes through `Work`, which decides by the kind of work and by whether the store is
near or far. Work on the loop is bounded by constants, whoever wrote the file being read:

    kind       near store                         far store (every call may wait)
    small      on the loop, no checkpoint         a thread, with a deadline
    long       a thread: it waits (disk, lock)    a thread, with a deadline
    replay     a thread: it computes, few at once a thread, with a deadline

`small` work is a few short system calls and some KiB. Each key (usually a session's slug) gets only a
share of the threads, so that one session never takes all of them. Work that does not touch the store
never comes here, and so never waits for a store that does not answer (G27).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable
from typing import Final, TypeVar, TypeVarTuple, cast

import trio

from storage.errors import StoreError

PATIENCE_SECONDS: Final = 0.3
"""How long a cached answer waits for a far store to confirm it."""
THREADS: Final = 16
"""Threads per mount that may work on its store at a time."""
KEY_THREADS: Final = 4
"""Threads that one key may use at a time."""
REPLAY_THREADS: Final = 2
"""Concurrent replays of a near store: they hold the interpreter lock, so more would slow the loop."""
DEADLINE_SECONDS: Final = 60.0
"""Default deadline for one piece of work on a far store."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Work:
    """Runs all work on one store. Loop-owned; the functions passed to it may run in threads."""

    def __init__(self, near: bool, deadline: float = DEADLINE_SECONDS) -> None:
        """`near` says that the store is local; `deadline` is in seconds, for far stores."""
        self.near = near
        self._deadline = deadline
        self._threads = trio.CapacityLimiter(THREADS)
        self._replays = trio.CapacityLimiter(REPLAY_THREADS) if near else self._threads
        self._shares: dict[Hashable, _Share] = {}
        self._small: dict[object, float] = {}
        self._others: dict[object, float] = {}
        """When each unfinished piece of work began, including those abandoned at a deadline."""

    @property
    def silent_seconds(self) -> float:
        """Age of the oldest unanswered request to a far store; 0 if none is pending."""
        return max(_age(self._small), _age(self._others))

    def patience(self) -> trio.CancelScope:
        """A scope for callers with a cached answer: cancelled soon if a far store does not answer.

        Cancelled at once if another request has already waited that long in vain.
        """
        if self.near:
            return trio.CancelScope()
        return trio.move_on_after(max(0.0, PATIENCE_SECONDS - _age(self._small)))

    async def small(self, key: Hashable, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run work of a few short system calls; on a near store at once, without a checkpoint.

        Raises what `work` raises, and `StoreError` ETIMEDOUT if a far store does not answer.
        """
        if self.near:
            return work(*args)
        return await self._in_thread(self._threads, self._small, key, work, *args)

    async def long(self, key: Hashable, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run work that may wait for a disk, a lock or a large directory: never on the loop.

        Raises as `small`.
        """
        return await self._in_thread(self._threads, self._others, key, work, *args)

    async def replay(self, key: Hashable, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run long computations, such as reading and judging many steps. Raises as `small`."""
        return await self._in_thread(self._replays, self._others, key, work, *args)

    def afterwards(self, key: Hashable, call: Callable[[], object]) -> None:
        """Make a short call as soon as no thread that works for `key` now does so any more, not even one
        that was abandoned. Later work does not delay it."""
        share = self._shares.pop(key, None)
        if share is None:
            call()
        else:
            share.afterwards.append(call)

    async def _in_thread(
        self,
        threads: trio.CapacityLimiter,
        pieces: dict[object, float],
        key: Hashable,
        work: Callable[[*Ts], T],
        *args: *Ts,
    ) -> T:
        limiter = cast(trio.CapacityLimiter, _Both(self._shares, key, threads, pieces))
        if self.near:
            return await trio.to_thread.run_sync(work, *args, limiter=limiter)
        with trio.move_on_after(self._deadline):
            return await trio.to_thread.run_sync(
                work, *args, limiter=limiter, abandon_on_cancel=True
            )
        sentence = f"the store has not answered for {self._deadline:g} s"
        raise StoreError(errno.ETIMEDOUT, "store-silent", sentence)


def _age(pieces: dict[object, float]) -> float:
    """Age in seconds of the oldest piece of unfinished work; 0 if there is none."""
    began = next(iter(pieces.values()), None)
    return 0.0 if began is None else trio.current_time() - began


class _Share:
    """The thread limit of one key; dropped when no thread is in use or waited for."""

    def __init__(self, shares: dict[Hashable, _Share], key: Hashable) -> None:
        self.afterwards: list[Callable[[], object]] = []
        """Calls to be made when it is dropped."""
        self._shares = shares
        self._key = key
        self._limiter = trio.CapacityLimiter(KEY_THREADS)
        self._users = 0

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        self._users += 1
        try:
            await self._limiter.acquire_on_behalf_of(borrower)
        except BaseException:
            self._leave()
            raise

    def release_on_behalf_of(self, borrower: object) -> None:
        self._limiter.release_on_behalf_of(borrower)
        self._leave()

    def _leave(self) -> None:
        self._users -= 1
        if self._users == 0:
            if self._shares.get(self._key) is self:
                del self._shares[self._key]
            for call in self.afterwards:
                call()


class _Both:
    """Acquires from a key's share and from all threads; a limiter for `trio.to_thread.run_sync`.

    An abandoned thread keeps its token until it ends, so that a store that does not answer never
    exceeds its limit.
    """

    def __init__(
        self,
        shares: dict[Hashable, _Share],
        key: Hashable,
        threads: trio.CapacityLimiter,
        pieces: dict[object, float],
    ) -> None:
        self._shares = shares
        self._key = key
        self._threads = threads
        self._pieces = pieces

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        self._pieces[self] = trio.current_time()
        share = self._shares.get(self._key)
        if share is None:
            share = self._shares[self._key] = _Share(self._shares, self._key)
        self._share = share
        try:
            await self._share.acquire_on_behalf_of(borrower)
            try:
                await self._threads.acquire_on_behalf_of(borrower)
            except BaseException:
                self._share.release_on_behalf_of(borrower)
                raise
        except BaseException:
            del self._pieces[self]
            raise

    def release_on_behalf_of(self, borrower: object) -> None:
        del self._pieces[self]
        self._threads.release_on_behalf_of(borrower)
        self._share.release_on_behalf_of(borrower)
