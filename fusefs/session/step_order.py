"""Finds the remembered steps that have to move so that numbers ascend in the order of storing (G16)."""

from __future__ import annotations

from typing import Final

from fusefs.session.step_table import Place, StepTable

WALKED_STEPS: Final = 1024
"""Steps examined at a time to find one that is out of order."""


class StepOrder:
    """The steps that may have to move, in the order in which they were stored. Loop-owned.

    Steps below the address `_ordered` ascend by number as by address, and none is above `_top`. Putting
    a step back under its old number does not affect that: it was in order before, or is not below that
    address.
    """

    def __init__(self) -> None:
        self._places = StepTable(Place, "at")
        self._ordered: int | None = None
        """The address below which steps are in order; None if all are."""
        self._top = 0
        """The greatest number of a step below that address."""

    @property
    def broken(self) -> bool:
        """Whether a step may have a greater number than one that was stored later."""
        return self._ordered is not None

    def put(self, at: int, number: int) -> None:
        """Add a step under the number that it had before."""
        self._places.add(Place(at, number))

    def put_anew(self, at: int, number: int, greatest: int) -> None:
        """Add a step under a new number; `greatest` is the greatest number of all others."""
        latest = self._places.greatest
        self.put(at, number)
        if latest is not None and at < latest:
            self._in_order_until(at + 1, max(number, greatest))
        elif number < greatest:
            self._in_order_until(at, greatest)

    def pop(self, at: int) -> None:
        """Remove a step."""
        self._places.pop(at)

    def to_move(self, most: int) -> list[int]:
        """The numbers of the next steps to move up, at most `most`, in the order in which to move them.

        If this is empty and the order is still `broken`, call it again to examine more steps.
        """
        numbers: list[int] = []
        if self._ordered is None:
            return numbers
        for walked, (at, number) in enumerate(self._places.after(self._ordered - 1)):
            if len(numbers) == most or walked == WALKED_STEPS:
                return numbers
            if numbers or number <= self._top:
                numbers.append(number)
            else:
                self._ordered, self._top = at + 1, number
        if not numbers:
            self._ordered = None
        return numbers

    def _in_order_until(self, at: int, top: int) -> None:
        if self._ordered is None or at <= self._ordered:
            self._ordered, self._top = at, top
