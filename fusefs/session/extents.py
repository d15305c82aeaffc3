"""Where a session's histories begin and end: the present one, and past ones (G29, G30)."""

from __future__ import annotations

import errno

from fusefs.views.cuts import AtStep, Cut, InEpoch
from storage.errors import StoreError, printable
from storage.session.epochs import Epochs
from storage.session.index import Index
from storage.session.replay import Boundary


class Extents:
    """The bounds of one session's history under each cut. Loop-owned."""

    def __init__(self, slug: str) -> None:
        self._slug = slug
        self.compactions = Epochs()
        """The compactions found so far by surveys."""
        self._boundaries: dict[Cut | None, Boundary] = {}
        """Where the history begins for each cut (None: all steps), if known."""
        self.edits = 0
        """Counts changes to steps before a history's beginning: an entry there determines the dialect
        of the archive's message."""

    def end(self, cut: Cut | None, index: Index) -> int:
        """The number of the last step under a cut, 0 if there is none. Raises as `boundary`."""
        match cut:
            case AtStep(last):
                pass
            case InEpoch(number) if (closed := self._bounds(number)[1]) is not None:
                last = closed
            case _:
                return index.greatest
        before = index.before(last + 1, 1)
        return before[-1] if before else 0

    def boundary(self, cut: Cut | None) -> Boundary | None:
        """Where the history begins under a cut; None while that is unknown.

        Raises `StoreError` ENOENT for an epoch that no longer exists.
        """
        found = self._boundaries.get(cut)
        if found is None or not isinstance(cut, InEpoch):
            return found
        return found if found.number == self._bounds(cut.number)[0] else None

    def begins(self, cut: Cut | None, boundary: Boundary) -> None:
        """Record that a pass found `boundary` for a cut. Raises as `boundary`."""
        self._boundaries[cut] = boundary
        if isinstance(cut, InEpoch) and self.boundary(cut) is None:
            # The compactions have changed since the survey: examine these again.
            for number in filter(None, (boundary.number, self._bounds(cut.number)[0])):
                self.compactions.changed(number)

    def changed(self, number: int) -> None:
        """Step `number` was added, removed or changed."""
        self.compactions.changed(number)
        for cut, boundary in list(self._boundaries.items()):
            if boundary.number == number:
                del self._boundaries[cut]
            elif boundary.number > number:
                self.edits += 1

    def forget(self, cut: Cut | None) -> None:
        """Drop a cut that is no longer used."""
        self._boundaries.pop(cut, None)

    def forget_all(self) -> None:
        """Any step may have changed."""
        self.edits += 1
        self.compactions.forget()
        self._boundaries.clear()

    def _bounds(self, epoch: int) -> tuple[int, int | None]:
        """The compaction after which an epoch begins, and its last step if it is closed, else None."""
        try:
            return self.compactions.begins_after(epoch), self.compactions.last_step(epoch)
        except LookupError:
            sentence = f"the session {printable(self._slug)} has no epoch {epoch} any more"
            raise StoreError(errno.ENOENT, "no-such-epoch", sentence) from None
