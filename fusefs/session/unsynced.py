"""The steps of a session that may not be on disk yet (G17)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

from storage.ahead import Outcome
from storage.session.claims import Claim

KEPT_STEPS: Final = 16
"""Up to this many new steps are kept open and synced one by one; more are synced by one syncfs(2)."""


@dataclass(slots=True)
class Unsynced:
    """What has to be synced: a few new steps, their names, or the whole file system."""

    fds: list[int] = field(default_factory=list)
    """Open descriptors of new steps."""
    names: list[Outcome[None]] = field(default_factory=list)
    """Syncs of names on a far store, which run by themselves: they may have ended, or failed."""
    whole: bool = False
    """Whether the whole file system has to be synced; on a far store, only all names."""

    def __bool__(self) -> bool:
        return bool(self.fds) or self.whole or any(not names.succeeded for names in self.names)

    def add_names(self, names: Outcome[None]) -> None:
        """Add a sync of names that runs by itself."""
        self.names = [earlier for earlier in self.names if not earlier.succeeded]
        self.names.append(names)

    def add(self, claim: Claim) -> None:
        """Add a step, and keep it open if there are few."""
        if claim.fd is None:
            self.whole = True
        elif len(self.fds) < KEPT_STEPS:
            self.fds.append(claim.fd)
        else:
            os.close(claim.fd)
            self.whole = True

    def let_go(self) -> None:
        """Close all kept descriptors; one syncfs(2) will do instead."""
        self.whole = bool(self)
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def close(self) -> None:
        """Forget all steps, and close their descriptors."""
        for fd in self.fds:
            os.close(fd)
        self.fds, self.names, self.whole = [], [], False
