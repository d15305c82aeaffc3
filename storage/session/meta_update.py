"""Updates a meta that other programs rewrite concurrently, without losing anybody's change (G9, G10).

The changed meta is written to a temporary file and exchanged with the one in place. If the file that
comes out is not the one that was read, the change is applied again, to what came out.
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
"""Temporary name of an update: one per host, so that whoever holds the lock may remove it."""
NEXT = f"{ASIDE}.next"
TEMPORARIES = (LOCK, ASIDE, NEXT)


def update(
    session_fd: int, change: Change, *, sync: bool, patience_seconds: float = PATIENCE_SECONDS
) -> Meta:
    """Apply `change` to the current meta, and return the result (G9, G10).

    `change` gets the meta and returns the new one, or None if there is nothing to do; it is called
    again on what an outside writer has stored in the meantime, so that neither change is lost. Mounts
    take turns, also on different hosts, under the lock of `meta_lock`. Unchanged values keep their
    bytes, the file keeps its mode and, if the process may set it, its owner. With `sync` the result is
    on disk on return.

    Raises `OSError` and `StoreError`, and whatever `change` raises, with the meta left as it was:
    EINVAL for a broken meta, EBUSY if the lock is not free within `patience_seconds` (0: one attempt).
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
    """Remove the temporaries of an update that a crash interrupted. Raises `OSError`."""
    with (
        suppress(StoreError),  # an update may be in progress
        files.reopened(session_fd) as directory,
        locked(directory, 0),
    ):
        _clear(directory)


def _clear(directory: int) -> None:
    for name in (ASIDE, NEXT):
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)


def _changed(directory: int, change: Change, sync: bool) -> Meta:
    """Apply `change` and swap the result in, again until it replaces the very meta that was changed."""
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
    """Exchange the temporary with the meta: what was in place, and whether the temporary is now.

    What was in place is then under the temporary's name. A file system without RENAME_EXCHANGE cannot
    say what a rename replaces; there the meta is read just before, and left alone if it is not what
    was `seen`. A write of the daemon between these two calls is lost.
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
    """Restore the outside change that was swapped out, or a later one that came out meanwhile."""
    theirs = read(directory, ASIDE)
    while not _same(out := _swap(directory, mine)[0], mine):
        mine, theirs = theirs, out


def _same(one: Seen, other: Seen) -> bool:
    return one[0] == other[0] and all(
        getattr(one[1], field) == getattr(other[1], field)
        for field in ("st_mode", "st_uid", "st_gid")
    )
