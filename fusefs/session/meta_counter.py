"""The advice in a session's meta: when it was last written to, and how many messages it holds (G9)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from fusefs.failures import KERNEL, Failures
from fusefs.session.session import LiveSession
from storage.errors import StoreError, from_os_error
from storage.session import meta
from storage.store import now

QUIET: Final = 0.25
"""Seconds without another store after which the meta is written."""
LATEST: Final = 0.8
"""Seconds after the first store by which it is written in any case, so that it is within one."""


@dataclass(slots=True)
class _Pending:
    first: float
    last: float
    entries: int = 0
    reset: bool = False


class Counting:
    """Gathers what was stored, and writes it to the metas a moment later. Loop-owned."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._pending: dict[LiveSession, _Pending] = {}
        self._woken = trio.Event()

    def stored(self, live: LiveSession, entries: int, compacted: bool) -> None:
        """Entries were stored in a session, or a compaction, after which the count begins anew."""
        time = trio.current_time()
        pending = self._pending.get(live)
        if pending is None:
            pending = self._pending[live] = _Pending(time, time)
            live.users += 1
        pending.last = time
        pending.reset |= compacted
        pending.entries = entries if compacted else pending.entries + entries
        self._woken.set()

    async def run(self) -> None:
        """Write what is due, until cancelled; asleep while there is nothing."""
        while True:
            while not self._pending:
                self._woken = trio.Event()
                await self._woken.wait()
            due = min(map(_due, self._pending.values()))
            await trio.sleep_until(due)
            for live in [s for s, p in self._pending.items() if _due(p) <= trio.current_time()]:
                await self._write(live)

    async def finish(self) -> None:
        """Write everything now."""
        for live in list(self._pending):
            await self._write(live)

    async def _write(self, live: LiveSession) -> None:
        pending = self._pending.pop(live, None)
        if pending is None:
            return  # `run` and `finish` both came to it
        change = meta.count_delta(pending.entries, now(), reset=pending.reset)
        work = partial(meta.update, live.fd, change, sync=False)
        try:
            if not live.dead:
                await trio.to_thread.run_sync(work)
        except StoreError as error:
            self._failures.record(live.slug, "meta.json", "count", error, KERNEL)
        except OSError as error:
            if not live.dead:
                found = from_os_error(error, "write the meta")
                self._failures.record(live.slug, "meta.json", "count", found, KERNEL)
        finally:
            live.leave()


def _due(pending: _Pending) -> float:
    return min(pending.last + QUIET, pending.first + LATEST)
