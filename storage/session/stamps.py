"""What tells a step from one that was edited or replaced, where no events tell of changes (G12, G13).

A listing tells the inode number of each name, and so what came, went or was replaced. That a file was
edited only a look at it tells, which costs a call for each step, and clients of shared file systems
answer it from memory for a second or longer. So with each listing the last steps are looked at, which a
daemon may still write to, and the others of a long session from time to time.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from storage.ahead import WINDOW, ahead

LOOKED_AT: Final = WINDOW
"""Last steps looked at with each listing that must be exact: one window of parallel calls."""
LOOKED_AT_OFTEN: Final = 16
"""Last steps looked at with every other listing; these are frequent."""
BESIDE: Final = 16
"""Parallel looks in the background, few enough to leave room for calls that somebody waits for."""


@dataclass(slots=True)
class Stamps:
    """What is known of the steps of one listing, by name. Never changes once it is made."""

    listed: dict[str, int] = field(default_factory=dict)
    """The inode number that the listing told."""
    seen: dict[str, int] = field(default_factory=dict)
    """What identifies the contents, as of the last look."""
    all_seen: bool = True
    """Whether each was looked at since it was listed."""

    def changed(self, since: Stamps) -> set[str]:
        """The names that came, went, or have other contents."""
        return {name for name, _ in self.seen.items() ^ since.seen.items()}


def look(
    session_fd: int, listed: dict[str, int], last: Collection[str], known: Stamps | None
) -> Stamps:
    """Look at what was `listed`: at what came or was replaced since `known`, and at the `last` steps.

    Where a listing tells other inode numbers than a look does it tells nothing of what was replaced, so
    all are looked at. Raises `OSError`.
    """
    if known is None:
        return Stamps(listed, {name: seen for name, (_, seen) in _looked(session_fd, listed)})
    names = {name for name, _ in listed.items() - known.listed.items()}
    names.update(last)
    found = dict(_looked(session_fd, names))
    if any(inode not in (0, listed[name]) for name, (inode, _) in found.items()):
        return look(session_fd, listed, last, None)
    seen = {name: found[name][1] if name in found else known.seen[name] for name in listed}
    return Stamps(listed, seen, all_seen=len(found) == len(listed))


def differing(session_fd: int, seen: Mapping[str, int]) -> set[str]:
    """Which of these steps are not as they were seen. Raises `OSError`."""
    found = _looked(session_fd, seen, BESIDE)
    return {name for name, (_, now) in found if now != seen[name]}


def _looked(
    session_fd: int, names: Iterable[str], at_once: int = WINDOW
) -> Iterable[tuple[str, tuple[int, int]]]:
    outcomes = ahead(partial(_stamp, session_fd), names, at_once)
    return ((name, outcome.get()) for name, outcome in outcomes)


def _stamp(session_fd: int, name: str) -> tuple[int, int]:
    """The inode number of a step, and what identifies its contents; zeros where it is gone."""
    try:
        found = os.stat(name, dir_fd=session_fd, follow_symlinks=False)
    except FileNotFoundError:
        return 0, 0
    identity = (found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size)
    return found.st_ino, hash(identity)
