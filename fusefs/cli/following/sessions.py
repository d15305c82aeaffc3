"""Follows one session, or all sessions of a mount including new ones.

The sessions that changed last are open, and wake poll(2) within milliseconds (G14). All others are
asleep: the mtimes of their directories are polled to see whether they have changed.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final

from fusefs.cli.following.output import Output
from fusefs.cli.following.session import GONE, Followed

OPEN_MOST: Final = 64
"""Limit of sessions open at a time, each with two descriptors."""
LOOK_SECONDS: Final = 1.0
"""Interval of polling without events."""
FRESH_NS: Final = 2_000_000_000
"""A directory changed less than this ago may have changed again with the same timestamp."""
DELETED: Final = "the session was deleted"
_AGAIN_SECONDS: Final = 0.01


class Sessions:
    """The sessions of the mount whose root is the descriptor `root`; if `only` is given, that one.

    Methods raise `OSError` when the mount has ended.
    """

    def __init__(self, root: int, only: str | None, output: Output) -> None:
        self._root = root
        self._only = only
        self._output = output
        self._followed: dict[str, Followed] = {}
        self._changed: dict[str, int] = {}
        """When each session had last changed when it was examined (mtime in nanoseconds)."""
        self._open: OrderedDict[str, Followed] = OrderedDict()
        """Open sessions, least recently changed first."""
        self._closed: set[str] = set()
        """Sessions that this user may not read."""
        self._look_at = 0.0

    def begin(self, *, from_start: bool) -> None:
        """Begin with the present sessions; print their histories if `from_start`."""
        self._changed = {slug: self._time(slug) for slug in self._names()}
        for slug in sorted(self._changed, key=lambda slug: (self._changed[slug], slug)):
            followed = Followed(self._root, slug, self._output)
            self._begin(followed, followed.print_history if from_start else followed.take_in)
        self._output.flush()

    def wait(self) -> list[Followed] | None:
        """Wait for possible news; the sessions that reported it, None if the reader has gone."""
        poll = select.poll()
        open_by_fd = {open_.fd: open_ for open_ in self._open.values() if open_.fd is not None}
        for fd in open_by_fd:
            poll.register(fd, select.POLLPRI)
        output = self._output.fileno()
        poll.register(output, 0)
        left = max(0.0, self._look_at - time.monotonic())
        ready = dict(poll.poll(left * 1000 + 1))
        if output in ready:
            return None
        return [open_by_fd[fd] for fd in ready]

    def step(self, told: list[Followed]) -> bool:
        """Print new entries; False if the only session was deleted."""
        for followed in told:
            self._do(followed, partial(followed.step, told=True))
        if time.monotonic() >= self._look_at:
            self._look()
            self._look_at = time.monotonic() + LOOK_SECONDS
        self._output.flush()
        return self._only is None or bool(self._followed)

    def close(self) -> None:
        """Close all open sessions."""
        for followed in self._open.values():
            followed.sleep()

    def _look(self) -> None:
        """Poll for sessions that were created, deleted or changed without an event."""
        names = self._names()
        for slug in set(self._followed).difference(names):
            self._end(self._followed[slug], DELETED)
        for slug in sorted(names.difference(self._followed, self._closed)):
            self._comes(slug)
        for slug, followed in list(self._followed.items()):
            before, changed = self._changed[slug], self._time(slug)
            if self._only or changed != before or changed > time.time_ns() - FRESH_NS:
                self._changed[slug] = changed
                self._do(followed, followed.step)

    def _comes(self, slug: str) -> None:
        followed = Followed(self._root, slug, self._output)
        self._changed[slug] = 0
        self._output.notice(slug, "a new session")
        self._begin(followed, followed.print_all)

    def _begin(self, followed: Followed, begin: Callable[[], None]) -> None:
        self._followed[followed.slug] = followed
        self._do(followed, begin)

    def _do(self, followed: Followed, what: Callable[[], None]) -> None:
        """Run a call on a session that may have been deleted, or be unreadable for this user."""
        try:
            what()
        except OSError as error:
            self._pass_over(followed, error)
        if followed.slug in self._followed:
            self._is_awake(followed)

    def _is_awake(self, followed: Followed) -> None:
        self._open[followed.slug] = followed
        self._open.move_to_end(followed.slug)
        if len(self._open) > OPEN_MOST:
            _, longest = self._open.popitem(last=False)
            longest.sleep()

    def _pass_over(self, followed: Followed, error: OSError) -> None:
        """A name was not found: the session is gone, or its history is being replaced."""
        if error.errno == errno.EACCES and self._only is None:
            self._closed.add(followed.slug)
            self._end(followed, "you may not read this session")
            return
        if error.errno not in GONE:
            raise error
        if followed.is_there():
            time.sleep(_AGAIN_SECONDS)
        else:
            self._end(followed, DELETED)

    def _end(self, followed: Followed, why: str) -> None:
        self._output.notice(followed.slug, why)
        followed.sleep()
        for known in (self._followed, self._changed, self._open):
            known.pop(followed.slug, None)

    def _names(self) -> set[str]:
        if self._only is not None:
            return {self._only} & (set(self._followed) or {self._only})
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
        try:
            return {name for name in os.listdir(fd) if not name.startswith(".")}
        finally:
            os.close(fd)

    def _time(self, slug: str) -> int:
        """When a session last changed, in nanoseconds; 0 if it is gone."""
        try:
            return os.stat(slug, dir_fd=self._root).st_mtime_ns
        except OSError as error:
            if error.errno not in GONE:
                raise
            return 0
