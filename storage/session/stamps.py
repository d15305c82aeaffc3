"""What tells a step from one that was edited or replaced, where no events tell of changes (G12, G13).

A listing tells the inode number of each name, and so what came, went or was replaced. That a file was
edited only a look at it tells, which costs a call for each step. So who must be exact has all looked at
that are shown, many at a time; for the others, who come often, the last ones are, which a daemon may
still write to, and a few of the earlier ones in turn.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from storage.ahead import WINDOW, ahead

LAST: Final = 16
"""Last steps looked at with each listing that need not be exact."""
IN_TURN: Final = WINDOW - LAST
"""Earlier steps looked at with it, in turn: with the last ones a window of parallel calls."""


@dataclass(slots=True)
class Stamps:
    """What is known of the steps of one listing, by name. Never changes once it is made."""

    listed: dict[str, int] = field(default_factory=dict)
    """The inode number that the listing told."""
    seen: dict[str, int] = field(default_factory=dict)
    """What identifies the contents, as of the last look."""
    turn: int = 0
    """Of those that are looked at in turn the next is the first of this number or a greater one."""

    def changed(self, since: Stamps) -> set[str]:
        """The names that came, went, or have other contents."""
        return {name for name, _ in self.seen.items() ^ since.seen.items()}


def look(
    session_fd: int, listed: dict[str, int], names: Collection[str], known: Stamps | None
) -> Stamps:
    """Look at what was `listed`: at what came or was replaced since `known`, and at these `names`.

    Where a listing tells other inode numbers than a look does it tells nothing of what was replaced, so
    all are looked at. Raises `OSError`.
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
    """The inode number of a step, and what identifies its contents; zeros where it is gone."""
    try:
        found = os.stat(name, dir_fd=session_fd, follow_symlinks=False)
    except FileNotFoundError:
        return 0, 0
    identity = (found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size)
    return found.st_ino, hash(identity)
