"""Polls followed sessions on a store without events, often at first and then less often (G28).

A session is followed while somebody waits in poll(2) for it, and while it holds steps of this mount that
a daemon may displace (G16). The interval between its polls grows with the time for which nothing has
changed in it and with the cost of a poll, and the polls of all sessions together are bounded.
If nothing is followed, nothing is polled.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import trio

from fusefs.session.listing import lag_seconds, most_lag_seconds
from fusefs.session.session import Session

QUIET_FACTOR: Final = 10
"""After ten quiet seconds the next poll is one second later: a change is at most a tenth late."""
UNWAITED_SECONDS: Final = 1.0
UNWAITED_MOST_SECONDS: Final = 30.0
"""Pause between two polls for displaced steps: at first, and after a long quiet time."""
PACE_SECONDS: Final = 0.04
LOOKS_AT_ONCE: Final = 8
"""At most this many sessions are polled per `PACE_SECONDS`: 200 a second."""


@dataclass(slots=True)
class Followed:
    """Since when a session is followed, and when its last poll began; clock as `Session.listed_at`."""

    since: float
    looked_at: float


class Polling:
    """The followed sessions, and when each is to be polled next. Loop-owned."""

    def __init__(self) -> None:
        self._followed: dict[Session, Followed] = {}
        self._came = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._followed)

    def follow(self, session: Session) -> None:
        """Follow a session: somebody waits for changes in it, or steps were stored in it."""
        if session not in self._followed:
            self._followed[session] = Followed(time.monotonic(), 0.0)
        self._came.unpark_all()

    async def take(self) -> list[Session]:
        """Wait until sessions are due; returns them, as many as may be polled at once."""
        while True:
            await trio.sleep(PACE_SECONDS)
            now = time.monotonic()
            due = sorted(self._due(now), key=lambda found: found[0])
            ready = [session for at, session in due[:LOOKS_AT_ONCE] if at <= now]
            if ready:
                for session in ready:
                    self._followed[session].looked_at = now
                return ready
            with trio.move_on_after(due[0][0] - now if due else math.inf):
                await self._came.park()

    def _due(self, now: float) -> Iterator[tuple[float, Session]]:
        """When each session is to be polled next; drops those that nobody follows any more."""
        for session, followed in list(self._followed.items()):
            interval = interval_seconds(session, followed.since, now)
            if interval is None:
                del self._followed[session]
            else:
                yield max(session.listed_at, followed.looked_at) + interval, session


def interval_seconds(session: Session, since: float, now: float) -> float | None:
    """How long after its last listing a session is to be listed again; None if nobody follows it.

    It has been followed since `since`.
    """
    if session.watch is not None or not (session.is_open or len(session.recent)):
        return None
    quiet = (now - max(session.changed_at, since)) / QUIET_FACTOR
    if is_waited_for(session):
        return min(max(quiet, lag_seconds(session)), most_lag_seconds(session))
    if len(session.recent):
        return min(max(quiet, UNWAITED_SECONDS), UNWAITED_MOST_SECONDS)
    return None


def is_waited_for(session: Session) -> bool:
    """Whether somebody waits in poll(2) for one of its views."""
    return any(epoch.waited_for for epoch in session.epochs.values())
