"""Reading a directory: the names as of the first call, resumed at any offset."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from hypothesis import given
from hypothesis import strategies as st

from fusefs.inodes.attributes import Attributes
from fusefs.inodes.inode import Directory, Inode
from fusefs.inodes.readdir import DOTS, OpenDirectory
from fusefs.inodes.table import Table


class Listed(Directory):
    """A directory whose names change."""

    def __init__(self, table: Table, parent: Directory | None, names: list[str]) -> None:
        super().__init__(table, parent, "listed")
        self.present = names
        self.listings: list[bool] = []

    async def attributes(self, exact: bool) -> Attributes:
        raise NotImplementedError

    async def lookup(self, name: str) -> Inode:
        raise NotImplementedError

    async def names(self, private: bool) -> Sequence[str]:
        self.listings.append(private)
        return list(self.present)

    def child(self, name: str) -> Inode | None:
        return Listed(self.table, self, []) if name in self.present else None


def listed(directory: Listed) -> OpenDirectory:
    opened = OpenDirectory(directory, private=True)
    trio.run(opened.list)
    return opened


@given(st.lists(st.text("abc", min_size=1, max_size=3), unique=True), st.integers(1, 4))
def test_every_name_is_met_once_however_many_are_taken_at_a_time(
    names: list[str], most: int
) -> None:
    opened = listed(Listed(Table(), None, names))
    met: list[str] = []
    start = 0
    while taken := list(zip(range(most), opened.entries(start), strict=False)):
        met += [entry.name for _, entry in taken]
        start = taken[-1][1].next
    assert met == [*DOTS, *names]


def test_removed_names_are_skipped_and_new_ones_appear_after_a_rewind() -> None:
    directory = Listed(Table(), None, ["a", "b", "c"])
    opened = listed(directory)
    directory.present = ["a", "c", "d"]
    assert [entry.name for entry in opened.entries(0)] == [*DOTS, "a", "c"]
    assert opened.begins(0)
    assert not opened.begins(3)
    trio.run(opened.list)
    assert [entry.name for entry in opened.entries(0)] == [*DOTS, "a", "c", "d"]
    assert directory.listings == [True, True]


def test_resuming_before_any_listing_needs_the_names() -> None:
    assert OpenDirectory(Listed(Table(), None, []), private=False).begins(7)


def test_dots_are_the_directory_itself_and_count_no_lookup() -> None:
    directory = Listed(Table(), None, [])
    entries = list(listed(directory).entries(0))
    assert [(entry.is_dot, entry.inode) for entry in entries] == [(True, directory)] * 2
