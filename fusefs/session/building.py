"""Builds an epoch: backwards from the end, forwards from its end, or as a draft beside it (G13)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fusefs.session.lead import find_lead, within_cut
from fusefs.session.means import Means
from fusefs.session.session import Session
from fusefs.views.epoch import Epoch, PrefixCheck
from fusefs.views.formats import View
from storage.session.replay import (
    PASS_STEPS,
    START,
    Boundary,
    Pass,
    backwards,
    find_boundary,
    forwards,
)


def start_of(session: Session, view: View) -> Boundary | None:
    """The boundary after which a view begins; None while that is unknown."""
    return session.extents.boundary(view.cut) if view.format.history else START


async def search(means: Means, session: Session, view: View) -> Boundary:
    """Find the last compaction, reading backwards from the end. Recorded unless it changed meanwhile."""
    session.touched.clear()
    index, end = within_cut(session, view), session.end(view)
    work = partial(find_boundary, index=index, below=end + 1)
    found = await means.replay(session, len(index.numbers), work, view.cut)
    means.events.drain()
    if not session.touches(found.number, found.number):
        session.extents.begins(view.cut, found)
    return found


async def build_backwards(means: Means, session: Session, epoch: Epoch) -> None:
    """Build a history for the first time: read back to the last compaction, keeping the lines."""
    session.touched.clear()
    view = epoch.view
    top = session.end(view)
    end, lowest, boundary = top + 1, 0, None
    epoch.reset()
    while boundary is None and (numbers := session.index.before(end, PASS_STEPS)):
        odd = dict(session.index.odd)
        work = partial(backwards, numbers=numbers, odd=odd, show=view.format.show)
        found = _noted(means, session, await means.replay(session, len(numbers), work, view.cut))
        boundary = found.boundary
        lowest = boundary.number if boundary is not None else found.reached or 0
        if session.stale or session.touches(lowest, top):
            return
        epoch.extend_backwards(found.texts)
        end = numbers[0] if found.reached is None else found.reached
        await means.cache.settle()
    if session.stale or session.touches(lowest, top):
        return
    session.extents.begins(view.cut, boundary or START)
    lead, version = await find_lead(means, session, view, boundary or START)
    known = session.extents.boundary(view.cut) is not None
    if known and not session.stale and not session.touches(0, top):
        epoch.end_backwards(boundary or START, lead, version, top)


async def begin(means: Means, session: Session, epoch: Epoch) -> bool:
    """Start building a view whose boundary is known. False if the boundary has moved since."""
    view = epoch.view
    start = start_of(session, view)
    if start is None:
        return False
    lead, version = await find_lead(means, session, view, start)
    if start != start_of(session, view):
        return False
    epoch.begin(start, lead, version)
    return True


async def _forwards(means: Means, session: Session, view: View, numbers: Sequence[int]) -> Pass:
    """Read one bounded pass forwards."""
    work = partial(
        forwards,
        numbers=numbers,
        odd=dict(session.index.odd),
        show=view.format.show,
        compactions=view.format.history,
    )
    return _noted(means, session, await means.replay(session, len(numbers), work, view.cut))


def _noted(means: Means, session: Session, found: Pass) -> Pass:
    means.events.drain()
    for name, sentence in found.skipped:
        session.skipped.note(name, sentence)
    return found


async def extend(means: Means, session: Session, epoch: Epoch, end: int, patient: bool) -> bool:
    """Append the steps up to `end`, the present end of the view. True once all of them are shown.

    While `patient`, a step that changes before it is read ends this, since `end` is then outdated: what
    was added before that change has to be shown too (G12a).
    """
    session.touched.clear()
    view = epoch.view
    while numbers := session.index.between((last := epoch.last) + 1, end, PASS_STEPS):
        if not patient:
            session.touched.clear()
        found = await _forwards(means, session, view, numbers)
        if not epoch.grows or epoch.last != last or found.reached is None:
            return False
        if patient and session.stale:
            return False
        if session.touches(last + 1, end if patient else found.reached):
            return False
        if found.boundary is not None:
            session.extents.begins(view.cut, found.boundary)
            return False
        epoch.extend(found.texts)
        epoch.last = found.reached
        await means.cache.settle()
    return True


async def compare(means: Means, session: Session, epoch: Epoch, end: int) -> bool:
    """Build a draft of the epoch, and check that what the epoch has shown is a prefix of it (G13).

    If so the epoch adopts the draft, else the draft supersedes it. Returns False if this was given
    up: the history turned out to begin elsewhere, or a step changed.
    """
    start = start_of(session, epoch.view)
    return start is not None and await _compare(means, session, epoch, start, end, patient=True)


async def accept(means: Means, session: Session, epoch: Epoch) -> None:
    """As `compare`, but whatever changes meanwhile: the epoch shows each step as it was read.

    What did change is compared again by the next refresh. However often somebody changes the steps,
    each is read at most twice.
    """
    start = start_of(session, epoch.view) or await search(means, session, epoch.view)
    await _compare(means, session, epoch, start, session.end(epoch.view), patient=False)


async def _compare(
    means: Means, session: Session, epoch: Epoch, start: Boundary, end: int, *, patient: bool
) -> bool:
    session.touched.clear()
    view = epoch.view
    if not epoch.built:
        epoch.reset()  # it has shown nothing, which is a prefix of everything
    draft = Epoch(view, means.cache)
    draft.opens = epoch.opens
    try:
        check = await _read_draft(means, session, epoch, draft, start, end, patient=patient)
        moved = patient and start != start_of(session, view)
    except BaseException:
        means.cache.drop(draft)
        raise
    if check is None or moved:
        means.cache.drop(draft)
        epoch.doubt()
        return False
    draft.complete()
    if check.passed:
        epoch.adopt(draft)
    else:
        _supersede(means, session, epoch, draft)
    if session.touches(0, end):
        (epoch if check.passed else draft).doubt()
    return True


async def _read_draft(
    means: Means,
    session: Session,
    epoch: Epoch,
    draft: Epoch,
    start: Boundary,
    end: int,
    *,
    patient: bool,
) -> PrefixCheck | None:
    """Read the steps up to `end` into a draft; None if that was given up while `patient`."""
    view = draft.view
    check = await _begin_draft(means, session, epoch, draft, start)
    while numbers := session.index.between(draft.last + 1, end, PASS_STEPS):
        found = await _forwards(means, session, view, numbers)
        begins, reached = found.boundary, found.reached
        if begins is not None and not session.touches(begins.number, begins.number):
            session.extents.begins(view.cut, begins)
        if reached is None or (patient and (begins is not None or session.touches(0, reached))):
            return None
        if begins is not None:
            check = await _begin_draft(means, session, epoch, draft, begins)
        for part in found.texts:
            check.feed(part.text)
        draft.extend(found.texts)
        draft.last = reached
        await means.cache.settle()
    return check


async def _begin_draft(
    means: Means, session: Session, epoch: Epoch, draft: Epoch, start: Boundary
) -> PrefixCheck:
    lead, version = await find_lead(means, session, draft.view, start)
    check = PrefixCheck(epoch)
    draft.begin(start, lead, version)
    check.feed(lead)
    return check


def _supersede(means: Means, session: Session, epoch: Epoch, successor: Epoch) -> None:
    # Its text stays while there is room: an open that has just looked it up may still arrive.
    epoch.supersede()
    successor.opens = 0
    means.cache.unpinned(successor)
    session.epochs[epoch.view] = successor
