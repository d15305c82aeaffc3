"""Bringing a session's epochs up to date: the algorithms, as functions over a `Session`.

Where the history begins, which steps a view shows and whether what it showed is still a prefix of
what it must show is decided here (G12, G13). `fusefs.session.session` says who may touch what when.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from fusefs.session.events import Events
from fusefs.session.session import Session
from fusefs.session.step_texts import StepTexts
from fusefs.session.survey import survey
from fusefs.views.cuts import AtTime, Cut, InEpoch
from fusefs.views.epoch import Epoch, PrefixCheck, State
from fusefs.views.formats import BOUNDARY, View
from fusefs.views.text_cache import Segment, TextCache, fingerprint
from fusefs.work import Work
from storage.archives import Memory
from storage.documents.pool import Documents
from storage.errors import StoreError, from_os_error, printable
from storage.formats.kinds import Step
from storage.formats.slug import is_ulid
from storage.session.index import Index, scan, scan_agreeing
from storage.session.reader import Reader, Spent
from storage.session.replay import (
    PASS_STEPS,
    START,
    Boundary,
    Pass,
    backwards,
    find_boundary,
    forwards,
    with_form,
)
from storage.session.steps import LongStep

PATIENCE: Final = 3
"""How often an epoch is made again because steps were changed meanwhile."""
INLINE_STEPS: Final = 128
"""Passes of at most so many steps are tried without a thread, which costs more than most of them."""
JUDGED_SESSIONS: Final = 16
"""Of so many sessions the steps that were judged last are kept for their other views."""
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
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Means:
    """What refreshing a session takes beside it."""

    work: Work
    cache: TextCache
    archives: Memory
    events: Events
    documents: Documents
    texts: StepTexts
    """Of the steps that may have to be stored again."""
    _judging: OrderedDict[Session, None] = field(default_factory=OrderedDict)
    """Sessions whose steps are kept as they were judged, the last one last."""

    async def replay(
        self, session: Session, steps: int, work: Callable[[Reader], T], cut: Cut | None = None
    ) -> T:
        """A pass over so many steps: at once where they are few, short and near.

        Where a long step is first, the pass waits for documents, in a thread that others can spare.
        """
        key, reader, judged = session.slug, session.reader, session.judged
        if isinstance(cut, AtTime):
            reader = reader.as_of(cut.time_ns)
        if self.work.near and steps <= INLINE_STEPS:
            brief = reader.brief(judged.steps)
            with suppress(Spent):
                done = await self.work.small(key, work, brief)
                self._keep(session, brief.judged)
                return done
        with suppress(LongStep):
            return await self.work.replay(key, work, reader.undocumented(judged.steps.copy()))
        return await self.work.long(key, work, reader)

    def _keep(self, session: Session, judged: Mapping[str, Step]) -> None:
        """Keep what was judged for the session's other views, which are often asked for next."""
        if not judged or session.stale or session.watch is None:
            return
        for name, step in judged.items():
            session.judged.add(name, step)
        self._judging[session] = None
        self._judging.move_to_end(session)
        if len(self._judging) > JUDGED_SESSIONS:
            self._judging.popitem(last=False)[0].judged.clear()


async def refresh(means: Means, session: Session, view: View, exact: bool = True) -> Epoch:
    """The epoch of that view, showing every step that is in the store now (G12).

    Without `exact` it may be a second behind where no events tell of changes. Raises `StoreError`
    where the store cannot be read, and ENOENT for an epoch that there is no more.
    """
    if isinstance(view.cut, InEpoch):  # before the lock is taken, for the first survey is long
        if session.stale:
            await ready(means, session, exact)
        await survey(means, session)
    epoch = session.epochs.get(view)
    if epoch is not None and await _is_fresh(means, session, epoch):
        return epoch
    async with session.lock:
        try:
            await _relist(means, session, exact)
            if isinstance(view.cut, InEpoch):
                await survey(means, session)
            for patience in itertools.count(PATIENCE, -1):
                # What comes later need not be shown, or a fast writer would never be caught up with. But
                # who saw that a step went must also see those that had come before that.
                end = session.end(view)
                if await _settle(means, session, present(means, session, view), end, patience > 0):
                    break
            return await _dated(means, session, present(means, session, view))
        except OSError as error:
            raise from_os_error(error, f"read the steps of {printable(session.slug)}") from error
        finally:
            session.skipped.sum_up()
            await means.cache.settle()


def present(means: Means, session: Session, view: View) -> Epoch:
    """The present epoch of that view, which may be empty yet."""
    epoch = session.epochs.get(view)
    if epoch is None:
        epoch = session.epochs[view] = Epoch(view, means.cache)
    return epoch


async def archive(means: Means, session: Session) -> str | None:
    """The present archive: that of the last compaction."""
    return (await refresh(means, session, View(BOUNDARY))).boundary.archive


async def count_epochs(means: Means, session: Session, exact: bool = True) -> int:
    """How many epochs there are now, or were lately: one more than compactions. Raises `StoreError`."""
    await ready(means, session, exact)
    await survey(means, session)
    return len(session.extents.compactions)


async def ready(means: Means, session: Session, exact: bool = True) -> None:
    """Know the steps that are in the store now, or were lately. Raises `StoreError`."""
    if session.stale or session.watch is None:
        async with session.lock:
            try:
                await _relist(means, session, exact)
            except OSError as error:
                raise from_os_error(error, f"list {printable(session.slug)}") from error


async def text(means: Means, session: Session, epoch: Epoch, segment: Segment) -> bytes:
    """The text of a segment, rendered again if it was let go. Raises `StoreError` EIO."""
    held = await means.cache.text(epoch, segment)
    if held is not None:
        return held
    found, right = await _rendered(means, session, epoch, segment)
    if segment.text is not None:
        return segment.text
    if not right:
        epoch.doubt()
        sentence = "a step changed while it was read: open the file again"
        raise StoreError(errno.EIO, "changed-underneath", sentence)
    means.cache.keep(epoch, segment, found)
    await means.cache.settle()
    return found


async def pin(means: Means, session: Session, epoch: Epoch) -> None:
    """Make sure that the text of an open epoch is held, whatever becomes of the store (G13)."""
    lost = means.cache.lost
    if epoch.held_as_of != lost:
        for segment in list(epoch.segments):
            if not segment.held:
                await text(means, session, epoch, segment)
        epoch.held_as_of = lost


def unpin(means: Means, session: Session, epoch: Epoch) -> None:
    """An open file does not need the epoch any more."""
    epoch.opens -= 1
    if epoch.pinned:
        return
    if epoch.superseded or session.gone:
        means.cache.drop(epoch)
    else:
        means.cache.unpinned(epoch)


async def _relist(means: Means, session: Session, exact: bool) -> None:
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
        if session.watch is None:
            new = await run(session.slug, scan_agreeing, session.fd, session.index.greatest)
        else:
            new = await run(session.slug, scan, session.fd)
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


def lag_seconds(session: Session) -> float:
    """How old a listing may be for who need not be exact: ten times what it took."""
    lag = max(LEAST_LAG_SECONDS, LAG_FACTOR * session.listing_seconds)
    return min(lag, most_lag_seconds(session))


def most_lag_seconds(session: Session) -> float:
    """How old it may be at most; a session is listed for half of the time at most."""
    listing = session.listing_seconds
    return max(MOST_LAG_SECONDS - listing, MOST_LAG_OF_SLOW_SECONDS, listing)


async def _is_fresh(means: Means, session: Session, epoch: Epoch) -> bool:
    return (
        epoch.state is State.CURRENT
        and not session.stale
        and session.watch is not None
        and epoch.last >= session.end(epoch.view)
        and await _begins_right(means, session, epoch)
    )


async def _begins_right(means: Means, session: Session, epoch: Epoch) -> bool:
    view = epoch.view
    if not view.format.history:
        return True
    if epoch.boundary != session.extents.boundary(view.cut):
        return False
    version = await _version(means, session, view)
    if version == epoch.lead_version:
        return True
    if not epoch.leads_with((await _lead(means, session, view))[0]):
        return False
    epoch.lead_version = version
    return True


async def _version(means: Means, session: Session, view: View) -> Hashable:
    """What tells whether the lead of a view may be another by now."""
    boundary = session.extents.boundary(view.cut)
    if boundary is None:
        return None
    headed = _may_be_headed(session, view, boundary)
    if view.format.lead is None or boundary.archive is None:
        return headed
    archived = await means.work.small(session.slug, means.archives.version, boundary.archive)
    return headed, archived


def _may_be_headed(session: Session, view: View, boundary: Boundary) -> int:
    """Whether a view has a head, which is not where nothing follows it.

    Of a time only a look at the steps tells: then it is the number up to which that is to be done.
    """
    if view.format.head is None:
        return False
    end = session.end(view)
    followed = boundary.archive is not None or end > boundary.number
    return end if followed and isinstance(view.cut, AtTime) else followed


async def _lead(means: Means, session: Session, view: View) -> tuple[bytes, Hashable]:
    """The text that a view begins with, and what tells whether it may be another by now."""
    version = await _version(means, session, view)
    boundary = session.extents.boundary(view.cut)
    if boundary is None:
        return b"", None
    headed = _may_be_headed(session, view, boundary)
    if not headed and (view.format.lead is None or boundary.archive is None):
        return b"", version
    work = partial(_lead_text, means, session.slug, view, boundary, _left(session, view))
    steps = 1 if boundary.archive is None and view.cut is None else PASS_STEPS
    return await means.replay(session, steps, work, view.cut), version


def _lead_text(
    means: Means, slug: str, view: View, boundary: Boundary, index: Index, reader: Reader
) -> bytes:
    head, lead, name = view.format.head, view.format.lead, boundary.archive
    if name is None and isinstance(view.cut, AtTime) and not _any_stored(reader, index, boundary):
        return b""
    text = b"" if head is None else head(reader.fd, slug)
    if lead is not None and name is not None:
        blocks = _in_blocks(reader, index, boundary, slug)
        text += lead(name, means.archives.text(name), blocks)
    return text


def _any_stored(reader: Reader, index: Index, boundary: Boundary) -> bool:
    """Whether the history holds a step that was stored by the reader's time."""
    numbers = index.between(boundary.number + 1, index.greatest, len(index.numbers))
    for name in (name for number in numbers for name in index.names(number)):
        with suppress(OSError, LongStep):
            reader.read(name)
            return True
    return False


def _in_blocks(reader: Reader, index: Index, boundary: Boundary, slug: str) -> bool:
    """Whether the message of the archive is of content blocks (G2)."""
    blocks = with_form(reader, index, boundary).blocks
    return is_ulid(slug) if blocks is None else blocks


def _left(session: Session, view: View) -> Index:
    """A copy of the index without the steps that the view's cut takes away."""
    index = session.index
    numbers = index.between(0, session.end(view), len(index.numbers))
    return Index(array("Q", numbers), dict(index.odd))


async def _settle(means: Means, session: Session, epoch: Epoch, end: int, patient: bool) -> bool:
    """One step towards an epoch that shows the steps up to `end`; whether it is there.

    Where steps are changed faster than they are read it is taken as it was read: each step as
    it was at some time since.
    """
    view = epoch.view
    if isinstance(view.cut, InEpoch):
        await survey(means, session)
        end = min(end, session.end(view))
    if view.format.history and session.extents.boundary(view.cut) is None:
        if epoch.built:
            await _search(means, session, view)
        else:
            await _build_backwards(means, session, epoch)
        return False
    if not epoch.built:
        start = _start(session, view)
        lead, version = await _lead(means, session, view)
        if start is None or start != _start(session, view):
            return False
        epoch.begin(start, lead, version)
        epoch.state = State.CURRENT
    elif epoch.state is State.SUSPECT or not await _begins_right(means, session, epoch):
        compared = await _compare(means, session, epoch, session.end(view), patient)
        return compared and not patient
    return await _extend(means, session, epoch, end)


def _start(session: Session, view: View) -> Boundary | None:
    """Where a view begins; None while that is not known."""
    return session.extents.boundary(view.cut) if view.format.history else START


async def _search(means: Means, session: Session, view: View) -> None:
    session.touched.clear()
    index, end = _left(session, view), session.end(view)
    work = partial(find_boundary, index=index, below=end + 1)
    found = await means.replay(session, len(index.numbers), work, view.cut)
    means.events.drain()
    if not session.touches(found.number, end):
        session.extents.begins(view.cut, found)


async def _build_backwards(means: Means, session: Session, epoch: Epoch) -> None:
    """The first look at a history: from the end to the last compaction, keeping the lines."""
    session.touched.clear()
    view = epoch.view
    top = session.end(view)
    end, boundary = top + 1, None
    epoch.begin(START, b"", None)
    while boundary is None and (numbers := session.index.before(end, PASS_STEPS)):
        odd = dict(session.index.odd)
        work = partial(backwards, numbers=numbers, odd=odd, show=view.format.show)
        found = _noted(means, session, await means.replay(session, len(numbers), work, view.cut))
        if session.touches(found.reached or 0, top):
            return
        boundary = found.boundary
        epoch.extend_backwards(found.texts)
        end = numbers[0] if found.reached is None else found.reached
        await means.cache.settle()
    session.extents.begins(view.cut, boundary or START)
    lead, version = await _lead(means, session, view)
    if session.extents.boundary(view.cut) is not None and not session.touches(end, top):
        epoch.end_backwards(boundary or START, lead, version, top)


async def _forwards(means: Means, session: Session, view: View, numbers: Sequence[int]) -> Pass:
    """One pass upwards."""
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


async def _extend(means: Means, session: Session, epoch: Epoch, end: int) -> bool:
    view = epoch.view
    while numbers := session.index.between((last := epoch.last) + 1, end, PASS_STEPS):
        session.touched.clear()
        found = await _forwards(means, session, view, numbers)
        if epoch.state is not State.CURRENT or epoch.last != last or found.reached is None:
            return False
        if session.touches(numbers[0], found.reached):
            return False
        if found.boundary is not None:
            session.extents.begins(view.cut, found.boundary)
            return False
        epoch.extend(found.texts)
        epoch.last = found.reached
        await means.cache.settle()
    return True


async def _compare(means: Means, session: Session, epoch: Epoch, end: int, patient: bool) -> bool:
    """Make the epoch again, and see whether what it showed is a prefix of it (G13).

    Whether that came to an end: not where the history turned out to begin elsewhere, nor for
    the `patient` where a step was changed meanwhile.
    """
    session.touched.clear()
    view = epoch.view
    start = _start(session, view)
    lead, version = await _lead(means, session, view)
    if start is None or start != _start(session, view):
        return False
    draft = Epoch(view, means.cache)
    draft.opens = epoch.opens
    check = PrefixCheck(epoch)
    draft.begin(start, lead, version)
    check.feed(lead)
    while numbers := session.index.between(draft.last + 1, end, PASS_STEPS):
        found = await _forwards(means, session, view, numbers)
        disturbed = patient and session.touches(0, found.reached or 0)
        if found.reached is None or found.boundary is not None or disturbed:
            begins = found.boundary
            if begins is not None and not session.touches(begins.number, begins.number):
                session.extents.begins(view.cut, begins)
            means.cache.drop(draft)
            epoch.doubt()
            return False
        for part in found.texts:
            check.feed(part.text)
        draft.extend(found.texts)
        draft.last = found.reached
        await means.cache.settle()
    draft.state = State.CURRENT
    if check.passed:
        epoch.adopt(draft)
    else:
        _supersede(means, session, epoch, draft)
    if session.touches(0, end):
        session.epochs[view].doubt()
    return True


def _supersede(means: Means, session: Session, epoch: Epoch, successor: Epoch) -> None:
    # Its text stays while there is room: an open that looked it up just now may still come.
    epoch.state = State.SUPERSEDED
    successor.opens = 0
    means.cache.unpinned(successor)
    session.epochs[epoch.view] = successor


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


async def _rendered(
    means: Means, session: Session, epoch: Epoch, segment: Segment
) -> tuple[bytes, bool]:
    """The text of a segment as the store has it now, and whether it is what was shown."""
    view = epoch.view
    odd, shown = dict(session.index.odd), array("Q", segment.shown)
    digest, length = segment.fingerprint(), segment.length
    index = Index() if shown else _left(session, view)

    def render(reader: Reader) -> tuple[bytes, bool]:
        if shown:
            found = forwards(reader, shown, odd, view.format.show, False)
            data = b"".join(part.text for part in found.texts)
        else:
            data = _lead_text(means, session.slug, view, epoch.boundary, index, reader)
        return data, len(data) == length and fingerprint(data) == digest

    return await means.replay(session, len(shown) if shown else PASS_STEPS, render, view.cut)
