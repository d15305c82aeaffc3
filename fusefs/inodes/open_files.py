"""The open files of a mount, each with its inode."""

from __future__ import annotations

from fusefs.failures import Failures
from fusefs.handles.base import OpenFile
from fusefs.handles.table import HandleTable
from fusefs.inodes.inode import Inode
from fusefs.inodes.table import Table
from storage.errors import StoreError


class OpenFiles:
    """Open files by handle. Loop-owned."""

    def __init__(self, inodes: Table, failures: Failures) -> None:
        self._inodes = inodes
        self._failures = failures
        self._files: HandleTable[tuple[OpenFile, Inode]] = HandleTable("file")

    def __len__(self) -> int:
        return len(self._files)

    def add(self, opened: OpenFile, inode: Inode) -> int:
        """Register an opened file, and return its handle."""
        return self._files.add((opened, inode))

    def get(self, handle: int) -> OpenFile:
        """The file of a handle. Raises `StoreError` EBADF."""
        return self._files.get(handle)[0]

    def failed(self, opened: OpenFile, operation: str, error: StoreError) -> None:
        """Report in errors.jsonl that an operation on an open file is refused (G18)."""
        self._failures.record(opened.session, opened.name, operation, error, opened.caller)

    async def release(self, handle: int) -> None:
        """Release a file whose last descriptor was closed."""
        found = self._files.pop(handle)
        if found is not None:
            opened, inode = found
            await opened.release()
            self._inodes.reap(inode)  # the kernel may forget an inode before it releases its file

    async def release_all(self) -> None:
        """Release all open files, as if their users had closed them (G17)."""
        for handle in self._files:
            opened = self.get(handle)
            try:
                await opened.flush()
            except StoreError as error:
                self.failed(opened, "flush", error)
            await self.release(handle)
