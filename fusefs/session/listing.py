"""Keeps the list of a session's steps up to date, and decides how old it may be (G12).

With events a session is listed only once. Without them, a caller that must be exact lists it on each
call and checks every step that is shown; other steps are checked only from time to time.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable, Mapping, Set
from functools import partial
from typing import Final

from fusefs.session.means import Means
from fusefs.session.session import Session
from fusefs.views.cuts import InEpoch
from fusefs.views.formats import View
from storage.errors import from_os_error, printable
from storage.session.index import Index, scan, scan_agreeing
from storage.session.steps import step_name

INLINE_DIRECTORY_BYTES: Final = 1 << 14
"""Directories up to this size in bytes are listed on the loop."""
MOST_LAG_SECONDS: Final = 0.8
"""Without events, the greatest age of a listing used for a stat; together with the time of the next
listing a change shows within a second (G12)."""
MOST_LAG_OF_SLOW_SECONDS: Final = 0.4
"""The same if listing takes long."""
LEAST_LAG_SECONDS: Final = 0.05
"""A listing this young is good enough for callers that need not be exact."""
LAG_FACTOR: Final = 10
"""Callers that need not be exact spend at most one part in this many of the time on listing."""
CHECK_SECONDS: Final = 0.1
CHECK_FACTOR: Final = 20
"""They look for edited steps for at most this long, and at most one part in that many of the time."""
FORM_STEPS: Final = 16
"""Usually at least one of this many steps before a compaction is an entry."""
_DIRECTORY_IS_GONE: Final = frozenset({errno.ENOENT, errno.ESTALE})


async def ready(means: Means, session: Session, exact: bool = True, shown: bool = True) -> None:
    """Bring the index up to date with the store; unless `exact`, it may be slightly old.

    A caller that only stores steps passes `shown=False`: no more steps than a window of calls are then
    checked for edits. Raises `StoreError`.
    """
    if session.stale or session.watch is None:
        async with session.lock:
            try:
                await relist(means, session, exact, shown)
            except OSError as error:
                raise from_os_error(error, f"list {printable(session.slug)}") from error


async def relist(means: Means, session: Session, exact: bool, shown: bool = True) -> None:
    """List the session if that is needed, as `ready`. The caller holds `Session.lock`.

    Raises `StoreError` ESTALE if the session is gone, and `OSError`.
    """
    if not session.stale and session.watch is not None:
        return
    now, losses = time.monotonic(), session.losses
    if not session.stale and not exact and now - session.listed_at < lag_seconds(session):
        return
    session.backlog = []
    own, session.own = session.own, {}
    seconds = _check_seconds(session, exact, shown)
    try:
        directory = await means.work.small(session.slug, os.fstat, session.fd)
        if directory.st_nlink == 0:
            session.gone = True
        near = means.work.near  # on a far store st_size says nothing
        brief = directory.st_size <= INLINE_DIRECTORY_BYTES if near else seconds < math.inf
        run = means.work.small if brief else means.work.replay
        new = await run(session.slug, _listing(means, session, seconds))
    except BaseException as error:
        session.unlisted()
        session.own = own | session.own
        if isinstance(error, OSError) and error.errno in _DIRECTORY_IS_GONE:
            # Another session may have its name and look the same: inode numbers are reused.
            session.gone = True
            means.events.mark(session)
            raise session.replaced() from error
        raise
    for name, sentence in new.strange:
        session.skipped.note(name, sentence)
    stale = session.losses != losses
    changed = session.relisted(new, stale, known=_as_stored(new, own))
    for number in own:
        if not session.index.has(number):
            session.touch(number)  # it was in no listing, so none tells that it is gone
    extra = 0.0 if new.stamps is None else new.stamps.extra_seconds
    session.listed_at, session.listing_seconds = now, time.monotonic() - now - extra
    if changed is None or changed or own:
        session.changed_at = now
    if session.recent.owed:
        means.events.mark(session)


def _listing(means: Means, session: Session, seconds: float) -> Callable[[], Index]:
    """The function that lists the session; on a near store it also stats each step, which is cheap."""
    if session.watch is not None:
        return partial(scan, session.fd)
    known, first = session.index, _first_shown(session)
    stamps = None if means.work.near else known.stamps
    return partial(scan_agreeing, session.fd, known.greatest, stamps, first, seconds)


def _as_stored(new: Index, own: Mapping[int, int]) -> Set[str]:
    """The names of this mount's `own` steps, by identity, that nobody has changed since."""
    found = {} if new.stamps is None else new.stamps.identities
    names = {step_name(number): identity for number, identity in own.items()}
    return {name for name, identity in names.items() if identity and identity == found.get(name)}


def _check_seconds(session: Session, exact: bool, shown: bool) -> float:
    """How long a listing may look for steps that were edited in place."""
    if not shown:
        return 0
    if exact:
        return math.inf
    return min(CHECK_SECONDS, (time.monotonic() - session.listed_at) / CHECK_FACTOR)


def _first_shown(session: Session) -> int:
    """The number of the first step on which shown text depends; 0 if it may depend on all.

    A history depends on the compaction after which it begins, and on an entry before that, which
    determines the dialect of the archive's message.
    """
    if not session.epochs or session.extents.compactions.begun:
        return 0
    return min(_first_of(session, view) for view in session.epochs)


def _first_of(session: Session, view: View) -> int:
    if isinstance(view.cut, InEpoch):  # its epoch may be gone
        return 0
    boundary = session.extents.boundary(view.cut) if view.format.history else None
    before = session.index.before(boundary.number, FORM_STEPS) if boundary is not None else ()
    return before[0] if before else 0


def lag_seconds(session: Session) -> float:
    """How old a listing may be for callers that need not be exact, in proportion to its duration."""
    lag = max(LEAST_LAG_SECONDS, LAG_FACTOR * session.listing_seconds)
    return min(lag, most_lag_seconds(session))


def most_lag_seconds(session: Session) -> float:
    """Upper bound on that age, such that listing takes at most half of the time."""
    listing = session.listing_seconds
    return max(MOST_LAG_SECONDS - listing, MOST_LAG_OF_SLOW_SECONDS, listing)
