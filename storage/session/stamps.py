"""Detects edited and replaced steps on stores without events (G12, G13).

A listing has the inode number of each name, and thus shows what came, went or was replaced. An edit in
place shows only in a stat, which costs a call for each step. So for callers that must be exact all shown
steps are checked, many in parallel. For the others, which come often, only the last steps are, which a
daemon may still write to, and a few of the earlier ones in turn.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from storage.ahead import WINDOW, ahead

LAST: Final = 16
"""Last steps checked with each listing that need not be exact."""
IN_TURN: Final = WINDOW - LAST
"""Earlier steps checked with it, in turn: together with the last ones one window of parallel calls."""


@dataclass(slots=True)
class Stamps:
    """What identifies the steps of one listing, by name. Not changed once it is complete."""

    listed: dict[str, int] = field(default_factory=dict)
    """The inode number in the listing."""
    seen: dict[str, int] = field(default_factory=dict)
    """A hash that identifies the contents, as of the last check."""
    turn: int = 0
    """The earlier steps checked next in turn begin at this number."""

    def changed(self, since: Stamps) -> set[str]:
        """The names that were added or removed, or whose contents have changed."""
        return {name for name, _ in self.seen.items() ^ since.seen.items()}


def look(
    session_fd: int, listed: dict[str, int], names: Collection[str], known: Stamps | None
) -> Stamps:
    """Check the steps `listed` that were added or replaced since `known`, and those in `names`.

    On file systems whose listings have other inode numbers than stat, listings do not show what was
    replaced, so all steps are checked. Raises `OSError`.
    """
    if known is None:
        return Stamps(listed, {name: seen for name, (_, seen) in _looked(session_fd, listed)})
    found = dict(
        _looked(session_fd, {*names, *(name for name, _ in listed.items() - known.listed.items())})
    )
    if any(inode not in (0, listed[name]) for name, (inode, _) in found.items()):
        return look(session_fd, listed, names, None)
    seen = {name: found[name][1] if name in found else known.seen[name] for name in listed}
    return Stamps(listed, seen)


def _looked(session_fd: int, names: Iterable[str]) -> Iterable[tuple[str, tuple[int, int]]]:
    return ((name, found.get()) for name, found in ahead(partial(_stamp, session_fd), names))


def _stamp(session_fd: int, name: str) -> tuple[int, int]:
    """The inode number of a step, and a hash that identifies its contents; zeros if it is gone."""
    try:
        found = os.stat(name, dir_fd=session_fd, follow_symlinks=False)
    except FileNotFoundError:
        return 0, 0
    identity = (found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size)
    return found.st_ino, hash(identity)
