"""A compact table of remembered steps: 48 bytes each (G16, G23)."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import compress
from typing import Final, Generic, NamedTuple, TypeVar

COMPACTED_ROWS: Final = 1024
"""The table is compacted once more removed rows than this remain."""


class Remembered(NamedTuple):
    """A step that this mount stored."""

    number: int
    identity: int
    """The `step_identity` of its file."""
    at: int
    """The address of its text; later steps have greater ones."""
    length: int
    """Length of the text in bytes; never 0."""


class Place(NamedTuple):
    """The number of the step whose text is at an address."""

    at: int
    number: int
    """Never 0."""


Row = TypeVar("Row", Remembered, Place)
_NO_ROWS: Final = array("Q")
"""Stands for every column of a table that never had a row, as most have not: it takes no memory."""


class StepTable(Generic[Row]):
    """Rows of remembered steps, ascending by one field, the key, which is unique.

    A removed row stays with a last field of 0, until it is added again or the table is compacted.
    Every operation takes amortised logarithmic time, except `add` of a new key that is not the greatest.
    """

    __slots__ = ("_columns", "_fields", "_first", "_key", "_make", "_out")

    def __init__(self, row: type[Row], key: str) -> None:
        """`key` names the field by which rows ascend."""
        self._make: Callable[[Iterable[int]], Row] = row._make
        self._fields: tuple[str, ...] = row._fields
        self._key = self._fields.index(key)
        self._columns = (_NO_ROWS,) * len(self._fields)
        self._first = 0
        """All rows before this one were removed."""
        self._out = 0
        """The number of removed rows that remain."""

    def __len__(self) -> int:
        return len(self._columns[0]) - self._out

    def __iter__(self) -> Iterator[Row]:
        return self.after(-1)

    def after(self, key: int) -> Iterator[Row]:
        """Rows with greater keys, ascending; the table must not change during the iteration."""
        alive = self._columns[-1]
        for place in range(max(self._place(key + 1), self._first), len(alive)):
            if alive[place]:
                yield self._row(place)

    def column(self, field: str) -> array[int]:
        """The values of one field in all rows."""
        return array("Q", compress(self._columns[self._fields.index(field)], self._columns[-1]))

    def get(self, key: int) -> Row | None:
        """The row with this key; None if there is none."""
        place = self._place(key)
        return self._row(place) if self._is_at(place, key) and self._columns[-1][place] else None

    def add(self, row: Row) -> None:
        """Add a row; it replaces one with the same key."""
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
        """Remove and return the row with this key; None if there is none."""
        row = self.get(key)
        if row is not None:
            self._columns[-1][self._place(key)] = 0
            self._out += 1
            self._close_up()
        return row

    @property
    def least(self) -> int | None:
        """The least key; None if the table is empty."""
        return self._columns[self._key][self._first] if len(self) else None

    @property
    def greatest(self) -> int | None:
        """The greatest key; None if the table is empty."""
        return self._columns[self._key][-1] if len(self) else None

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
