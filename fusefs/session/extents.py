"""Where a session's histories begin and end: the present one, and past ones (G29, G30)."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass

from fusefs.views.cuts import AtStep, AtTime, Cut, InEpoch
from storage.errors import StoreError, printable
from storage.session.epochs import Epochs
from storage.session.index import Index
from storage.session.replay import Boundary
from storage.session.steps import NUMBER_MAX


@dataclass(eq=False, slots=True)
class Beginning:
    """Where a history begins. Another one takes its place, even if it says the same, once a step has
    changed on which that or its lead may depend."""

    boundary: Boundary
    reach: int = NUMBER_MAX
    """The number of the last step on which its lead depends, as far as that is known: an entry
    determines the dialect of the archive's message."""


class Extents:
    """The bounds of one session's history under each cut. Loop-owned."""

    def __init__(self, slug: str) -> None:
        self._slug = slug
        self.compactions = Epochs()
        """The compactions found so far by surveys."""
        self._beginnings: dict[Cut | None, Beginning] = {}
        """Where the history begins for each cut (None: all steps), if known."""

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
        found = self.beginning(cut)
        return None if found is None else found.boundary

    def beginning(self, cut: Cut | None) -> Beginning | None:
        """As `boundary`: the same object until that or the lead may have changed. Raises likewise."""
        found = self._beginnings.get(cut)
        if found is None or not isinstance(cut, InEpoch):
            return found
        return found if found.boundary.number == self._bounds(cut.number)[0] else None

    def begins(self, cut: Cut | None, boundary: Boundary) -> None:
        """Record that a pass found `boundary` for a cut. Raises as `boundary`."""
        self._beginnings[cut] = Beginning(boundary)
        if isinstance(cut, InEpoch) and self.boundary(cut) is None:
            # The compactions have changed since the survey: examine these again.
            for number in filter(None, (boundary.number, self._bounds(cut.number)[0])):
                self.compactions.changed(number)

    def changed(self, number: int) -> None:
        """Step `number` was added, removed or changed."""
        self.compactions.changed(number)
        self._affected(number, self._beginnings)

    def redated(self, number: int) -> None:
        """The time of step `number` may have changed."""
        self._affected(number, [cut for cut in self._beginnings if isinstance(cut, AtTime)])

    def _affected(self, number: int, cuts: Iterable[Cut | None]) -> None:
        for cut in tuple(cuts):
            beginning = self._beginnings[cut]
            if beginning.boundary.number == number:
                del self._beginnings[cut]
            elif number <= beginning.reach:
                self._beginnings[cut] = Beginning(beginning.boundary)

    def forget(self, cut: Cut | None) -> None:
        """Drop a cut that is no longer used."""
        self._beginnings.pop(cut, None)

    def forget_all(self) -> None:
        """Any step may have changed."""
        self.compactions.forget()
        self._beginnings.clear()

    def _bounds(self, epoch: int) -> tuple[int, int | None]:
        """The compaction after which an epoch begins, and its last step if it is closed, else None."""
        try:
            return self.compactions.begins_after(epoch), self.compactions.last_step(epoch)
        except LookupError:
            sentence = f"the session {printable(self._slug)} has no epoch {epoch} any more"
            raise StoreError(errno.ENOENT, "no-such-epoch", sentence) from None
