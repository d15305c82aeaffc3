"""What `status.json` says: how the mount is, in numbers."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fusefs.version import version

if TYPE_CHECKING:
    from fusefs.tree import Tree


@dataclass(slots=True)
class Operation:
    """An operation that is under way."""

    name: str
    began: float


class Report:
    """Counts operations, and gathers what there is to tell. Loop-owned."""

    def __init__(self) -> None:
        self.began = time.time()
        self.done: Counter[str] = Counter()
        self.underway: dict[int, Operation] = {}
        self._next = 0

    @contextmanager
    def operation(self, name: str) -> Iterator[None]:
        """Count one operation, and know it while it is under way."""
        self._next += 1
        mine = self._next
        self.underway[mine] = Operation(name, time.monotonic())
        try:
            yield
        finally:
            del self.underway[mine]
            self.done[name] += 1

    def make(self, tree: Tree) -> Mapping[str, Any]:
        """The whole report, as of now."""
        now = time.monotonic()
        watcher = tree.watcher
        return {
            "version": version(),
            "pid": os.getpid(),
            "store": tree.store.path,
            "uptime_seconds": round(time.time() - self.began, 1),
            "options": {
                "sync": tree.options.sync.value,
                "cache": tree.options.cache,
                "line_limit": tree.options.line_limit,
                "read_only": tree.options.read_only,
            },
            "cache": {
                "bytes": tree.cache.bytes,
                "limit": tree.cache.limit,
                "hits": tree.cache.hits,
                "misses": tree.cache.misses,
            },
            "sessions": {"live": len(tree.live), "watches": watcher.watches},
            "inotify": "works" if tree.local and not watcher.exhausted else "not relied on",
            "inodes": len(tree.nodes),
            "open_files": len(tree.handles),
            "failures": tree.failures.count,
            "operations": dict(sorted(self.done.items())),
            "in_flight": [
                {"operation": o.name, "seconds": round(now - o.began, 3)}
                for o in list(self.underway.values())[:20]
            ],
        }
