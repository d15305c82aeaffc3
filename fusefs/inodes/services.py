"""The services that all inodes of a mount share."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from fusefs.failures import Failures
from fusefs.handles.control import Stores
from fusefs.handles.stale_opens import StaleOpens
from fusefs.inodes.attributes import Rules
from fusefs.inodes.recent_past import RecentPast
from fusefs.inodes.table import Table
from fusefs.kernel import Kernel
from fusefs.session.events import Events
from fusefs.session.means import Means
from fusefs.session.pool import Pool
from fusefs.work import Work
from storage.store import Store


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a mount that its inodes use."""

    store: Store
    work: Work
    table: Table
    pool: Pool
    means: Means
    stores: Stores
    events: Events
    rules: Rules
    kernel: Kernel
    failures: Failures
    root_at_mount: os.stat_result
    recent_past: RecentPast
    stale_opens: StaleOpens = field(default_factory=StaleOpens)
    began_ns: int = field(default_factory=time.time_ns)
    """When the mount began: the mtime of the mount's own files."""

    def known_root(self) -> os.stat_result:
        """The last known status of the store's directory, without waiting."""
        return os.fstat(self.store.fd) if self.work.near else self.root_at_mount

    async def root_status(self) -> os.stat_result:
        """The status of the store's directory; if a far store does not answer, as it was at mount.

        Raises `StoreError`.
        """
        with self.work.patience():
            return await self.work.small(None, os.fstat, self.store.fd)
        return self.root_at_mount
