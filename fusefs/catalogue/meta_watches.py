"""Watches that report changes in the list of sessions and in their metas.

A watch on a meta reports once that it was written to, renamed, replaced or deleted, and nothing about
the files beside it. Nobody waits for these events; they are read at the next query. So in a store of any
size only what has changed is examined.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from inotify_simple import INotify, flags

from fusefs.inotify import new_inotify
from storage.errors import StoreError

_META: Final = int(
    flags.MODIFY
    | flags.ATTRIB
    | flags.MOVE_SELF
    | flags.DELETE_SELF
    | flags.DONT_FOLLOW
    | flags.ONESHOT
)
_ROOT: Final = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.ONLYDIR
_LIMIT: Final = Path("/proc/sys/fs/inotify/max_user_watches")
_LEAST_WATCHES: Final = 4096
_SHARE: Final = 0.75
"""Share of the user's watches that is used here; the rest is for open sessions and other programs."""


@dataclass(slots=True)
class Changed:
    """The changes since the last call."""

    names: set[str] = field(default_factory=set)
    """Names that were added to the store's directory, removed or replaced."""
    metas: set[str] = field(default_factory=set)
    """Sessions whose metas have changed; these are no longer watched."""
    lost: bool = False
    """Whether events were lost: anything may have changed, and nothing is watched any more."""


class MetaWatches:
    """Watches on the store's directory and on metas. For one thread at a time; no method waits."""

    def __init__(self, store_fd: int) -> None:
        self._store_fd = store_fd
        self._inotify: INotify | None = None
        """Made when it is first needed, and again after `close`."""
        self._slugs: dict[int, str] = {}
        self._root: int | None = None
        self._most = _share()

    @property
    def full(self) -> bool:
        """Whether no more metas can be watched."""
        return len(self._slugs) >= self._most

    def watch_root(self) -> bool:
        """Watch the list of sessions, before it is read; whether changes will be reported."""
        if self._root is None:
            self._root = self._add(f"/proc/self/fd/{self._store_fd}/.", _ROOT)
        return self._root is not None

    def watch(self, slug: str, session_fd: int) -> bool:
        """Watch a session's meta, before it is read; whether a change will be reported."""
        if self.full:
            return False
        watch = self._add(f"/proc/self/fd/{session_fd}/meta", _META)
        # Two sessions whose metas are one file share the watch, which counts for the first of them.
        return watch is not None and self._slugs.setdefault(watch, slug) == slug

    def changed(self) -> Changed:
        """The changes since the last call."""
        found = Changed()
        for event in [] if self._inotify is None else self._inotify.read(timeout=0):
            if event.mask & (flags.Q_OVERFLOW | flags.UNMOUNT):
                self.close()
                return Changed(lost=True)
            if event.wd == self._root:
                if event.mask & flags.IGNORED:
                    self.close()
                    return Changed(lost=True)
                found.names.add(event.name)
            elif (slug := self._slugs.pop(event.wd, None)) is not None:
                found.metas.add(slug)
        return found

    def close(self) -> None:
        """End all watches. Others may be added afterwards."""
        if self._inotify is not None:
            self._inotify.close()
        self._inotify, self._slugs, self._root = None, {}, None

    def _add(self, path: str, mask: int) -> int | None:
        try:
            if self._inotify is None:
                self._inotify = new_inotify()
            return int(self._inotify.add_watch(path, mask))
        except (OSError, StoreError):
            return None


def _share() -> int:
    try:
        return int(int(_LIMIT.read_text()) * _SHARE)
    except (OSError, ValueError):
        return _LEAST_WATCHES
