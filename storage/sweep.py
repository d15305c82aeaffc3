"""Clearing what crashes have left of sessions that were being made, changed or deleted (G11)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from storage import posix as files
from storage.creation import lock
from storage.deletion import hidden_name, remove
from storage.errors import doing
from storage.session import meta_update
from storage.store import Store

ABANDONED_SECONDS: Final = 600.0
"""A new session that nobody has added to for so long was abandoned, on any host."""
_LEFT_OVER: Final = re.compile(r"\.(new|del|probe)\.[0-9a-f]{16}", re.ASCII)
_AT_ONCE: Final = 500


def sweep(store: Store, pause: Callable[[], None] = lambda: None) -> int:
    """Clears what crashes have left of new and deleted sessions and of metas written aside.

    Returns how many sessions were cleared. It may run beside everything else, other processes
    too; it looks once at each session, and calls `pause` after so many that nobody has to wait
    for. What cannot be removed is logged and left.
    """
    cleared = 0
    with doing("list the store"):
        left_over = [name for name in files.listing(store.fd) if _LEFT_OVER.fullmatch(name)]
    for name in left_over:
        with suppress(OSError):
            hidden = name if name.startswith(".del.") else _abandoned(store, name)
            if hidden:
                remove(store, hidden)
                cleared += 1
    for at, slug in enumerate(store.directories()):
        if at % _AT_ONCE == 0:
            pause()
        with suppress(OSError):
            _clear_meta(store, slug)
    return cleared


def _abandoned(store: Store, hidden: str) -> str | None:
    """The name for removal of a new session that nobody is making any more; None if one is."""
    directory = files.open_directory(hidden, store.fd)
    try:
        if not lock(directory) or _may_be_in_use(store, directory):
            return None
        removed = hidden_name()
        os.rename(hidden, removed, src_dir_fd=store.fd, dst_dir_fd=store.fd)
        return removed
    finally:
        os.close(directory)


def _may_be_in_use(store: Store, directory: int) -> bool:
    """Whether another host, which no lock of a directory tells of, may be at work in it."""
    return not store.near and time.time() - os.fstat(directory).st_mtime < ABANDONED_SECONDS


def _clear_meta(store: Store, slug: str) -> None:
    if not any(files.is_regular(f"{slug}/{name}", store.fd) for name in meta_update.TEMPORARIES):
        return
    directory = files.open_directory(slug, store.fd)
    try:
        meta_update.clear_leftover(directory)
    finally:
        os.close(directory)
