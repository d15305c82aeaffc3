"""The listing of a session: which steps there are, brought up to date, and how old it may be (G12).

Where events tell of changes a session is listed once. Elsewhere whoever must be exact lists it at each
call, and others only from time to time.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from fusefs.session.means import Means
from fusefs.session.session import Session
from storage.errors import from_os_error, printable
from storage.session.index import Index, scan, scan_agreeing
from storage.session.stamps import LOOKED_AT, LOOKED_AT_OFTEN

INLINE_DIRECTORY_BYTES: Final = 1 << 14
"""Directories of at most so many bytes are listed at once."""
MOST_LAG_SECONDS: Final = 0.8
"""How old a listing may be for a stat where no events tell of changes: with the next one it is less
than a second (G12)."""
MOST_LAG_OF_SLOW_SECONDS: Final = 0.4
"""The same where a listing takes long."""
LEAST_LAG_SECONDS: Final = 0.05
LAG_FACTOR: Final = 10
"""A session is listed for a tenth of the time at most by who need not be exact."""
_DIRECTORY_IS_GONE: Final = frozenset({errno.ENOENT, errno.ESTALE})


async def ready(means: Means, session: Session, exact: bool = True) -> None:
    """Know the steps that are in the store now, or were lately. Raises `StoreError`."""
    if session.stale or session.watch is None:
        async with session.lock:
            try:
                await relist(means, session, exact)
            except OSError as error:
                raise from_os_error(error, f"list {printable(session.slug)}") from error


async def relist(means: Means, session: Session, exact: bool) -> None:
    """List the session where that is needed. The caller holds `Session.lock`.

    Raises `StoreError` ESTALE where it is gone, and `OSError`.
    """
    if not session.stale and session.watch is not None:
        return
    now, losses = time.monotonic(), session.losses
    if not session.stale and not exact and now - session.listed_at < lag_seconds(session):
        return
    session.backlog = []
    try:
        directory = await means.work.small(session.slug, os.fstat, session.fd)
        if directory.st_nlink == 0:
            session.gone = True
        run = means.work.small if directory.st_size <= INLINE_DIRECTORY_BYTES else means.work.replay
        new = await run(session.slug, _listing(means, session, exact))
    except BaseException as error:
        session.unlisted()
        if isinstance(error, OSError) and error.errno in _DIRECTORY_IS_GONE:
            # Its name may be another session's, though it looks the same: inode numbers come again.
            session.gone = True
            means.events.mark(session)
            raise session.replaced() from error
        raise
    for name, sentence in new.strange:
        session.skipped.note(name, sentence)
    changed = session.relisted(new, stale=session.losses != losses)
    session.listed_at, session.listing_seconds = now, time.monotonic() - now
    if changed is None or changed:
        session.changed_at = now
    if session.recent.owed:
        means.events.mark(session)
    if session.epochs and new.stamps is not None and not new.stamps.all_seen:  # else none is shown
        means.events.unseen(session)


def _listing(means: Means, session: Session, exact: bool) -> Callable[[], Index]:
    """How the session is to be listed; each step is looked at where that costs little, if near."""
    if session.watch is not None:
        return partial(scan, session.fd)
    known, last = session.index, LOOKED_AT if exact else LOOKED_AT_OFTEN
    stamps = None if means.work.near else known.stamps
    return partial(scan_agreeing, session.fd, known.greatest, stamps, set(known.doubted), last)


def lag_seconds(session: Session) -> float:
    """How old a listing may be for who need not be exact: ten times what it took."""
    lag = max(LEAST_LAG_SECONDS, LAG_FACTOR * session.listing_seconds)
    return min(lag, most_lag_seconds(session))


def most_lag_seconds(session: Session) -> float:
    """How old it may be at most; a session is listed for half of the time at most."""
    listing = session.listing_seconds
    return max(MOST_LAG_SECONDS - listing, MOST_LAG_OF_SLOW_SECONDS, listing)
