"""The listing of a session: which steps there are, brought up to date, and how old it may be (G12).

Where events tell of changes a session is listed once. Elsewhere whoever must be exact lists it at each
call, and looks at every step that is shown, and others only from time to time.
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
from fusefs.views.formats import View
from storage.errors import from_os_error, printable
from storage.session.index import Index, scan, scan_agreeing

INLINE_DIRECTORY_BYTES: Final = 1 << 14
"""Directories up to this size in bytes are listed on the loop."""
MOST_LAG_SECONDS: Final = 0.8
"""How old a listing may be for a stat where no events tell of changes: with the next one it is less
than a second (G12)."""
MOST_LAG_OF_SLOW_SECONDS: Final = 0.4
"""The same where a listing takes long."""
LEAST_LAG_SECONDS: Final = 0.05
LAG_FACTOR: Final = 10
"""Callers that need not be exact spend a tenth of the time on listing at most."""
FORM_STEPS: Final = 16
"""Steps before a compaction among which there is an entry, as a rule."""
_DIRECTORY_IS_GONE: Final = frozenset({errno.ENOENT, errno.ESTALE})


async def ready(means: Means, session: Session, exact: bool = True, shown: bool = True) -> None:
    """Know the steps that are in the store now, or were lately.

    Who stores steps and shows none need not know which were edited: not `shown`. Raises `StoreError`.
    """
    if session.stale or session.watch is None:
        async with session.lock:
            try:
                await relist(means, session, exact, shown)
            except OSError as error:
                raise from_os_error(error, f"list {printable(session.slug)}") from error


async def relist(means: Means, session: Session, exact: bool, shown: bool = True) -> None:
    """List the session where that is needed, as `ready`. The caller holds `Session.lock`.

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
        near = means.work.near  # elsewhere that size says nothing
        brief = directory.st_size <= INLINE_DIRECTORY_BYTES if near else not (exact and shown)
        run = means.work.small if brief else means.work.replay
        new = await run(session.slug, _listing(means, session, exact and shown))
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


def _listing(means: Means, session: Session, shown: bool) -> Callable[[], Index]:
    """How the session is to be listed; each step is looked at where that costs little, if near."""
    if session.watch is not None:
        return partial(scan, session.fd)
    known, first = session.index, _first_shown(session) if shown else None
    stamps = None if means.work.near else known.stamps
    return partial(scan_agreeing, session.fd, known.greatest, stamps, first)


def _first_shown(session: Session) -> int:
    """The number of the first step that what is shown depends on, as far as known; 0 means all.

    A history depends on the compaction that it begins after, and on an entry before that: it tells the
    form of the archive's message.
    """
    if not session.epochs or session.extents.compactions.begun:
        return 0
    return min(_first_of(session, view) for view in session.epochs)


def _first_of(session: Session, view: View) -> int:
    boundary = session.extents.boundary(view.cut) if view.format.history else None
    before = session.index.before(boundary.number, FORM_STEPS) if boundary is not None else ()
    return before[0] if before else 0


def lag_seconds(session: Session) -> float:
    """How old a listing may be for callers that need not be exact: ten times its duration."""
    lag = max(LEAST_LAG_SECONDS, LAG_FACTOR * session.listing_seconds)
    return min(lag, most_lag_seconds(session))


def most_lag_seconds(session: Session) -> float:
    """Upper bound on that age; listing a session takes half of the time at most."""
    listing = session.listing_seconds
    return max(MOST_LAG_SECONDS - listing, MOST_LAG_OF_SLOW_SECONDS, listing)
