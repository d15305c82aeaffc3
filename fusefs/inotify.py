"""Watching directories of the store with inotify.

An event is queued before the system call that caused it returns, so reading the queue at the start of
an operation makes it exact without examining the store (G12). Events of unlinked files are left out
(`EXCL_UNLINK`), so the claim of a step shows as a single `CREATE`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import termios
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from inotify_simple import INotify, flags, parse_events

from storage.errors import StoreError

_MASK: Final = (
    flags.CREATE
    | flags.CLOSE_WRITE
    | flags.MODIFY
    | flags.MOVED_TO
    | flags.MOVED_FROM
    | flags.DELETE
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ATTRIB
    | flags.ONLYDIR
    | flags.EXCL_UNLINK
)
_CREATE, _DELETE = int(flags.CREATE), int(flags.DELETE)
_MOVED_FROM, _MOVED_TO = int(flags.MOVED_FROM), int(flags.MOVED_TO)
_Q_OVERFLOW = int(flags.Q_OVERFLOW)
_MOVES: Final = 64
_ATTRIB: Final = int(flags.ATTRIB)
_CONTENTS: Final = int(flags.MODIFY | flags.CLOSE_WRITE | flags.ATTRIB)
_GONE: Final = flags.DELETE_SELF | flags.MOVE_SELF | flags.IGNORED | flags.UNMOUNT


@dataclass(slots=True)  # not frozen, which would double the time to create one
class Change:
    """A change of a name in a watched directory."""

    watch: int
    name: str
    appeared: bool = False
    """A file of this name was created or moved here."""
    disappeared: bool = False
    moved_from: str | None = None
    """The name it was moved from, `""` if unknown; None if it was not moved here."""
    attributes: bool = False
    """Its owner, mode or times were set; those of the directory itself if the name is `""`."""
    unsure: bool = False
    """The event that tells where it was moved from may have been lost."""
    gone: bool = False
    """The directory itself was deleted, moved or unmounted: the watch has ended."""


class EventsLostError(Exception):
    """Events were lost: anything known of any watched directory may be out of date."""


def new_inotify() -> INotify:
    """A non-blocking inotify queue. Raises `StoreError` if the kernel gives no more of them."""
    try:
        return INotify(nonblocking=True)
    except OSError as error:
        sentence = "the kernel gives no inotify queue: raise fs.inotify.max_user_instances"
        raise StoreError(error.errno or errno.EMFILE, "no-inotify", sentence) from error


class Watcher:
    """An inotify queue. Loop-owned; no method waits."""

    def __init__(self) -> None:
        self._inotify = new_inotify()
        self._count = array("i", [0])
        self.exhausted = False
        """Whether the last attempt to watch failed because the user's watches are used up."""
        # Two descriptors of one directory, as while it is being renamed, share a watch.
        self._uses: Counter[int] = Counter()
        # The two events of a rename may arrive in different drains.
        self._moving: dict[int, str] = {}
        self._lost_moves = False
        """Events were just lost, possibly including the first half of a rename."""

    def fileno(self) -> int:
        """The descriptor that is readable when there are changes."""
        return int(self._inotify.fd)

    def add(self, directory_fd: int) -> int | None:
        """Watch the directory open as `directory_fd`; None if the kernel refuses."""
        try:
            watch = int(self._inotify.add_watch(f"/proc/self/fd/{directory_fd}", _MASK))
        except OSError as error:
            self.exhausted = error.errno == errno.ENOSPC
            return None
        self.exhausted = False
        self._uses[watch] += 1
        return watch

    @property
    def watches(self) -> int:
        """How many directories are watched."""
        return len(self._uses)

    def remove(self, watch: int) -> None:
        """Undo one `add` of that watch; the last one ends it."""
        self._uses[watch] -= 1
        if self._uses[watch] > 0:
            return
        del self._uses[watch]
        with contextlib.suppress(OSError):
            self._inotify.rm_watch(watch)

    def drain(self) -> list[Change]:
        """All changes queued so far, without waiting. Raises `EventsLostError` if some were lost."""
        data = b""
        # Only what is queued now: writers can be faster than this loop.
        queued = self._queued()
        while len(data) < queued:
            data += os.read(self._inotify.fd, queued - len(data))
        return list(self._changes(parse_events(data))) if data else []

    def _queued(self) -> int:
        fcntl.ioctl(self._inotify.fd, termios.FIONREAD, self._count)
        return self._count[0]

    def _changes(self, events: Iterable[tuple[int, int, int, str]]) -> Iterable[Change]:
        for watch, mask, cookie, name in events:
            if "." in name and mask & _CONTENTS:
                continue  # a writer's temporary: only its rename counts
            if mask & _Q_OVERFLOW:
                self._moving.clear()
                self._lost_moves = True
                raise EventsLostError
            if mask & _GONE:
                yield Change(watch, name, gone=True)
            elif mask & _MOVED_FROM:
                self._moving[cookie] = name
                yield Change(watch, name, disappeared=True)
            elif mask & _MOVED_TO:
                unsure = self._lost_moves and cookie not in self._moving
                source = self._moving.pop(cookie, "")
                yield Change(watch, name, appeared=True, moved_from=source, unsure=unsure)
            elif mask & _DELETE:
                yield Change(watch, name, disappeared=True)
            else:
                yield Change(
                    watch, name, appeared=bool(mask & _CREATE), attributes=bool(mask & _ATTRIB)
                )
        self._lost_moves = False
        while len(self._moving) > _MOVES:
            del self._moving[next(iter(self._moving))]

    def close(self) -> None:
        """End all watches."""
        self._inotify.close()
