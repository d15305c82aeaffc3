"""Which metas changed since they were looked at: a watch of its own on each.

A watch on the file itself tells once of anything that happens to it, whatever else is written beside
it: it is written to, renamed, replaced or deleted. Nobody waits for these events; they are looked
through when somebody asks. So a store of any size is asked what changed, not looked through.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from inotify_simple import flags

from fusefs.inotify import new_inotify

ROOT: Final = ""
"""Stands for the list of sessions among the slugs."""
_META: Final = flags.MODIFY | flags.ATTRIB | flags.MOVE_SELF | flags.DELETE_SELF
_LIST: Final = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO
_ONCE: Final = flags.DONT_FOLLOW | flags.ONESHOT
_LIMIT: Final = Path("/proc/sys/fs/inotify/max_user_watches")
_LEAST: Final = 4096


class MetaWatches:
    """Watches on the metas of sessions. For one thread at a time; nothing in it waits."""

    def __init__(self) -> None:
        self._inotify = new_inotify()
        self._slugs: dict[int, str] = {}
        self._most = _share()

    def add(self, session_fd: int, slug: str) -> bool:
        """Watch the meta of a session, to be read after; whether a change will be told."""
        return self._add(f"/proc/self/fd/{session_fd}/meta", _META, slug)

    def add_root(self, store_fd: int) -> bool:
        """Watch the list of sessions, to be read after; whether a change will be told, as `ROOT`."""
        return self._add(f"/proc/self/fd/{store_fd}/.", _LIST, ROOT)

    def _add(self, path: str, mask: int, slug: str) -> bool:
        if len(self._slugs) >= self._most:
            return False
        try:
            watch = self._inotify.add_watch(path, mask | _ONCE)
        except OSError:
            return False
        # Two sessions that share one file share the watch: the first of them has it.
        return self._slugs.setdefault(watch, slug) == slug

    def changed(self) -> set[str] | None:
        """The sessions whose metas changed since they were added, which are watched no longer.

        None where events were lost: then it is all of them.
        """
        changed = set()
        for event in self._inotify.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                self._start_again()
                return None
            slug = self._slugs.pop(event.wd, None)
            if slug is not None:
                changed.add(slug)
        return changed

    def close(self) -> None:
        """End all watches."""
        self._inotify.close()

    def _start_again(self) -> None:
        self._inotify.close()
        self._inotify, self._slugs = new_inotify(), {}


def _share() -> int:
    """How many watches to take: half of what the user may have, so that others find some."""
    try:
        return int(_LIMIT.read_text()) // 2
    except (OSError, ValueError):
        return _LEAST
