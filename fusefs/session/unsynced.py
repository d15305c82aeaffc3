"""The steps of a session that are not known to be on disk (G17)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

from storage.session.claims import Claim

KEPT_STEPS: Final = 16
"""New steps kept open to be synced one by one; more are synced by one syncfs(2)."""


@dataclass(slots=True)
class Unsynced:
    """Open descriptors of new steps, or that there were more than are worth keeping open."""

    fds: list[int] = field(default_factory=list)
    names: bool = False
    """The contents are on disk, and the directory has to be synced."""
    whole: bool = False
    """Everything on the file system has to be synced."""

    def __bool__(self) -> bool:
        return bool(self.fds) or self.names or self.whole

    def add(self, claim: Claim) -> None:
        """One more step, kept open where there are few."""
        if claim.fd is None:
            self.whole = True
        elif len(self.fds) < KEPT_STEPS:
            self.fds.append(claim.fd)
        else:
            os.close(claim.fd)
            self.whole = True

    def let_go(self) -> None:
        """Close all kept descriptors; one syncfs(2) does instead."""
        self.whole = bool(self)
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def close(self) -> None:
        """Forget about them."""
        for fd in self.fds:
            os.close(fd)
        self.fds, self.names, self.whole = [], False, False
