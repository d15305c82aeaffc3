"""The table of file handles, by which the kernel refers to what is open."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Generic, TypeVar

from storage.errors import StoreError

T = TypeVar("T")


class HandleTable(Generic[T]):
    """Open files, or open directories, by handle. Handles are never reused. Loop-owned."""

    def __init__(self, kind: str) -> None:
        """`kind` is the word for these objects in error messages."""
        self._kind = kind
        self._open: dict[int, T] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[int]:
        """A copy of the handles, so that others may be opened and closed during an iteration."""
        return iter(list(self._open))

    def add(self, opened: T) -> int:
        """Register an opened object, and return its handle."""
        handle = self._next
        self._next += 1
        self._open[handle] = opened
        return handle

    def get(self, handle: int) -> T:
        """The object of a handle. Raises `StoreError` EBADF."""
        opened = self._open.get(handle)
        if opened is None:
            raise StoreError(errno.EBADF, "unknown-handle", f"the {self._kind} is not open")
        return opened

    def pop(self, handle: int) -> T | None:
        """Close a handle, and return its object; None if it was closed already."""
        return self._open.pop(handle, None)
