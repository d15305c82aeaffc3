"""The lead of a view, which precedes its first step: a head and the text of an archive (G2)."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from contextlib import suppress
from functools import partial

from fusefs.session.means import Means
from fusefs.session.session import Session
from fusefs.views.cuts import AtTime
from fusefs.views.epoch import Epoch
from fusefs.views.formats import View
from storage.formats.slug import is_ulid
from storage.session.index import Index
from storage.session.reader import Reader
from storage.session.replay import PASS_STEPS, Boundary, in_blocks
from storage.session.steps import LongStep


async def begins_right(means: Means, session: Session, epoch: Epoch) -> bool:
    """Whether an epoch still begins at the current boundary and with the current lead."""
    view = epoch.view
    if not view.format.history:
        return True
    if epoch.boundary != session.extents.boundary(view.cut):
        return False
    version = await _version(means, session, view, epoch.boundary)
    if version == epoch.lead_version:
        return True
    if not epoch.leads_with((await find_lead(means, session, view, epoch.boundary))[0]):
        return False
    epoch.lead_version = version
    return True


async def _version(means: Means, session: Session, view: View, boundary: Boundary) -> Hashable:
    """A token that changes whenever the lead of a view that begins there may have changed."""
    headed = _may_be_headed(session, view, boundary)
    if view.format.lead is None or boundary.archive is None:
        return headed
    archived = await means.work.small(session.slug, means.archives.version, boundary.archive)
    return headed, archived, session.extents.edits


def _may_be_headed(session: Session, view: View, boundary: Boundary) -> int:
    """Whether a view may have a head; it has one only if something follows.

    For a view at a time that is only known once the steps are read: then this is the number of the last
    step, so that the token changes with it.
    """
    if view.format.head is None:
        return False
    end = session.end(view)
    followed = boundary.archive is not None or end > boundary.number
    return end if followed and isinstance(view.cut, AtTime) else followed


async def find_lead(
    means: Means, session: Session, view: View, boundary: Boundary
) -> tuple[bytes, Hashable]:
    """The lead of a view that begins at `boundary`, and a token that changes whenever it may have."""
    version = await _version(means, session, view, boundary)
    headed = _may_be_headed(session, view, boundary)
    if not headed and (view.format.lead is None or boundary.archive is None):
        return b"", version
    work = partial(lead_text, means, session.slug, view, boundary, within_cut(session, view))
    steps = 1 if boundary.archive is None and view.cut is None else PASS_STEPS
    return await means.replay(session, steps, work, view.cut), version


def lead_text(
    means: Means, slug: str, view: View, boundary: Boundary, index: Index, reader: Reader
) -> bytes:
    """Render the lead of the history of the steps in `index` after `boundary`. For any thread."""
    head, lead, name = view.format.head, view.format.lead, boundary.archive
    if name is None and isinstance(view.cut, AtTime) and not _any_stored(reader, index, boundary):
        return b""
    text = b"" if head is None else head(reader.fd, slug)
    if lead is not None and name is not None:
        blocks = _in_blocks(reader, index, boundary, slug)
        text += lead(name, means.archives.text(name), blocks)
    return text


def _any_stored(reader: Reader, index: Index, boundary: Boundary) -> bool:
    """Whether the history has a step that was stored by the reader's time."""
    numbers = index.between(boundary.number + 1, index.greatest, len(index.numbers))
    for name in (name for number in numbers for name in index.names(number)):
        with suppress(OSError, LongStep):
            reader.read(name)
            return True
    return False


def _in_blocks(reader: Reader, index: Index, boundary: Boundary, slug: str) -> bool:
    """Whether the archive's message should have content blocks (G2)."""
    blocks = in_blocks(reader, index, boundary)
    return is_ulid(slug) if blocks is None else blocks


def within_cut(session: Session, view: View) -> Index:
    """A copy of the index without the steps beyond the view's cut."""
    index = session.index
    numbers = index.between(0, session.end(view), len(index.numbers))
    return Index(array("Q", numbers), dict(index.odd))
