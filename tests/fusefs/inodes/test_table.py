"""The table of inodes: it knows what the kernel or the mount still needs, and nothing else (G3)."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from fusefs.inodes.attributes import Attributes
from fusefs.inodes.inode import ROOT_INO, Directory, Inode
from fusefs.inodes.table import Table


class Place(Directory):
    """A directory that is kept while it has known children."""

    __slots__ = ("children", "gone", "pinned")

    def __init__(self, table: Table, parent: Directory | None, name: str) -> None:
        super().__init__(table, parent, name)
        self.children: set[Place] = set()
        self.pinned = False
        self.gone = False
        if isinstance(parent, Place):
            parent.children.add(self)

    @property
    def kept(self) -> bool:
        return self.pinned or bool(self.children) or self.parent is None

    async def attributes(self, exact: bool) -> Attributes:
        raise NotImplementedError

    async def lookup(self, name: str) -> Inode:
        raise NotImplementedError

    async def names(self, private: bool) -> Sequence[str]:
        raise NotImplementedError

    def child(self, name: str) -> Inode | None:
        raise NotImplementedError

    def forgotten(self) -> None:
        self.gone = True
        if isinstance(self.parent, Place):
            self.parent.children.discard(self)


class Known(RuleBasedStateMachine):
    """Lookups, forgets and pins in a tree, in any order."""

    places = Bundle("places")

    def __init__(self) -> None:
        super().__init__()
        self.table = Table()
        self.root = Place(self.table, None, "")
        self.numbers = {self.root.ino}
        self.made: list[Place] = []

    def is_needed(self, place: Place) -> bool:
        return place.kept or place.lookups > 0

    @rule(target=places, at=st.integers(0, 9), looked_up=st.integers(0, 2))
    def is_made(self, at: int, looked_up: int) -> Place:
        alive = [self.root, *(place for place in self.made if not place.gone)]
        place = Place(self.table, alive[at % len(alive)], f"{len(self.numbers)}")
        assert place.ino not in self.numbers
        self.numbers.add(place.ino)
        place.lookups += looked_up
        place.pinned = not looked_up
        self.made.append(place)
        return place

    @rule(place=places)
    def is_looked_up(self, place: Place) -> None:
        if not place.gone:
            place.lookups += 1

    @rule(place=places, count=st.integers(1, 3))
    def is_forgotten(self, place: Place, count: int) -> None:
        if not place.gone:
            self.table.forget(place, min(count, place.lookups))

    @rule(place=places)
    def is_pinned(self, place: Place) -> None:
        if not place.gone:
            place.pinned = True

    @rule(place=consumes(places))
    def is_unpinned(self, place: Place) -> None:
        place.pinned = False
        self.table.reap(place)

    @invariant()
    def exactly_what_is_needed_is_known(self) -> None:
        for place in self.made:
            known = self.table.get(place.ino) is place
            assert known is not place.gone
            assert known is self.is_needed(place)
        alive = [place for place in self.made if not place.gone]
        assert len(self.table) == 1 + len(alive)
        assert self.table.lookups == sum(place.lookups for place in alive)
        assert self.table.get(ROOT_INO) is self.root


TestKnown = Known.TestCase
