"""The store's sessions: which there are, making and deleting one (G11, G21).

Nothing below the store is reached through a symlink, and no half-made session is ever seen: a new
one is completed under a hidden name (`.new.…`) and then renamed, a deleted one renamed to a hidden
name (`.del.…`) and then removed. A crash leaves only hidden names, which `Store.sweep` clears.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from storage import latest
from storage import posix as files
from storage.capabilities import is_near
from storage.errors import StoreError, doing, from_os_error, printable
from storage.formats.slug import (
    SEQ_MAX,
    is_ulid,
    named_after,
    new_ulid,
    sequence_number,
    session_prefix,
)
from storage.session import meta, meta_update
from storage.session.steps import Ownership
from storage.session.tombstone import TOMBSTONE, bury

_log = logging.getLogger(__name__)

BURIED_SECONDS = 2.5
"""How long a far store keeps a tombstone: longer than its clients believe what a name was."""
ABANDONED_SECONDS = 600.0
"""What nobody has added to for so long nobody on another host is making any more."""
_LEFT_OVER = re.compile(r"\.(new|del|probe)\.[0-9a-f]{16}", re.ASCII)
_ATTEMPTS = 10
_AT_ONCE = 500


def now() -> str:
    """The time as the daemon writes it: RFC 3339, UTC, nanoseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09}+00:00"


_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Store:
    """A store's root directory, held open: every session is reached relative to `fd`."""

    def __init__(self, path: str) -> None:
        """Opens the store at `path`. Raises StoreError ENOENT, ENOTDIR, EACCES, …"""
        self.path = path
        with doing(f"open the store {printable(path)}"):
            self.fd = files.open_directory(path)
        self._near = is_near(self.fd)

    def close(self) -> None:
        """Closes `fd`; the store is of no use afterwards."""
        os.close(self.fd)

    def reopen(self) -> None:
        """Goes on with the directory that has the path by now; `fd` keeps its number.

        Raises StoreError, and then nothing is changed: ENOENT where there is none, ENOTDIR, EACCES …;
        ESTALE where it is on another file system or another user's.
        """
        with doing(f"open the store {printable(self.path)}"):
            found = files.open_directory(self.path)
        try:
            old, new = os.fstat(self.fd), os.fstat(found)
            if old.st_dev != new.st_dev:
                sentence = "what has its path by now is on another file system"
                raise StoreError(errno.ESTALE, "store-removed", sentence)
            if old.st_uid != new.st_uid:
                sentence = "what has its path by now belongs to another user"
                raise StoreError(errno.ESTALE, "store-removed", sentence)
            os.dup2(found, self.fd, inheritable=False)
        finally:
            os.close(found)

    def names(self) -> list[str]:
        """The sessions there are now, in no order: real directories that hold a `meta`."""
        return self._sessions(self.directories())

    def open_session(self, slug: str) -> int:
        """A new descriptor of a session's directory. Raises StoreError, ENOENT if it is none."""
        if not slug or slug.startswith(".") or "/" in slug or "\0" in slug:
            raise _no_session(slug)
        with doing(f"open session {printable(slug)}"):
            try:
                directory = files.open_directory(slug, self.fd)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise _no_session(slug) from None
                raise
            with ExitStack() as failing:
                failing.callback(os.close, directory)
                if files.is_regular(meta.NAME, directory):
                    failing.pop_all()
                    return directory
        raise _no_session(slug)

    @contextmanager
    def opened(self, slug: str) -> Iterator[int]:
        """A descriptor of a session's directory while the block lasts. Raises as `open_session`."""
        directory = self.open_session(slug)
        try:
            yield directory
        finally:
            os.close(directory)

    def stat_session(self, slug: str) -> tuple[os.stat_result, os.stat_result]:
        """The status of a session's directory and of its meta, neither of them a symlink's.

        Raises StoreError, ENOENT if it is none.
        """
        if slug.startswith(".") or "/" in slug:
            raise _no_session(slug)
        try:
            fd = os.open(slug, _LOOK, dir_fd=self.fd)
            try:
                found = os.fstat(fd), files.status(meta.NAME, fd, kept=True)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise _no_session(slug) from None
            raise from_os_error(error, f"look at {printable(slug)}") from error
        if not stat.S_ISREG(found[1].st_mode):
            raise _no_session(slug)
        return found

    def create(self, agent: str, created_by: str, *, sync: bool) -> str:
        """Makes the next session of this agent and sender, and returns its slug (G11).

        Its number is the greatest there is for the two, of any kind of entry, plus one; of several
        creators of the same number one gets it and the others the next. Where a session has a ULID
        as its slug, so has the new one. With `sync` it is on disk on return (G17). Raises StoreError.
        """
        with self.making(sync) as new:
            new.write_meta(meta.fresh(agent, created_by, now()))
            return new.claim_next(agent, created_by)

    def make(self, slug: str, *, sync: bool) -> None:
        """Makes exactly the session `slug`, whose meta names the parts of the slug (G11).

        A ULID has none: the meta names the daemon's default agent and no sender.
        With `sync` it is on disk on return (G17). Raises StoreError: EINVAL if the name has not the
        form of a session's, EEXIST if it is taken.
        """
        about = named_after(slug)
        if about is None:
            sentence = (
                f"{printable(slug)} is no session name: AGENT_SENDER_NUMBER or a ULID is needed"
            )
            raise StoreError(errno.EINVAL, "bad-slug", sentence)
        with self.making(sync) as new:
            new.write_meta(meta.fresh(*about, now()))
            new.claim(slug)

    def delete(self, slug: str, *, sync: bool) -> None:
        """Deletes a session and all that is in it (G11): `hide`, then `remove`. Raises as `hide`."""
        self.remove(self.hide(slug, sync=sync))

    def hide(self, slug: str, *, sync: bool) -> str:
        """Deletes a session in one step (G11); returns the hidden name that `remove` is to clear.

        With `sync` that is on disk on return (G17). Raises StoreError: ENOENT if there is none,
        EACCES where its files could not be removed.
        """
        hidden = f".del.{secrets.token_hex(8)}"
        directory = self.open_session(slug)
        try:
            with doing(f"delete session {printable(slug)}"):
                if os.fstatvfs(directory).f_flag & os.ST_RDONLY:
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
                if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=True):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                os.rename(slug, hidden, src_dir_fd=self.fd, dst_dir_fd=self.fd)
                bury(directory)
                if sync:
                    os.fsync(self.fd)
        finally:
            os.close(directory)
        return hidden

    def remove(self, hidden: str) -> None:
        """Removes the tree under a hidden name, also while others still put files into it.

        It takes as long as the tree is large. What cannot be removed is logged and left to `sweep`.
        """
        for attempt in range(_ATTEMPTS):
            try:
                self._rest_in_peace(hidden)
                shutil.rmtree(hidden, dir_fd=self.fd)
            except FileNotFoundError:
                if not files.exists(hidden, self.fd):
                    return
            except (OSError, RecursionError) as error:
                if attempt == _ATTEMPTS - 1:
                    _log.warning("could not remove %s: %s", printable(hidden), error)
            else:
                return

    def _rest_in_peace(self, hidden: str) -> None:
        """Clears all but the tombstone, until no other host can still believe that the meta is there."""
        if self._near:
            return
        directory = files.open_directory(hidden, self.fd)
        try:
            buried = os.stat(TOMBSTONE, dir_fd=directory, follow_symlinks=False).st_mtime
            for name in files.listing(directory):
                if name != TOMBSTONE:
                    with suppress(OSError):  # a directory is left to what follows
                        os.unlink(name, dir_fd=directory)
            time.sleep(max(0.0, min(buried + BURIED_SECONDS - time.time(), BURIED_SECONDS)))
        finally:
            os.close(directory)

    def latest(self, agent: str, created_by: str) -> str | None:
        """The latest session of this agent and sender, None if there is none."""
        names = list(self.directories())
        if not any(map(is_ulid, names)):
            prefix = session_prefix(agent, created_by)
            names = [name for name in names if name.startswith(prefix)]
        return latest.session_of(agent, created_by, self._sessions(names), self.meta_of)

    def latest_links(self) -> dict[str, str]:
        """Per `<agent>_<sender>` the latest session (`.stepfs/latest/`)."""
        return latest.links(self.names(), self.meta_of)

    def sweep(self, pause: Callable[[], None] = lambda: None) -> int:
        """Clears what crashes have left of new and deleted sessions and of metas written aside.

        Returns how many sessions were cleared. It may run beside everything else, other processes
        too; it looks once at each session, and calls `pause` after so many that nobody has to wait
        for. What cannot be removed is logged and left.
        """
        cleared = 0
        with doing("list the store"):
            left_over = [name for name in files.listing(self.fd) if _LEFT_OVER.fullmatch(name)]
        for name in left_over:
            with suppress(OSError):
                hidden = name if name.startswith(".del.") else self._abandoned(name)
                if hidden:
                    self.remove(hidden)
                    cleared += 1
        for at, slug in enumerate(self.directories()):
            if at % _AT_ONCE == 0:
                pause()
            with suppress(OSError):
                self._clear_meta(slug)
        return cleared

    def directories(self) -> dict[str, int]:
        """The real directories there are now that may be sessions, each with its inode number."""
        with (
            doing("list the store"),
            files.reopened(self.fd) as own,
            os.scandir(own) as entries,
        ):
            return {
                entry.name: entry.inode()
                for entry in entries
                if entry.name[0] != "." and entry.is_dir(follow_symlinks=False)
            }

    def _sessions(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if _holds_meta(name, self.fd)]

    def meta_of(self, slug: str) -> meta.Meta | None:
        """The meta of a session, None if it is broken or gone."""
        try:
            with self.opened(slug) as directory:
                return meta.parsed(meta.read(directory)[0])
        except (OSError, StoreError):
            return None

    def has_ulids(self, names: Iterable[str]) -> bool:
        """Whether one of these names is a session whose slug is a ULID."""
        return any(is_ulid(name) and _holds_meta(name, self.fd) for name in names)

    @contextmanager
    def making(self, sync: bool) -> Iterator[NewSession]:
        """A session that is being made: the block fills it, writes its meta and claims its name.

        It appears complete or, if the block fails or the process ends, not at all; what is left is
        cleared by `sweep`, which its lock keeps away until then. With `sync` it is on disk at the end
        of the block (G17). Raises StoreError for a system call that failed in the block.
        """
        with doing("make a session"):
            hidden, directory = self._locked_directory()
            try:
                yield NewSession(self, hidden, directory, sync)
                if sync:
                    os.fsync(self.fd)
            except BaseException:
                self.remove(hidden)
                raise
            finally:
                os.close(directory)

    def _locked_directory(self) -> tuple[str, int]:
        for _ in range(_ATTEMPTS):
            hidden = f".new.{secrets.token_hex(8)}"
            os.mkdir(hidden, 0o777, dir_fd=self.fd)
            with suppress(FileNotFoundError), ExitStack() as failing:
                directory = files.open_directory(hidden, self.fd)
                failing.callback(os.close, directory)
                if _lock(directory) and files.is_same(hidden, self.fd, directory):
                    failing.pop_all()
                    return hidden, directory
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def _abandoned(self, hidden: str) -> str | None:
        """The name for removal of a new session that nobody is making any more; None if one is."""
        directory = files.open_directory(hidden, self.fd)
        try:
            if not _lock(directory) or self._may_be_in_use(directory):
                return None
            removed = f".del.{secrets.token_hex(8)}"
            os.rename(hidden, removed, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            return removed
        finally:
            os.close(directory)

    def _may_be_in_use(self, directory: int) -> bool:
        """Whether another host, which no lock of a directory tells of, may be at work in it."""
        return not self._near and time.time() - os.fstat(directory).st_mtime < ABANDONED_SECONDS

    def _clear_meta(self, slug: str) -> None:
        if not any(files.is_regular(f"{slug}/{name}", self.fd) for name in meta_update.TEMPORARIES):
            return
        directory = files.open_directory(slug, self.fd)
        try:
            meta_update.clear_leftover(directory)
        finally:
            os.close(directory)


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


def _no_session(slug: str) -> StoreError:
    return StoreError(errno.ENOENT, "no-session", f"there is no session {printable(slug)}")


def _holds_meta(slug: str, root: int) -> bool:
    try:
        return files.is_regular(f"{slug}/{meta.NAME}", root)
    except OSError:
        return False


def _next_slug(prefix: str, names: Iterable[str]) -> str:
    """The greatest number that any of `names` has after this prefix, plus one.

    The store is listed each time: no stamp of a directory tells whether only we changed it.
    """
    seqs = (sequence_number(name[len(prefix) :]) for name in names if name.startswith(prefix))
    seq = 1 + max((seq or 0 for seq in seqs), default=0)
    if seq > SEQ_MAX:
        sentence = f"{printable(prefix)}{SEQ_MAX} exists: no number is left"
        raise StoreError(errno.ENOSPC, "no-number", sentence)
    return f"{prefix}{seq}"


def _lock(directory: int) -> bool:
    """Locks a hidden directory; False if somebody else has. Where nothing locks, it is True."""
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in files.UNSUPPORTED | {errno.ENOLCK, errno.EBADF}:
            raise
    return True
