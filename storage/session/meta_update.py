"""Changing a meta that others rewrite at the same time, so that nothing of any side is lost (G9, G10).

The changed meta is written aside and exchanged with the one in place. Where that turns out to be another
than the one that had been changed, the change is made again, to what came out.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from storage import posix as files
from storage.errors import StoreError
from storage.formats.splice import spliced
from storage.session.meta import META_BYTES_MAX, NAME, Change, Meta, Seen, invalid, parsed, read
from storage.session.meta_lock import LOCK, PATIENCE_SECONDS, locked

ASIDE = f".meta.{os.uname().nodename.replace('/', '-')}.tmp"
"""Where an update is written aside: one name a host, so that whoever has the lock may clear it."""
NEXT = f"{ASIDE}.next"
TEMPORARIES = (LOCK, ASIDE, NEXT)


def update(
    session_fd: int, change: Change, *, sync: bool, patience_seconds: float = PATIENCE_SECONDS
) -> Meta:
    """Applies `change` to the meta as it is, and returns what the meta is now (G9, G10).

    `change` gets the meta and returns the new one, or None for nothing to do; it is called again on
    what an outside writer put there meanwhile, so that no side's change is lost. Mounts take turns, on
    several hosts too, by the lock of a hidden file that only those can open who may write the session.
    What did not change keeps its bytes, the file its mode and, where the process may, its owner. With
    `sync` it is on disk on return.

    Raises StoreError, also what `change` raises, with the meta left as it was: EINVAL for a broken
    one, EBUSY if somebody holds the lock for `patience_seconds` (0: it is tried once). Raises OSError.
    """
    with files.reopened(session_fd) as directory, locked(directory, patience_seconds):
        try:
            result = _changed(directory, change, sync)
        finally:
            _clear(directory)
        if sync:
            os.fsync(directory)
        return result


def clear_leftover(session_fd: int) -> None:
    """Removes what an update left aside when a crash ended it. Raises OSError."""
    with (
        suppress(StoreError),  # one may be at work
        files.reopened(session_fd) as directory,
        locked(directory, 0),
    ):
        _clear(directory)


def _clear(directory: int) -> None:
    for name in (ASIDE, NEXT):
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)


def _changed(directory: int, change: Change, sync: bool) -> Meta:
    """Puts the changed meta in place until what it replaces is what had been changed."""
    base = seen = read(directory)
    try:
        while True:
            before = parsed(base[0])
            after = change(before) or before
            data = _written(base[0], before, after)
            if base is seen and data == base[0]:
                return before
            mine = data, _write_aside(directory, data, base[1], sync)
            out, placed = _swap(directory, seen)
            if _same(out, seen):
                return after
            base, seen = out, mine if placed else out
    except BaseException:
        if base is not seen:
            _put_back(directory, seen)
        raise


def _written(raw: bytes, before: Meta, after: Meta) -> bytes:
    data = spliced(raw, before, after)
    if len(data) > META_BYTES_MAX:
        raise invalid(f"the meta would be longer than {META_BYTES_MAX} bytes")
    return data


def _write_aside(directory: int, data: bytes, like: os.stat_result, sync: bool) -> os.stat_result:
    owner, mode = (like.st_uid, like.st_gid), stat.S_IMODE(like.st_mode)
    try:
        status = files.write_new(NEXT, data, directory, mode, owner, sync)
    except FileExistsError:  # a crash has left it
        os.unlink(NEXT, dir_fd=directory)
        status = files.write_new(NEXT, data, directory, mode, owner, sync)
    os.rename(NEXT, ASIDE, src_dir_fd=directory, dst_dir_fd=directory)
    return status


def _swap(directory: int, seen: Seen) -> tuple[Seen, bool]:
    """Puts the file written aside in place: what was there, and whether it is in place now.

    What was there is aside then. A file system without an exchange cannot tell what a rename
    replaces; there the meta is looked at just before, and left if it is not what was `seen`. What
    the daemon writes between these two calls is lost.
    """
    try:
        files.exchange(ASIDE, NAME, directory)
    except OSError as error:
        if error.errno not in files.UNSUPPORTED:
            raise
    else:
        return read(directory, ASIDE), True
    found = read(directory)
    if not _same(found, seen):
        return found, False
    os.rename(ASIDE, NAME, src_dir_fd=directory, dst_dir_fd=directory)
    return found, True


def _put_back(directory: int, mine: Seen) -> None:
    """Puts back the outside change that is aside, or a later one that came out meanwhile."""
    theirs = read(directory, ASIDE)
    while not _same(out := _swap(directory, mine)[0], mine):
        mine, theirs = theirs, out


def _same(one: Seen, other: Seen) -> bool:
    return one[0] == other[0] and all(
        getattr(one[1], field) == getattr(other[1], field)
        for field in ("st_mode", "st_uid", "st_gid")
    )
