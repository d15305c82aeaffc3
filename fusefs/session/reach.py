"""How far daemons have counted in a session, and which numbers are out of their reach (G16)."""

from __future__ import annotations

from typing import Final

GAP: Final = 1000
"""A displaced step is stored this far above the greatest number, out of the daemon's reach."""
CEILING: Final = 999_000
"""No gap leads beyond this number: the reference sorts by name, so order is lost past six digits."""
COUNTS: Final = 16
"""Daemons' counts kept per session; the smallest ones."""


class Reach:
    """What is known about the daemons that write one session. Loop-owned; nothing waits."""

    __slots__ = ("_counts", "_quiet", "_reached", "_refuge", "_renames")

    def __init__(self) -> None:
        self._counts: frozenset[int] = frozenset()
        """The numbers that daemons will write next, judging by the renames seen."""
        self._reached = 0
        """The greatest number that a daemon is known to have reached."""
        self._refuge = 0
        """Where steps were last stored out of reach."""
        self._renames = 0
        """Counts daemons' renames; unchanged while they are quiet."""
        self._quiet = (-1, 0.0)
        """The value of `_renames` when it was last compared, and since when it has had that value."""

    @property
    def passed(self) -> int:
        """All daemons whose renames were seen have counted past the numbers below this."""
        return min(self._counts, default=0)

    def renamed_over(self, number: int) -> None:
        """A daemon has renamed a step to `number`."""
        self.reached(number)
        self._counts = self._counts - {number} | {number + 1}
        if len(self._counts) > COUNTS:
            self._counts -= {max(self._counts)}

    def reached(self, number: int) -> None:
        """A daemon must have written `number` without our seeing the rename."""
        self._renames += 1
        self._reached = max(self._reached, number)

    def quiet_seconds(self, now: float) -> float:
        """For how long no daemon has renamed anything, since this was first called after a rename."""
        if self._quiet[0] != self._renames:
            self._quiet = (self._renames, now)
        return now - self._quiet[1]

    def refuge(self, greatest: int, *, ours: bool) -> int:
        """The number at which to store a step out of reach: above `greatest`, the greatest number in
        use, with a gap unless there is one below that. `ours`: the step `greatest` is remembered."""
        if greatest + GAP >= CEILING:
            return greatest + 1
        if not ours or not self._reached + GAP <= self._refuge <= greatest:
            self._refuge = greatest + GAP
            return self._refuge
        return greatest + 1
