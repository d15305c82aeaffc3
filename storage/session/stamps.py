"""Detects edited and replaced steps on stores without events (G12, G13).

A listing has the inode number of each name, and thus shows what came, went or was replaced. An edit in
place shows only in a stat, which costs a call for each step. So for callers that must be exact all shown
steps are checked, many in parallel. For the others, which come often, the last steps are, which a daemon
may still write to, and as many of the earlier ones, in turn, as some time allows.
"""

from __future__ import annotations

import errno
import os
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Final, NamedTuple

from storage.ahead import WINDOW, ahead
from storage.posix import status
from storage.session.steps import step_identity

LAST: Final = 16
"""Last steps checked with each listing that need not be exact."""
IN_TURN: Final = WINDOW - LAST
"""Earlier steps that are checked with it in any case: together with the last ones one window of
parallel calls."""


@dataclass(slots=True)
class Stamps:
    """What identifies the steps of one listing, by name. Not changed once it is complete."""

    listed: dict[str, int] = field(default_factory=dict)
    """The inode number in the listing."""
    seen: dict[str, int] = field(default_factory=dict)
    """A hash that identifies the contents, as of the last check."""
    identities: dict[str, int] = field(default_factory=dict)
    """The `step_identity` of those that were checked because they had come or were replaced."""
    turn: int = 0
    """As `InTurn.turn`."""
    extra_seconds: float = 0.0
    """As `InTurn.extra_seconds`."""

    def follow(self, before: Stamps) -> None:
        """They were made just after those of `before`, in one look at the directory."""
        self.extra_seconds += before.extra_seconds
        same = {n: i for n, i in before.identities.items() if self.seen.get(n) == before.seen[n]}
        self.identities = same | self.identities

    def changed(self, since: Stamps) -> set[str]:
        """The names that were added or removed, or whose contents have changed."""
        return {name for name, _ in self.seen.items() ^ since.seen.items()}


class InTurn:
    """The steps that a listing checks if it need not be exact: the last, then earlier ones in turn."""

    def __init__(self, numbers: Sequence[int], first: int, turn: int, seconds: float) -> None:
        """Of the steps from number `first` on, the earlier ones begin at `turn` and end after
        `seconds` at the latest, but not before `IN_TURN` of them."""
        self.turn = turn
        """The earlier steps checked next begin at this number."""
        self._numbers = numbers
        self._start = bisect_left(numbers, first)
        self._end = time.monotonic() + seconds
        self._over: float | None = None
        self._ended: float | None = None

    def __iter__(self) -> Iterator[int]:
        """May be used once."""
        numbers, start = self._numbers, self._start
        last = max(start, len(numbers) - LAST)
        yield from numbers[last:]
        turn = bisect_left(numbers, self.turn, start, last)
        for count, at in enumerate(chain(range(turn, last), range(start, turn))):
            if count >= IN_TURN and self._is_over():
                break
            self.turn = numbers[at] + 1
            yield numbers[at]
        self._ended = time.monotonic()

    @property
    def extra_seconds(self) -> float:
        """How long checking more than `IN_TURN` of the earlier steps has taken."""
        return 0.0 if self._over is None or self._ended is None else self._ended - self._over

    def _is_over(self) -> bool:
        now = time.monotonic()
        self._over = self._over or now
        return now >= self._end


def look(
    session_fd: int, listed: dict[str, int], names: Iterable[str], known: Stamps | None
) -> Stamps:
    """Check the steps `listed` that were added or replaced since `known`, and those in `names`.

    On file systems whose listings have other inode numbers than stat, listings do not show what was
    replaced, so all steps are checked. `names` are taken one by one as calls return. Raises `OSError`.
    """
    if known is None:
        return Stamps(listed, {name: stamp.seen for name, stamp in _looked(session_fd, listed)})
    different = {name for name, _ in listed.items() - known.listed.items()}
    others = (name for name in names if name not in different)
    found = dict(_looked(session_fd, chain(different, others)))
    if any(stamp.inode not in (0, listed[name]) for name, stamp in found.items()):
        found = dict(_looked(session_fd, listed))
    seen = {name: found[name].seen if name in found else known.seen[name] for name in listed}
    return Stamps(listed, seen, {name: found[name].identity for name in different})


class Stamp(NamedTuple):
    """What one step is known by; zeros if it is gone."""

    inode: int = 0
    seen: int = 0
    """A hash of this, its size and its times."""
    identity: int = 0
    """Its `step_identity`."""


def _looked(session_fd: int, names: Iterable[str]) -> Iterable[tuple[str, Stamp]]:
    return ((name, found.get()) for name, found in ahead(partial(_stamp, session_fd), names))


def _stamp(session_fd: int, name: str) -> Stamp:
    """Raises `OSError`, ESTALE only if the session itself is deleted."""
    try:
        found = status(name, session_fd)
    except FileNotFoundError:
        return Stamp()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        os.fstat(session_fd)  # another host renames over the step: that says nothing of the session
        raise OSError(errno.EIO, os.strerror(errno.EIO), name) from error
    seen = (found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size)
    return Stamp(found.st_ino, hash(seen), step_identity(found))
