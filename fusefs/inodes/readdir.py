"""Listings: the names of a directory, as readdir goes through them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fusefs.catalogue.catalogue import Catalogue
from fusefs.dotdir.files import DIRECTORY, STEPS, Hidden, Latest
from fusefs.inodes.attributes import Attributes
from fusefs.inodes.inode import HiddenNode, Node, RootNode, SessionNode
from fusefs.inodes.stats import Stats
from fusefs.inodes.table import FILES, Names, is_latest
from storage.store import Store

_DOTS: Final = (".", "..")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a listing."""

    name: str
    node: Node | None
    """None for `.` and `..`, which the kernel does not look up."""
    attributes: Attributes
    next: int


@dataclass(slots=True)
class Listing:
    """An open directory: the names as of when it was last gone through from the start.

    `everything` says whether it is listed for somebody who may read the private files.
    """

    node: Node
    everything: bool
    names: Sequence[str] | None = None
    links: Mapping[str, str] = field(default_factory=dict)


class Listings:
    """Makes listings, without a look at what is in the files (G3). Loop-owned."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        names: Names,
        latest: Latest,
        hidden: Hidden,
        stats: Stats,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._names = names
        self._latest = latest
        self._hidden = hidden
        self._stats = stats

    async def fill(self, listing: Listing) -> None:
        """Take the names as they are now. Raises `StoreError`."""
        node = listing.node
        found: Sequence[str] = ()
        if isinstance(node, RootNode):
            found = [DIRECTORY, *await self._catalogue.names()]
        elif isinstance(node, SessionNode):
            self._store.stat_session(node.slug)
            found = FILES
        elif is_latest(node):
            listing.links = await self._latest.links()
            found = list(listing.links)
        elif isinstance(node, HiddenNode) and node.name != STEPS:
            found = self._hidden.names(listing.everything)
        listing.names = [*_DOTS, *found]

    def entries(self, listing: Listing, start: int) -> Iterator[Entry]:
        """The entries after the one whose `next` was `start` (0: all)."""
        assert listing.names is not None
        for at in range(start, len(listing.names)):
            name = listing.names[at]
            if name in _DOTS:
                yield Entry(name, None, self._stats.placeholder(listing.node), at + 1)
            else:
                node = self._names.listed(listing.node, name, listing.links)
                yield Entry(name, node, self._stats.placeholder(node), at + 1)
