"""Repairs a store without losing anything: faulty files are moved aside, never deleted.

They go to `.stepfs-lost/<slug>/` in the store, by a rename that never replaces a file.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any, Final

from storage import posix as files
from storage.check.complete import create_complete
from storage.errors import StoreError, printable
from storage.formats.jsontext import NotJSON, parse
from storage.formats.slug import named_after
from storage.formats.splice import encoded
from storage.session import meta

LOST: Final = ".stepfs-lost"


class Lost:
    """The directory for what is moved aside, created on first use. Only its owner may enter it."""

    def __init__(self, store_fd: int) -> None:
        self._store = store_fd

    def take(self, directory: int, name: str, session: str) -> str:
        """Move `name` from `directory` to the lost files of `session`; returns its new path.

        The move is on disk on return (G17). Raises `OSError`, with nothing moved.
        """
        root = _made(LOST, self._store)
        try:
            shelf = _made(session, root)
            try:
                kept = _move(name, directory, shelf)
                os.fsync(shelf)
            finally:
                os.close(shelf)
            os.fsync(root)
        finally:
            os.close(root)
        os.fsync(directory)
        os.fsync(self._store)
        return f"{LOST}/{session}/{kept}"


def _made(name: str, at: int) -> int:
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=at)
    return files.open_directory(name, at)


def _move(name: str, source: int, target: int) -> str:
    number = 1
    while True:
        kept = name if number == 1 else f"{name[:240]}.{number}"
        try:
            _rename_new(source, name, target, kept)
        except FileExistsError:
            number += 1
        else:
            return kept


def _rename_new(source: int, name: str, target: int, kept: str) -> None:
    old, new = f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{kept}"
    try:
        files.rename_new(old, new, source)
    except OSError as error:
        if error.errno not in files.UNSUPPORTED:
            raise
        # link(2) is exclusive everywhere; directories cannot be linked and stay where they are.
        os.link(name, kept, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        os.unlink(name, dir_fd=source)


def rebuild_meta(
    directory: int,
    slug: str,
    old: bytes | None,
    message_count: int,
    times_ns: tuple[int | None, int | None],
    mode: int | None,
) -> None:
    """Write a new meta for the session open as `directory`, which has none.

    Valid keys of the `old` meta are kept, except the count. Otherwise agent and sender come from the
    slug, and the times from the oldest and newest step (`times_ns`, nanoseconds since 1970) or from
    the directory. The file gets `mode`, or the directory's mode, and the directory's owner. Raises
    `OSError`; a meta that somebody else has written in the meantime is left alone.
    """
    status = os.fstat(directory)
    oldest, newest = (status.st_mtime_ns if ns is None else ns for ns in times_ns)
    agent, sender = _parts(slug)
    rebuilt: meta.Meta = {
        "agent": agent,
        "created_by": sender,
        "created_at": _rfc3339(oldest),
        "title": "",
        "updated_at": _rfc3339(newest),
        "message_count": message_count,
    }
    for key, value in _object(old).items():
        if key == "message_count":
            continue
        with suppress(StoreError):
            rebuilt = meta.check({**rebuilt, key: value})
    bits = status.st_mode & 0o666 if mode is None else mode & 0o666
    owner = status.st_uid, status.st_gid
    with suppress(FileExistsError):
        create_complete(
            meta.NAME, encoded(rebuilt), directory, bits, owner, exclusive=True, sync=True
        )


def _object(data: bytes | None) -> dict[str, Any]:
    try:
        value = parse(data or b"")
    except NotJSON:
        return {}
    return value if isinstance(value, dict) else {}


def _parts(slug: str) -> tuple[str, str]:
    return named_after(slug) or (printable(slug), "")


def _rfc3339(ns: int) -> str:
    seconds, nanoseconds = divmod(ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09}+00:00"
