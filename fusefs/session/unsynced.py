"""The steps of a session that may not be on disk yet (G17)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

from storage.session.claims import Claim

KEPT_STEPS: Final = 16
"""Up to this many new steps are kept open and synced one by one; more are synced by one syncfs(2)."""


@dataclass(slots=True)
class Unsynced:
    """What has to be synced: a few new steps, or the whole file system."""

    fds: list[int] = field(default_factory=list)
    """Open descriptors of new steps."""
    whole: bool = False
    """Whether the whole file system has to be synced."""

    def __bool__(self) -> bool:
        return bool(self.fds) or self.whole

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
        self.fds, self.whole = [], False
