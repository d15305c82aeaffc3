"""A store: which sessions there are, and their directories (G11).

Nothing below the store is reached through a symlink, and what has a hidden name is no session. Making
sessions is `storage.creation`'s, and deleting them `storage.deletion`'s.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from storage import latest
from storage import posix as files
from storage.capabilities import is_near
from storage.errors import StoreError, doing, from_os_error, printable
from storage.formats.slug import (
    is_ulid,
    session_prefix,
)
from storage.session import meta

_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Status(NamedTuple):
    """What is kept of a file's status, in a fifth of the memory of `os.stat_result`."""

    st_mode: int
    st_ino: int
    st_dev: int
    st_uid: int
    st_gid: int
    st_mtime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Status:
        """That part of it."""
        return cls(
            found.st_mode,
            found.st_ino,
            found.st_dev,
            found.st_uid,
            found.st_gid,
            found.st_mtime_ns,
        )


AnyStatus = os.stat_result | Status


class Store:
    """A store's root directory, held open: every session is reached relative to `fd`."""

    def __init__(self, path: str) -> None:
        """Opens the store at `path`. Raises StoreError ENOENT, ENOTDIR, EACCES, …"""
        self.path = path
        with doing(f"open the store {printable(path)}"):
            self.fd = files.open_directory(path)
        self.near = is_near(self.fd)
        """Whether it can be changed from this host alone."""

    def close(self) -> None:
        """Closes `fd`; the store must not be used afterwards."""
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
                sentence = "the directory at its path now is on another file system"
                raise StoreError(errno.ESTALE, "store-removed", sentence)
            if old.st_uid != new.st_uid:
                sentence = "the directory at its path now belongs to another user"
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

    def stat_session(self, slug: str) -> tuple[Status, Status]:
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
            raise from_os_error(error, f"check {printable(slug)}") from error
        directory, about = map(Status.of, found)
        if not stat.S_ISREG(about.st_mode):
            raise _no_session(slug)
        return directory, about

    def latest(self, agent: str, created_by: str) -> str | None:
        """The latest session of this agent and sender, None if there is none."""
        names = list(self.directories())
        if not any(map(is_ulid, names)):
            prefix = session_prefix(agent, created_by)
            names = [name for name in names if name.startswith(prefix)]
        return latest.session_of(agent, created_by, self._sessions(names), self.meta_of)

    def directories(self) -> dict[str, int]:
        """The real directories there are now that may be sessions, each with its inode number."""
        with doing("list the store"):
            return files.subdirectories(self.fd)

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


def _no_session(slug: str) -> StoreError:
    return StoreError(errno.ENOENT, "no-session", f"there is no session {printable(slug)}")


def _holds_meta(slug: str, root: int) -> bool:
    try:
        return files.is_regular(f"{slug}/{meta.NAME}", root)
    except OSError:
        return False
