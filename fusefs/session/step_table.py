"""Many remembered steps in little memory: 48 bytes each (G16, G23)."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import compress
from typing import Final, Generic, NamedTuple, TypeVar

COMPACTED_ROWS: Final = 1024
"""Removed rows that may remain before the table is compacted."""


class Remembered(NamedTuple):
    """A step that this mount stored."""

    number: int
    identity: int
    """What `step_identity` said of its file."""
    at: int
    """The address of its text, which is greater for every later step."""
    length: int
    """Length of the text in bytes; never 0."""


class Place(NamedTuple):
    """Where the step is whose text has that address."""

    at: int
    number: int
    """Never 0."""


Row = TypeVar("Row", Remembered, Place)
_NO_ROWS: Final = array("Q")
"""Every column of a table that never got a row, as those of most sessions: it takes no memory."""


class StepTable(Generic[Row]):
    """Rows of remembered steps, ascending by one of their fields, which no two of them share.

    A row that is taken out stays as one whose last field is 0, until it comes back or there are many of
    those. All but `add` of a new key that is not the greatest takes logarithmic time, if what is
    compacted now and then is spread.
    """

    __slots__ = ("_columns", "_fields", "_first", "_key", "_make", "_out")

    def __init__(self, row: type[Row], key: str) -> None:
        """`key` is the field by which rows ascend."""
        self._make: Callable[[Iterable[int]], Row] = row._make
        self._fields: tuple[str, ...] = row._fields
        self._key = self._fields.index(key)
        self._columns = (_NO_ROWS,) * len(self._fields)
        self._first = 0
        """No row before this one is left."""
        self._out = 0
        """Rows that were taken out."""

    def __len__(self) -> int:
        return len(self._columns[0]) - self._out

    def __iter__(self) -> Iterator[Row]:
        return self.after(-1)

    def after(self, key: int) -> Iterator[Row]:
        """Those of greater keys, ascending; nothing may be added or taken out meanwhile."""
        alive = self._columns[-1]
        for place in range(max(self._place(key + 1), self._first), len(alive)):
            if alive[place]:
                yield self._row(place)

    def column(self, field: str) -> array[int]:
        """The values of one field, of all rows."""
        return array("Q", compress(self._columns[self._fields.index(field)], self._columns[-1]))

    def get(self, key: int) -> Row | None:
        """The row of that key."""
        place = self._place(key)
        return self._row(place) if self._is_at(place, key) and self._columns[-1][place] else None

    def add(self, row: Row) -> None:
        """Take a row in; one of the same key goes."""
        key = row[self._key]
        place = self._place(key)
        if self._is_at(place, key):
            self._out -= not self._columns[-1][place]
            for column, value in zip(self._columns, row, strict=True):
                column[place] = value
        else:
            if not self._columns[0]:
                self._columns = tuple(array("Q") for _ in self._columns)
            for column, value in zip(self._columns, row, strict=True):
                column.insert(place, value)
        self._first = min(self._first, place)

    def pop(self, key: int) -> Row | None:
        """Take out the row of that key; None if there is none."""
        row = self.get(key)
        if row is not None:
            self._columns[-1][self._place(key)] = 0
            self._out += 1
            self._close_up()
        return row

    def least(self) -> Row | None:
        """The row of the least key."""
        return self._row(self._first) if len(self) else None

    def greatest(self) -> Row | None:
        """The row of the greatest key."""
        return self._row(-1) if len(self) else None

    def _place(self, key: int) -> int:
        keys = self._columns[self._key]
        if not keys or key > keys[-1]:
            return len(keys)
        return bisect_left(keys, max(key, 0))

    def _is_at(self, place: int, key: int) -> bool:
        keys = self._columns[self._key]
        return place < len(keys) and keys[place] == key

    def _row(self, place: int) -> Row:
        return self._make(column[place] for column in self._columns)

    def _close_up(self) -> None:
        alive = self._columns[-1]
        while self._first < len(alive) and not alive[self._first]:
            self._first += 1
        while alive and not alive[-1]:
            for column in self._columns:
                column.pop()
            self._out -= 1
        self._first = min(self._first, len(alive))
        if self._out > COMPACTED_ROWS and self._out > len(alive) // 2:
            self._columns = tuple(array("Q", compress(c, alive)) for c in self._columns)
            self._first = self._out = 0
