"""Counts the kernel's requests, and tracks those under way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

SHOWN_OPERATIONS: Final = 20


class Operation:
    """A context in which one operation is under way."""

    __slots__ = ("_operations", "began", "name")

    def __init__(self, operations: Operations, name: str) -> None:
        self._operations = operations
        self.name = name
        self.began = time.monotonic()

    def __enter__(self) -> None:
        self._operations.underway[self] = None

    def __exit__(self, *_error: object) -> None:
        del self._operations.underway[self]
        self._operations.done[self.name] += 1


class Operations:
    """Counts operations, and tracks those under way. Loop-owned."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.underway: dict[Operation, None] = {}

    def begin(self, name: str) -> Operation:
        """A context for one operation, which is counted when it ends."""
        return Operation(self, name)

    def oldest(self) -> Iterator[tuple[str, float]]:
        """Names and ages in seconds of the oldest operations under way, oldest first."""
        now = time.monotonic()
        for operation in list(self.underway)[:SHOWN_OPERATIONS]:
            yield operation.name, now - operation.began
