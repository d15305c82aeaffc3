"""Open files: a release lets its inode go; at the end all are closed, even if some fail (G17)."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from fusefs.failures import Caller, Failures
from fusefs.handles.base import OpenFile
from fusefs.inodes.attributes import Attributes
from fusefs.inodes.inode import Inode
from fusefs.inodes.open_files import OpenFiles
from fusefs.inodes.table import Table
from storage.errors import StoreError


class File(Inode):
    """An inode that nothing pins."""

    async def attributes(self, exact: bool) -> Attributes:
        raise NotImplementedError


class Written(OpenFile):
    """An open file whose flush may fail."""

    session, name = "a_b_1", "append"
    caller = Caller(os.getpid(), 0, 0)

    def __init__(self, done: list[str], fails: bool = False) -> None:
        self.done, self.fails = done, fails

    async def flush(self) -> None:
        self.done.append("flush")
        if self.fails:
            raise StoreError(errno.ENOSPC, "no-space", "the disk is full")

    async def release(self) -> None:
        self.done.append("release")


def test_an_inode_that_the_kernel_forgot_is_freed_with_its_last_open_file() -> None:
    table = Table()
    files, inode, done = OpenFiles(table, Failures()), File(table, None, "x"), list[str]()
    handle = files.add(Written(done), inode)
    assert (len(files), files.get(handle).name) == (1, "append")
    trio.run(files.release, handle)
    assert (len(files), len(table), done) == (0, 0, ["release"])
    trio.run(files.release, handle)
    with pytest.raises(StoreError):
        files.get(handle)


@pytest.mark.guarantee("G17a")
def test_at_the_end_all_files_are_closed_and_failures_are_reported() -> None:
    table, failures, done = Table(), Failures(), list[str]()
    files = OpenFiles(table, failures)
    for fails in (True, False):
        files.add(Written(done, fails), File(table, None, "x"))
    trio.run(files.release_all)
    assert done == ["flush", "release"] * 2
    assert (len(files), len(table), failures.count) == (0, 0, 1)
    assert b"no-space" in failures.text()
