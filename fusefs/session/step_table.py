"""Many remembered steps in little memory: 32 bytes each (G16, G23)."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Container, Iterator
from itertools import accumulate, compress
from typing import Final, NamedTuple

COMPACTED_ROWS: Final = 1024
"""So many rows that were taken out may stay, before those that are left close up."""


class Remembered(NamedTuple):
    """A step that this mount stored."""

    number: int
    identity: int
    """What `step_identity` said of its file."""
    at: int
    """The address of its text, which is greater for every later step."""
    length: int
    """Of the text, in bytes; never 0."""


NUMBER: Final = Remembered._fields.index("number")
AT: Final = Remembered._fields.index("at")
_LENGTH: Final = Remembered._fields.index("length")


class StepTable:
    """Remembered steps, ascending by one of their fields, which no two of them share.

    A row that is taken out stays as one of length 0, until there are many of those. All but `add` of a
    lower key than the greatest takes logarithmic time, if what is compacted now and then is spread.
    """

    def __init__(self, key: int) -> None:
        """`key` is `NUMBER` or `AT`."""
        self._key = key
        self._columns: tuple[array[int], ...] = tuple(array("Q") for _ in Remembered._fields)
        self._first = 0
        """No row before this one is left."""
        self._out = 0
        """Rows that were taken out."""

    def __len__(self) -> int:
        return len(self._columns[0]) - self._out

    def __iter__(self) -> Iterator[Remembered]:
        return self.after(-1)

    def after(self, key: int) -> Iterator[Remembered]:
        """Those of greater keys, ascending; nothing may be added or taken out meanwhile."""
        for place in range(self._place(key + 1), len(self._columns[0])):
            row = self._row(place)
            if row.length:
                yield row

    def keys(self) -> array[int]:
        """The keys of all."""
        return array("Q", compress(self._columns[self._key], self._columns[_LENGTH]))

    def get(self, key: int) -> Remembered | None:
        """The step of that key."""
        place = self._place(key)
        row = self._row(place) if place < len(self._columns[0]) else None
        return row if row and row.length and row[self._key] == key else None

    def add(self, step: Remembered) -> None:
        """Take a step in; one of the same key goes."""
        self.pop(step[self._key])
        place = self._place(step[self._key])
        self._first = min(self._first, place)
        for column, value in zip(self._columns, step, strict=True):
            column.insert(place, value)

    def pop(self, key: int) -> Remembered | None:
        """Take out the step of that key; None if there is none."""
        step = self.get(key)
        if step is not None:
            self._columns[_LENGTH][self._place(key)] = 0
            self._out += 1
            self._close_up()
        return step

    def least(self) -> Remembered | None:
        """The step of the least key."""
        return self._row(self._first) if len(self) else None

    def greatest(self) -> Remembered | None:
        """The step of the greatest key."""
        return self._row(-1) if len(self) else None

    def misplaced(self, fixed: Container[int]) -> list[int]:
        """The numbers of the steps that have to get higher ones for all to ascend by their addresses
        too, but for those of `fixed` addresses.

        They are in the order in which they were stored: from the first with an earlier one behind it.
        """
        lengths, places = self._columns[_LENGTH], self._columns[AT]
        left = [length and at not in fixed for length, at in zip(lengths, places, strict=True)]
        numbers, ats = (array("Q", compress(self._columns[c], left)) for c in (NUMBER, AT))
        least_behind = array("Q", accumulate(reversed(ats), min))
        least_behind.reverse()
        if ats == least_behind:
            return []
        first = min(at for at, least in zip(ats, least_behind, strict=True) if at != least)
        return [number for at, number in sorted(zip(ats, numbers, strict=True)) if at >= first]

    def _place(self, key: int) -> int:
        keys = self._columns[self._key]
        if not keys or key > keys[-1]:
            return len(keys)
        return bisect_left(keys, max(key, 0), self._first)

    def _row(self, place: int) -> Remembered:
        return Remembered(*(column[place] for column in self._columns))

    def _close_up(self) -> None:
        lengths = self._columns[_LENGTH]
        while self._first < len(lengths) and not lengths[self._first]:
            self._first += 1
        while lengths and not lengths[-1]:
            for column in self._columns:
                column.pop()
            self._out -= 1
        self._first = min(self._first, len(lengths))
        if self._out > COMPACTED_ROWS and self._out > len(lengths) // 2:
            self._columns = tuple(array("Q", compress(c, lengths)) for c in self._columns)
            self._first = self._out = 0
