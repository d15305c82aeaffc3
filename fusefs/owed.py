"""What is owed: things to be worked off by tasks, each once, however often it is said."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Owed(Generic[T]):
    """Things in the order in which they came, for tasks that sleep while there are none. Loop-owned."""

    __slots__ = ("_things", "_waiting")

    def __init__(self) -> None:
        self._things: dict[T, None] = {}
        self._waiting = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._things)

    def __iter__(self) -> Iterator[T]:
        return iter(self._things)

    def add(self, thing: T) -> None:
        """Add a thing, unless it is owed already."""
        self._things[thing] = None
        self._waiting.unpark()

    def discard(self, thing: T) -> None:
        """Remove a thing, if it is owed."""
        self._things.pop(thing, None)

    def clear(self) -> None:
        """Remove everything."""
        self._things.clear()

    async def first(self) -> T:
        """The thing that is owed for the longest time, as soon as there is one. It stays owed."""
        while not self._things:
            await self._waiting.park()
        return next(iter(self._things))

    async def take(self) -> T:
        """Wait as `first` does, and remove the thing."""
        thing = await self.first()
        del self._things[thing]
        return thing

    async def take_some(self, most: int) -> list[T]:
        """Wait until something is owed, and remove up to `most` things."""
        await self.first()
        things = list(islice(self._things, most))
        for thing in things:
            del self._things[thing]
        return things
