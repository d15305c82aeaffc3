"""Brings a session's epochs up to date: the algorithms, as functions over a `Session`.

Decides where the history begins, which steps a view shows, and whether what it has shown is still a
prefix of what it must show (G12, G13). `fusefs.session.session` has the rules of concurrency.
"""

from __future__ import annotations

import os
from typing import Final

from fusefs.session.building import (
    accept,
    begin,
    build_backwards,
    compare,
    extend,
    search,
    start_of,
)
from fusefs.session.lead import begins_right
from fusefs.session.listing import ready, relist
from fusefs.session.means import Means
from fusefs.session.session import Session
from fusefs.session.survey import survey
from fusefs.views.cuts import InEpoch
from fusefs.views.epoch import UNDATED, Epoch, State
from fusefs.views.formats import BOUNDARY, View
from storage.errors import from_os_error, printable

PATIENCE: Final = 5
"""Rounds of listing, searching and building, before what keeps changing is accepted as it is read."""
FAR_PATIENCE: Final = 12
"""The same without events, where a change may take three: to find it, to read it, to check that."""


async def refresh(means: Means, session: Session, view: View, exact: bool = True) -> Epoch:
    """The epoch of a view, showing every step that is in the store now (G12).

    Unless `exact`, it may be up to a second old if the store has no events. Raises `StoreError` if the
    store cannot be read, with ENOENT for an epoch that no longer exists.
    """
    if isinstance(view.cut, InEpoch):  # before taking the lock, since the first survey is long
        if session.stale:
            await ready(means, session, exact)
        await survey(means, session)
    epoch = session.epochs.get(view)
    if epoch is not None and await _is_fresh(means, session, epoch):
        return epoch
    async with session.lock:
        session.refreshing = view
        try:
            known = session.index.greatest
            await relist(means, session, exact)
            edited = not present(means, session, view).built or session.touches(0, known)
            if isinstance(view.cut, InEpoch):
                await survey(means, session)
            listed = True  # and nothing was read since
            for patience in range(FAR_PATIENCE if session.watch is None else PATIENCE, -1, -1):
                if session.stale and patience > 0:  # events were lost in the meantime
                    await relist(means, session, exact)
                epoch = present(means, session, view)
                last = epoch.last
                settled = await _settle(means, session, epoch, patience > 0)
                listed = listed and settled and epoch.last == last
                if settled and patience > 0 and exact and not listed:
                    settled = await _still_shows(means, session, epoch, edited)
                    edited = edited or not settled
                if settled and not (session.stale and patience > 0):
                    break
            return await _dated(means, session, present(means, session, view))
        except OSError as error:
            raise from_os_error(error, f"read the steps of {printable(session.slug)}") from error
        finally:
            session.refreshing = None
            session.touched.clear()
            session.skipped.sum_up()
            await means.cache.settle()


def present(means: Means, session: Session, view: View) -> Epoch:
    """The present epoch of a view, which may still be empty."""
    epoch = session.epochs.get(view)
    if epoch is None:
        epoch = session.epochs[view] = Epoch(view, means.cache)
    return epoch


async def archive(means: Means, session: Session) -> str | None:
    """The archive name of the last compaction. Raises as `refresh`."""
    return (await refresh(means, session, View(BOUNDARY))).boundary.archive


async def count_epochs(means: Means, session: Session, exact: bool = True) -> int:
    """The number of epochs, as current as `exact` asks for. Raises `StoreError`."""
    await ready(means, session, exact)
    await survey(means, session)
    return len(session.extents.compactions)


async def _is_fresh(means: Means, session: Session, epoch: Epoch) -> bool:
    return (
        epoch.state is State.CURRENT
        and not session.stale
        and session.watch is not None
        and epoch.last >= session.end(epoch.view)
        and epoch.dated != UNDATED
        and await begins_right(means, session, epoch)
    )


async def _settle(means: Means, session: Session, epoch: Epoch, patient: bool) -> bool:
    """Advance an epoch towards showing the steps that are there; whether it does now.

    If steps change faster than they can be read, the result is accepted as read: each step as it was
    at some time since the call.
    """
    view = epoch.view
    if isinstance(view.cut, InEpoch):
        await survey(means, session)
    if patient and start_of(session, view) is None:
        if epoch.built:
            await search(means, session, view)
        else:
            await build_backwards(means, session, epoch)
        return False
    right = await _begins(means, session, epoch, patient)
    # Later steps need not be shown, or we would never catch up with a fast writer. But what was added
    # before a removal or a replacement that is seen must be shown too: the end is as of now, after all
    # that was awaited.
    if right and await extend(means, session, epoch, session.end(view), patient) and epoch.grows:
        epoch.complete()
        return True
    if not patient:
        await accept(means, session, epoch)
    elif epoch.built and not right:
        await compare(means, session, epoch, session.end(view))
    return not patient


async def _begins(means: Means, session: Session, epoch: Epoch, patient: bool) -> bool:
    """Whether an epoch begins as it must, and still did after that was looked up.

    While `patient`, the building of one that shows nothing yet is begun.
    """
    session.touched.clear()
    right = epoch.grows and await begins_right(means, session, epoch)
    if not right and not epoch.built and patient:
        right = await begin(means, session, epoch)
    if not right or epoch.boundary != start_of(session, epoch.view):
        return False
    if not (patient and epoch.view.format.history):
        return True
    beginning = session.extents.beginning(epoch.view.cut)
    return beginning is not None and not session.touches(0, beginning.reach)


async def _still_shows(means: Means, session: Session, epoch: Epoch, edited: bool) -> bool:
    """Whether nothing has changed while steps were read: without events only another listing tells.

    Steps that came since need not be shown, unless something that was `edited` was read: that may have
    come after them.
    """
    view, last, end = epoch.view, epoch.last, session.end(epoch.view)
    session.touched.clear()
    await relist(means, session, exact=True)
    if isinstance(view.cut, InEpoch):
        await survey(means, session)
    if epoch.state is not State.CURRENT or session.touches(0, last):
        return False
    begins = not view.format.history or epoch.boundary == start_of(session, view)
    return begins and (not edited or session.end(view) == end)


async def _dated(means: Means, session: Session, epoch: Epoch) -> Epoch:
    number = epoch.last_shown or epoch.boundary.number
    if number == epoch.dated:
        return epoch
    name = session.index.names(number)[-1] if number else "meta"
    try:
        found = await means.work.small(session.slug, _status, name, session.fd)
    except FileNotFoundError:
        return epoch
    epoch.mtime_ns = found.st_mtime_ns
    epoch.dated = number
    return epoch


def _status(name: str, at: int) -> os.stat_result:
    return os.stat(name, dir_fd=at, follow_symlinks=False)
