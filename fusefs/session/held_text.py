"""The text of an epoch: held while it is open, and rendered again after it was evicted (G13)."""

from __future__ import annotations

import errno
from array import array

from fusefs.session.lead import render_lead, within_cut
from fusefs.session.means import Means
from fusefs.session.session import Session
from fusefs.views.epoch import Epoch
from fusefs.views.text_cache import Segment
from storage.errors import StoreError
from storage.session.index import Index
from storage.session.reader import Reader
from storage.session.replay import PASS_STEPS, fingerprint, forwards


async def text(means: Means, session: Session, epoch: Epoch, segment: Segment) -> bytes:
    """The text of a segment, rendered again if it was evicted.

    Raises `StoreError` EIO if it no longer equals what was shown, and as `Means.replay`.
    """
    while (held := await means.cache.text(epoch, segment)) is None:
        length = segment.length
        found, right = await _rendered(means, session, epoch, segment)
        if segment.text is not None or segment.length != length:
            continue  # another task has rendered it, and it may have grown since
        if not right:
            epoch.doubt()
            sentence = "a step changed while it was read: open the file again"
            raise StoreError(errno.EIO, "changed-underneath", sentence)
        means.cache.keep(epoch, segment, found)
        await means.cache.settle()
        return found
    return held


async def pin(means: Means, session: Session, epoch: Epoch) -> None:
    """Hold all text of an open epoch in memory or in a spool, independent of the store (G13)."""
    lost = means.cache.lost
    if epoch.held_as_of != lost:
        for segment in list(epoch.segments):
            if not segment.held:
                await text(means, session, epoch, segment)
        epoch.held_as_of = lost


def unpin(means: Means, session: Session, epoch: Epoch) -> None:
    """Release the text on behalf of one file of the epoch that was closed."""
    epoch.opens -= 1
    if epoch.pinned:
        return
    if epoch.superseded or session.gone:
        means.cache.drop(epoch)
    else:
        means.cache.unpinned(epoch)


async def _rendered(
    means: Means, session: Session, epoch: Epoch, segment: Segment
) -> tuple[bytes, bool]:
    """Render a segment from the store; its text, and whether that equals what was shown."""
    view = epoch.view
    odd, shown = dict(session.index.odd), array("Q", segment.shown)
    digest, length = segment.fingerprint(), segment.length
    index = Index() if shown else within_cut(session, view)

    def render(reader: Reader) -> tuple[bytes, bool]:
        if shown:
            found = forwards(reader, shown, odd, view.format.show, False)
            data = b"".join(part.text for part in found.texts)
        else:
            data = render_lead(means, session.slug, view, epoch.boundary, index, reader).text
        return data, len(data) == length and fingerprint(data) == digest

    return await means.replay(session, len(shown) if shown else PASS_STEPS, render, view.cut)
