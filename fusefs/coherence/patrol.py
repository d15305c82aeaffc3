"""Looking at the early steps of long sessions where no events tell of changes (G13).

A listing tells what came, went or was replaced, and the last steps are looked at with it. That an
earlier one was edited is found here: one session at a time, beside the work of those who wait, and for
a tenth of the time at most. Only what was listed is looked at: nothing is done while nobody asks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Final

import trio

from fusefs.session.session import Session
from fusefs.work import Work
from storage.session.stamps import differing

PIECE_STEPS: Final = 1000
"""Steps looked at in one piece of work, well within its deadline."""
PAUSE_FACTOR: Final = 10
LEAST_PAUSE_SECONDS: Final = 1.0


async def look(work: Work, session: Session) -> bool:
    """Whether a step of an open session is not as it was seen; the next listing looks at it.

    Raises as `Work`.
    """
    stamps = session.index.stamps
    doubted: set[str] = set()
    for piece in _pieces({} if stamps is None else stamps.seen):
        doubted |= await work.long(session.slug, partial(differing, session.fd, piece))
    session.index.doubted |= doubted
    return bool(doubted)


async def rest(began: float) -> None:
    """Wait ten times as long as the look at a session took that `began` then."""
    took = time.monotonic() - began
    await trio.sleep(max(LEAST_PAUSE_SECONDS, PAUSE_FACTOR * took))


def _pieces(seen: Mapping[str, int]) -> Iterator[dict[str, int]]:
    left = iter(seen.items())
    while piece := dict(islice(left, PIECE_STEPS)):
        yield piece
