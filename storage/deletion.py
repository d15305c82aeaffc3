"""Deleting sessions: hidden in one step, and removed afterwards (G11).

A session is renamed to a hidden name (`.del.…`): that is the deletion. Its files are removed under it.
A crash leaves the hidden name, which `storage.sweep` clears.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from contextlib import suppress
from typing import Final

from storage import posix as files
from storage.errors import doing, printable
from storage.session.tombstone import TOMBSTONE, bury
from storage.store import Store

_log: Final = logging.getLogger(__name__)
BURIED_SECONDS: Final = 2.5
"""How long a far store keeps a tombstone: longer than clients cache a name."""
_ATTEMPTS: Final = 10


def hidden_name() -> str:
    """A name for what is to be removed."""
    return f".del.{files.token()}"


def delete(store: Store, slug: str, *, sync: bool) -> None:
    """Deletes a session and all that is in it (G11): `hide`, then `remove`. Raises as `hide`."""
    remove(store, hide(store, slug, sync=sync))


def hide(store: Store, slug: str, *, sync: bool) -> str:
    """Deletes a session in one step (G11); returns the hidden name that `remove` is to clear.

    With `sync` that is on disk on return (G17). Raises StoreError: ENOENT if there is none,
    EACCES where its files could not be removed.
    """
    hidden = hidden_name()
    directory = store.open_session(slug)
    try:
        with doing(f"delete session {printable(slug)}"):
            if os.fstatvfs(directory).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            os.rename(slug, hidden, src_dir_fd=store.fd, dst_dir_fd=store.fd)
            bury(directory)
            if sync:
                os.fsync(store.fd)
    finally:
        os.close(directory)
    return hidden


def remove(store: Store, hidden: str) -> None:
    """Removes the tree under a hidden name, also while others still put files into it.

    It takes as long as the tree is large. What cannot be removed is logged and left to `sweep`.
    """
    for attempt in range(_ATTEMPTS):
        try:
            _rest_in_peace(store, hidden)
            shutil.rmtree(hidden, dir_fd=store.fd)
        except FileNotFoundError:
            if not files.exists(hidden, store.fd):
                return
        except (OSError, RecursionError) as error:
            if attempt == _ATTEMPTS - 1:
                _log.warning("could not remove %s: %s", printable(hidden), error)
        else:
            return


def _rest_in_peace(store: Store, hidden: str) -> None:
    """Clears all but the tombstone, until no other host can still believe that the meta is there."""
    if store.near:
        return
    directory = files.open_directory(hidden, store.fd)
    try:
        try:
            buried = os.stat(TOMBSTONE, dir_fd=directory, follow_symlinks=False).st_mtime
        except FileNotFoundError:
            return  # it never had a name that others know, or no tombstone could be put
        for name in files.listing(directory):
            if name != TOMBSTONE:
                with suppress(OSError):  # a directory is left to what follows
                    os.unlink(name, dir_fd=directory)
        time.sleep(max(0.0, min(buried + BURIED_SECONDS - time.time(), BURIED_SECONDS)))
    finally:
        os.close(directory)
