"""The lead of a view, which precedes its first step: a head and the text of an archive (G2)."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from fusefs.session.extents import Beginning
from fusefs.session.means import Means
from fusefs.session.session import Session
from fusefs.views.cuts import AtTime
from fusefs.views.epoch import Epoch
from fusefs.views.formats import View
from storage.formats.slug import is_ulid
from storage.session.index import Index
from storage.session.reader import Reader
from storage.session.replay import PASS_STEPS, Boundary, archive_form
from storage.session.steps import NUMBER_MAX, LongStep


class Lead(NamedTuple):
    """A lead as it was rendered."""

    text: bytes
    reach: int
    """The number of the last step on which it depends; `NUMBER_MAX` if any step may change it."""


async def begins_right(means: Means, session: Session, epoch: Epoch) -> bool:
    """Whether an epoch still begins at the current boundary and with the current lead."""
    view = epoch.view
    if not view.format.history:
        return True
    if epoch.boundary != session.extents.boundary(view.cut):
        return False
    if await _version(means, session, view) == epoch.lead_version:
        return True
    text, version = await find_lead(means, session, view, epoch.boundary)
    if not epoch.leads_with(text):
        return False
    epoch.lead_version = version
    return True


async def find_lead(
    means: Means, session: Session, view: View, boundary: Boundary
) -> tuple[bytes, Hashable]:
    """The lead of a view that begins at `boundary`, and a token that changes whenever it may have."""
    if not _may_lead(view, boundary):
        return b"", None
    beginning = session.extents.beginning(view.cut)
    if beginning is None or beginning.boundary != boundary:
        beginning = Beginning(boundary)  # in none of the extents: the next look finds another
    archived = await _archived(means, session, view, boundary)
    end, index = session.end(view), within_cut(session, view)
    work = partial(render_lead, means, session.slug, view, boundary, index)
    steps = 1 if boundary.archive is None and view.cut is None else PASS_STEPS
    text, beginning.reach = await means.replay(session, steps, work, view.cut)
    return text, (beginning, min(end, beginning.reach), archived)


async def _version(means: Means, session: Session, view: View) -> Hashable:
    """The token of `find_lead`, if nothing has changed since."""
    beginning = session.extents.beginning(view.cut)
    if beginning is None or not _may_lead(view, beginning.boundary):
        return None
    archived = await _archived(means, session, view, beginning.boundary)
    return beginning, min(session.end(view), beginning.reach), archived


def _may_lead(view: View, boundary: Boundary) -> bool:
    """Whether a view has a lead, at least once steps follow the boundary."""
    return view.format.head is not None or _shows_archive(view, boundary)


def _shows_archive(view: View, boundary: Boundary) -> bool:
    return view.format.lead is not None and boundary.archive is not None


async def _archived(means: Means, session: Session, view: View, boundary: Boundary) -> Hashable:
    """A token that changes whenever the text of a view's archive may have changed."""
    if not _shows_archive(view, boundary):
        return None
    return await means.work.small(session.slug, means.archives.version, boundary.archive)


def render_lead(
    means: Means, slug: str, view: View, boundary: Boundary, index: Index, reader: Reader
) -> Lead:
    """Render the lead of the history of the steps in `index` after `boundary`. For any thread."""
    head, lead, name = view.format.head, view.format.lead, boundary.archive
    first = boundary.number if name is not None else _first_shown(reader, index, boundary, view)
    text = b"" if head is None or first is None else head(reader.fd, slug)
    if lead is None or name is None:
        return Lead(text, NUMBER_MAX if first is None else first)
    form = archive_form(reader, index, boundary)
    blocks = is_ulid(slug) if form.in_blocks is None else form.in_blocks
    return Lead(text + lead(name, means.archives.text(name), blocks), form.reach)


def _first_shown(reader: Reader, index: Index, boundary: Boundary, view: View) -> int | None:
    """The number of the first step after a boundary: for a view at a time, of those stored by then."""
    for number in index.between(boundary.number + 1, index.greatest, len(index.numbers)):
        if not isinstance(view.cut, AtTime) or _is_stored(reader, index.names(number)):
            return number
    return None


def _is_stored(reader: Reader, names: Sequence[str]) -> bool:
    """Whether a step of one of these names was stored by the reader's time."""
    for name in names:
        with suppress(OSError, LongStep):
            reader.read(name)
            return True
    return False


def within_cut(session: Session, view: View) -> Index:
    """A copy of the index without the steps beyond the view's cut."""
    index = session.index
    numbers = index.between(0, session.end(view), len(index.numbers))
    return Index(array("Q", numbers), dict(index.odd))
