"""Which remembered steps have to move, for their numbers to tell their order (G16)."""

from __future__ import annotations

from typing import Final

from fusefs.session.step_table import Place, StepTable

WALKED_STEPS: Final = 1024
"""Steps examined in one go to find one that is out of order."""


class StepOrder:
    """The steps that may have to move, in the order in which they were stored. Loop-owned.

    Steps below the address `_ordered` ascend by number as by address, none of them beyond `_top`. What
    is put back under the number that it had before changes nothing about that: it was in order then,
    or it is not below that address.
    """

    def __init__(self) -> None:
        self._places = StepTable(Place, "at")
        self._ordered: int | None = None
        """None if all are in order."""
        self._top = 0

    @property
    def broken(self) -> bool:
        """Whether a step may have an earlier one behind it."""
        return self._ordered is not None

    def put(self, at: int, number: int) -> None:
        """A step has its number again."""
        self._places.add(Place(at, number))

    def put_anew(self, at: int, number: int, greatest: int) -> None:
        """A step has a number that it had not before; `greatest` is that of all others."""
        latest = self._places.greatest()
        self.put(at, number)
        if latest is not None and at < latest.at:
            self._in_order_until(at + 1, max(number, greatest))
        elif number < greatest:
            self._in_order_until(at, greatest)

    def pop(self, at: int) -> None:
        """A step is out of this."""
        self._places.pop(at)

    def to_move(self, most: int) -> list[int]:
        """The numbers of the next steps that have to be moved up for all to be in order again.

        None of them may be moved unless those before it were. If there are none yet, and the order is
        `broken` still, more have to be walked over.
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
