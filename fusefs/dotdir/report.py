"""What `status.json` says: how the mount is, in numbers."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fusefs.version import version

if TYPE_CHECKING:
    from fusefs.filesystem import Tree


class Operation:
    """An operation, under way while its context lasts."""

    __slots__ = ("_report", "began", "name")

    def __init__(self, report: Report, name: str) -> None:
        self._report = report
        self.name = name
        self.began = time.monotonic()

    def __enter__(self) -> None:
        self._report.underway[self] = None

    def __exit__(self, *_error: object) -> None:
        del self._report.underway[self]
        self._report.done[self.name] += 1


class Report:
    """Counts operations, and gathers what there is to tell. Loop-owned."""

    def __init__(self) -> None:
        self.began = time.time()
        self.done: Counter[str] = Counter()
        self.underway: dict[Operation, None] = {}

    def operation(self, name: str) -> Operation:
        """A context that counts one operation, and knows it while it is under way."""
        return Operation(self, name)

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
                "line_limit_bytes": tree.options.line_limit,
                "read_only": tree.options.read_only,
            },
            "cache": {
                "text_bytes": tree.cache.bytes,
                "limit_bytes": tree.cache.limit,
                "hits": tree.cache.hits,
                "misses": tree.cache.misses,
            },
            "sessions": {"live": len(tree.live), "watches": watcher.watches},
            "file_system": tree.capabilities.document(),
            "inotify": "works" if tree.local and not watcher.exhausted else "not relied on",
            "inodes": len(tree.nodes),
            "open_files": len(tree.handles),
            "failures": tree.failures.count,
            "operations": dict(sorted(self.done.items())),
            "in_flight": [
                {"operation": o.name, "seconds": round(now - o.began, 3)}
                for o in list(self.underway)[:20]
            ],
        }
