"""The content of `status.json`: the state of the mount in numbers."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol

from fusefs.config import MountOptions
from fusefs.failures import Failures
from fusefs.operations import Operations
from fusefs.session.pool import Pool
from fusefs.version import version
from fusefs.views.text_cache import TextCache
from fusefs.work import Work
from storage.capabilities import Capabilities
from storage.errors import printable


class Watching(Protocol):
    """How the store is watched for changes."""

    @property
    def works(self) -> bool:
        """Whether inotify is relied on."""

    @property
    def watches(self) -> int:
        """The number of watched directories."""

    @property
    def hinting(self) -> Mapping[str, Any] | None:
        """The state of hints between hosts, if there are any."""


class Directory(Protocol):
    """Knows whether the store's directory was removed or renamed."""

    @property
    def removed(self) -> bool:
        """Whether it was removed and not replaced."""

    replacements: int
    """How often the mount went on with a new one."""
    moved: bool
    """Whether it is no longer at the path that was mounted."""


@dataclass(slots=True)
class Status:
    """The parts of a mount on which to report."""

    store_path: str
    options: MountOptions
    cache: TextCache
    pool: Pool
    watching: Watching
    failures: Failures
    operations: Operations
    capabilities: Capabilities
    work: Work
    directory: Directory
    inodes: Sized
    open_files: Sized
    began: float = field(default_factory=time.time)

    def document(self) -> Mapping[str, Any]:
        """The whole document, as of now."""
        return {
            "version": version(),
            "pid": os.getpid(),
            "store": printable(self.store_path),
            "store_removed": self.directory.removed,
            "store_replaced": self.directory.replacements,
            "store_moved": self.directory.moved,
            "uptime_seconds": round(time.time() - self.began, 1),
            "options": {
                "sync": self.options.sync.value,
                "line_limit_bytes": self.options.line_limit,
                "pending_limit_bytes": self.options.pending,
                "deadline_seconds": self.options.deadline,
                "read_only": self.options.read_only,
            },
            "cache": {
                "text_bytes": self.cache.bytes,
                "limit_bytes": self.cache.limit,
                "hits": self.cache.hits,
                "misses": self.cache.misses,
            },
            "sessions": {"live": len(self.pool), "watches": self.watching.watches},
            "file_system": self.capabilities.document(),
            "store_silent_seconds": round(self.work.silent_seconds, 1),
            "inotify": "works" if self.watching.works else "not relied on",
            "notify": self.watching.hinting,
            "inodes": len(self.inodes),
            "open_files": len(self.open_files),
            "failures": self.failures.count,
            "operations": dict(sorted(self.operations.done.items())),
            "in_flight": [
                {"operation": name, "seconds": round(age, 3)}
                for name, age in self.operations.oldest()
            ],
        }
