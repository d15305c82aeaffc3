"""What a change of a step's time means: that is the mtime of its file (G2e, G3c, G30b)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusefs.views.epoch import UNDATED

if TYPE_CHECKING:
    from fusefs.session.session import Session


def redated(session: Session, number: int) -> None:
    """The time of step `number` may have changed: it was set, or the owner or the permissions were.

    That its contents stay as they are spares all views that show no times, and the listing.
    """
    if session.refreshing is not None and session.refreshing.follows_times:
        session.touched.add(number)
    session.extents.redated(number)
    for view, epoch in session.epochs.items():
        if view.follows_times and epoch.boundary.number <= number <= epoch.last:
            epoch.doubt()
        if number == epoch.dated:
            epoch.dated = UNDATED
