"""Of the past, only what was used last is kept: files, their lines, and directories (G29e)."""

from __future__ import annotations

import pytest

from fusefs.inodes import recent_past
from fusefs.inodes.attributes import Attributes
from fusefs.inodes.inode import Inode
from fusefs.inodes.recent_past import KEPT_DIRECTORIES, KEPT_FILES, KEPT_LINES, RecentPast
from fusefs.inodes.table import Table
from tests.fusefs.inodes.test_table import Place


class Forgetful:
    """A kernel that records which names it has to drop."""

    def __init__(self) -> None:
        self.dropped: list[str] = []

    def attributes_changed(self, ino: int) -> None:
        raise NotImplementedError

    async def grown(self, ino: int, size: int) -> None:
        raise NotImplementedError

    def entry_changed(self, parent: int, name: str) -> None:
        assert parent
        self.dropped.append(name)


class Remembered(Inode):
    """A file that is kept while it is in `RecentPast`."""

    def __init__(self, table: Table, parent: Place, name: str, past: RecentPast) -> None:
        self.past = past
        super().__init__(table, parent, name)

    @property
    def kept(self) -> bool:
        return self in self.past

    async def attributes(self, exact: bool) -> Attributes:
        raise NotImplementedError


@pytest.fixture
def kernel() -> Forgetful:
    return Forgetful()


def files(past: RecentPast, count: int) -> list[Remembered]:
    table = Table()
    root = Place(table, None, "")
    return [Remembered(table, root, f"{number}", past) for number in range(count)]


@pytest.mark.guarantee("G29e")
def test_the_files_that_were_used_last_stay(kernel: Forgetful) -> None:
    past = RecentPast(kernel)
    made = files(past, KEPT_FILES + 3)
    for file in made:
        past.used(file, 1)
        past.used(made[0], 1)
    assert kernel.dropped == ["1", "2", "3"]
    assert made[0] in past
    assert made[0].table.get(made[1].ino) is None


@pytest.mark.guarantee("G29e")
def test_of_files_with_many_lines_fewer_are_kept_but_always_the_last_one(kernel: Forgetful) -> None:
    past = RecentPast(kernel)
    made = files(past, 3)
    for file in made:
        past.used(file, KEPT_LINES * 2 // 3)
    assert kernel.dropped == ["0", "1"]
    past.used(made[2], KEPT_LINES * 9)
    assert made[2] in past


@pytest.mark.guarantee("G29e")
def test_hundreds_of_directories_are_kept(kernel: Forgetful) -> None:
    past, table = RecentPast(kernel), Table()
    root = Place(table, None, "")
    for number in range(KEPT_DIRECTORIES + 2):
        past.entered(Place(table, root, f"{number}"))
    assert kernel.dropped == ["0", "1"]
    assert len(table) == 1 + KEPT_DIRECTORIES


def test_what_the_table_no_longer_knows_is_not_kept(
    kernel: Forgetful, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_past, "KEPT_FILES", 1)
    past = RecentPast(kernel)
    first, second = files(past, 2)
    past.used(first, 1)
    past.drop(first)
    past.used(second, 1)
    assert kernel.dropped == []
