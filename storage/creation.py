"""Making sessions: none is ever seen half-made (G11, G21).

A new one is completed under a hidden name (`.new.…`) and then renamed. A crash leaves the hidden name,
which `storage.sweep` clears: whoever is at work holds its lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from storage import posix as files
from storage.deletion import remove
from storage.errors import StoreError, doing, printable
from storage.formats.slug import SEQ_MAX, named_after, new_ulid, sequence_number, session_prefix
from storage.session import meta
from storage.session.steps import Ownership
from storage.store import Store
from storage.times import now

_ATTEMPTS: Final = 10


def create_next(store: Store, agent: str, created_by: str, *, sync: bool) -> str:
    """Makes the next session of this agent and sender, and returns its slug (G11).

    Its number is the greatest there is for the two, of any kind of entry, plus one; of several
    creators of the same number one gets it and the others the next. Where a session has a ULID
    as its slug, so has the new one. With `sync` it is on disk on return (G17). Raises StoreError.
    """
    with making(store, sync) as new:
        new.write_meta(meta.fresh(agent, created_by, now()))
        return new.claim_next(agent, created_by)


def create_named(store: Store, slug: str, *, sync: bool) -> None:
    """Makes exactly the session `slug`, whose meta names the parts of the slug (G11).

    A ULID has none: the meta names the daemon's default agent and no sender.
    With `sync` it is on disk on return (G17). Raises StoreError: EINVAL if the name has not the
    form of a session's, EEXIST if it is taken.
    """
    about = named_after(slug)
    if about is None:
        sentence = (
            f"{printable(slug)} is not a session name: AGENT_SENDER_NUMBER or a ULID is needed"
        )
        raise StoreError(errno.EINVAL, "bad-slug", sentence)
    with making(store, sync) as new:
        new.write_meta(meta.fresh(*about, now()))
        new.claim(slug)


@contextmanager
def making(store: Store, sync: bool) -> Iterator[NewSession]:
    """A session that is being made: the block fills it, writes its meta and claims its name.

    It appears complete or, if the block fails or the process ends, not at all; what is left is
    cleared by `sweep`, which its lock keeps away until then. With `sync` it is on disk at the end
    of the block (G17). Raises StoreError for a system call that failed in the block.
    """
    with doing("make a session"):
        hidden, directory = _locked_directory(store)
        try:
            yield NewSession(store, hidden, directory, sync)
            if sync:
                os.fsync(store.fd)
        except BaseException:
            remove(store, hidden)
            raise
        finally:
            os.close(directory)


def _locked_directory(store: Store) -> tuple[str, int]:
    for _ in range(_ATTEMPTS):
        hidden = f".new.{files.token()}"
        os.mkdir(hidden, 0o777, dir_fd=store.fd)
        with suppress(FileNotFoundError), ExitStack() as failing:
            directory = files.open_directory(hidden, store.fd)
            failing.callback(os.close, directory)
            if lock(directory) and files.is_same(hidden, store.fd, directory):
                failing.pop_all()
                return hidden, directory
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


class NewSession:
    """A session that is being made, under a hidden name that nobody looks at.

    The files go into `directory`, the meta last of them, and then the name is claimed.
    """

    def __init__(self, store: Store, hidden: str, directory: int, sync: bool) -> None:
        self.directory = directory
        self._store = store
        self._hidden = hidden
        self._sync = sync

    def write_meta(self, about: bytes, rights: Ownership | None = None) -> None:
        """Completes the session by its meta. It has the rights of a new directory if none are given."""
        if rights is None:
            root = os.stat(self._store.fd)
            mode = os.fstat(self.directory).st_mode & 0o666
            rights = Ownership(mode, (root.st_uid, root.st_gid))
        files.write_new(meta.NAME, about, self.directory, rights.mode, rights.owner, self._sync)
        files.give(self.directory, rights.owner)
        if self._sync:
            os.fsync(self.directory)

    def claim_next(self, agent: str, created_by: str) -> str:
        """Claims the next name of this agent and sender: the slug."""
        prefix = session_prefix(agent, created_by)
        while True:
            names = files.listing(self._store.fd)
            slug = new_ulid() if self._store.has_ulids(names) else _next_slug(prefix, names)
            with suppress(FileExistsError):
                self.claim(slug)
                return slug

    def claim(self, slug: str) -> None:
        """Claims exactly this name. Raises OSError, EEXIST if it is taken."""
        root = self._store.fd
        try:
            files.rename_new(self._hidden, slug, root)
        except OSError as error:
            if error.errno not in files.UNSUPPORTED:
                raise
            claim_in_steps(self._hidden, slug, root)


def claim_in_steps(hidden: str, slug: str, root: int) -> None:
    """Where no rename is exclusive, mkdir is. Raises OSError, EEXIST if the name is taken.

    It makes no session until the meta is linked in, last of all; a crash before that leaves the
    number taken.
    """
    with ExitStack() as opened:
        made = files.open_directory(hidden, root)
        opened.callback(os.close, made)
        status = os.fstat(made)
        os.mkdir(slug, stat.S_IMODE(status.st_mode), dir_fd=root)
        own = files.open_directory(slug, root)
        opened.callback(os.close, own)
        os.fchmod(own, stat.S_IMODE(status.st_mode))
        files.give(own, (status.st_uid, status.st_gid))
        for name in files.listing(made):
            if name != meta.NAME:
                os.rename(name, name, src_dir_fd=made, dst_dir_fd=own)
        os.link(meta.NAME, meta.NAME, src_dir_fd=made, dst_dir_fd=own)
        os.fsync(own)
        with suppress(OSError):  # left to `sweep`
            os.unlink(meta.NAME, dir_fd=made)
            os.rmdir(hidden, dir_fd=root)


def _next_slug(prefix: str, names: Iterable[str]) -> str:
    """The greatest number that any of `names` has after this prefix, plus one.

    The store is listed each time: no timestamp of a directory shows that nobody else changed it.
    """
    seqs = (sequence_number(name[len(prefix) :]) for name in names if name.startswith(prefix))
    seq = 1 + max((seq or 0 for seq in seqs), default=0)
    if seq > SEQ_MAX:
        sentence = f"{printable(prefix)}{SEQ_MAX} exists: no number is left"
        raise StoreError(errno.ENOSPC, "no-number", sentence)
    return f"{prefix}{seq}"


def lock(directory: int) -> bool:
    """Locks a hidden directory; False if somebody else has. Where nothing locks, it is True."""
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in files.UNSUPPORTED | {errno.ENOLCK, errno.EBADF}:
            raise
    return True
