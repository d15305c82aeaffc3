"""How far daemons have counted in a session, and where steps are out of their reach (G16)."""

from __future__ import annotations

from typing import Final

GAP: Final = 1000
"""How far above the greatest number a displaced step is stored, out of the daemon's reach."""
CEILING: Final = 999_000
"""The reference sorts names, so it loses the order past six digits: no gap leads beyond this."""
COUNTS: Final = 16
"""Counts of daemons that are kept of a session, the least ones."""


class Reach:
    """What is known of the daemons of one session. Loop-owned; nothing waits."""

    __slots__ = ("_counts", "_quiet", "_reached", "_refuge", "_renames")

    def __init__(self) -> None:
        self._counts: frozenset[int] = frozenset()
        """The numbers that daemons are to write next, as far as their renames were seen."""
        self._reached = 0
        """The greatest number that a daemon is known to have reached."""
        self._refuge = 0
        """Where steps were last stored out of reach."""
        self._renames = 0
        """Counts renames by daemons: unchanged while they are quiet."""
        self._quiet = (-1, 0.0)
        """That count, and when it was first seen to have this value."""

    @property
    def passed(self) -> int:
        """Every daemon whose renames were seen has counted past the numbers below this."""
        return min(self._counts, default=0)

    def renamed_over(self, number: int) -> None:
        """A daemon renamed a step to that number."""
        self.reached(number)
        self._counts = self._counts - {number} | {number + 1}
        if len(self._counts) > COUNTS:
            self._counts -= {max(self._counts)}

    def reached(self, number: int) -> None:
        """A daemon must have written that number, unseen."""
        self._renames += 1
        self._reached = max(self._reached, number)

    def quiet_seconds(self, now: float) -> float:
        """For how long no daemon has renamed anything here, as far as this was asked."""
        if self._quiet[0] != self._renames:
            self._quiet = (self._renames, now)
        return now - self._quiet[1]

    def refuge(self, greatest: int, *, ours: bool) -> int:
        """Where steps are stored next: behind `greatest`, the greatest number there is, and behind a gap
        if no gap is before that. `ours` says that the step of that number is remembered."""
        if greatest + GAP >= CEILING:
            return greatest + 1
        if not ours or not self._reached + GAP <= self._refuge <= greatest:
            self._refuge = greatest + GAP
            return self._refuge
        return greatest + 1
