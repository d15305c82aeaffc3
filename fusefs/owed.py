"""A queue without duplicates, of work that tasks still have to do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Owed(Generic[T]):
    """Pending things, oldest first, for tasks that sleep while there are none. Loop-owned."""

    __slots__ = ("_things", "_waiting")

    def __init__(self) -> None:
        self._things: dict[T, None] = {}
        self._waiting = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._things)

    def __iter__(self) -> Iterator[T]:
        return iter(self._things)

    def add(self, thing: T) -> None:
        """Add a thing, unless it is already there."""
        self._things[thing] = None
        self._waiting.unpark()

    def discard(self, thing: T) -> None:
        """Remove a thing, if it is there."""
        self._things.pop(thing, None)

    def clear(self) -> None:
        """Remove everything."""
        self._things.clear()

    async def first(self) -> T:
        """Wait for the oldest thing and return it, without removing it."""
        while not self._things:
            await self._waiting.park()
        return next(iter(self._things))

    async def take(self) -> T:
        """Wait for the oldest thing, remove and return it."""
        thing = await self.first()
        del self._things[thing]
        return thing

    async def take_some(self, most: int) -> list[T]:
        """Wait until there is a thing; remove and return up to `most`, oldest first."""
        await self.first()
        things = list(islice(self._things, most))
        for thing in things:
            del self._things[thing]
        return things
