"""A fork: a new session with copies of another's steps up to a number (G30).

It is built under a hidden name and brought in at once, as every new session is, so that it is there
completely or not at all. Steps are copied, with reflinks where the file system has them, and never
linked: what replaces a step of one session in place must not change another. Their mtimes are kept,
which tell when each was stored, and all of a session's steps go over, events, compactions and what is no
step alike, so that the fork's log is the origin's up to there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from array import array
from bisect import bisect_left
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from storage import posix as files
from storage.creation import NewSession, making
from storage.errors import StoreError, doing, printable
from storage.formats.kinds import Step
from storage.formats.splice import encoded
from storage.session import meta
from storage.session.index import Index, scan
from storage.session.reader import NOT_REGULAR, Reader
from storage.session.replay import PASS_STEPS, backwards
from storage.session.steps import (
    NUMBER_MAX,
    READ_FLAGS,
    STEP_BYTES_MAX,
    Ownership,
    step_number,
    sync_steps,
)
from storage.store import Store
from storage.times import now

ORIGIN_KEY: Final = "forked_from"
"""The key of a fork's meta that tells its origin: `{"session": SLUG, "step": N}`."""
PIECE_STEPS: Final = 256
PIECE_BYTES: Final = 8 << 20
ATTEMPTS: Final = 20
"""Passes over a session that keeps changing before the fork gives up."""

_FICLONE: Final = 0x40049409
_NO_REFLINKS: Final = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EPERM}
)
_CHUNK_BYTES: Final = 1 << 20
_PROBE: Final = ".probe"

Pieces = Generator[None, None, str]


def fork(
    store: Store,
    slug: str,
    *,
    at: int | None = None,
    agent: str | None = None,
    created_by: str | None = None,
    sync: bool,
) -> Pieces:
    """Make a session of the steps of `slug` up to number `at`, all there are now without it (G30).

    A generator that does a bounded piece of the work each time it is asked, in whatever thread, and
    returns the new slug. Closed before its end, it leaves nothing. The fork's agent and sender are
    its origin's where they are not given, its rights its origin's. With `sync` it is on disk at the end.

    Raises StoreError: ENOENT if there is no such session; EINVAL where its broken meta does not tell
    an agent or sender that is not given either; EAGAIN if its steps do not keep still; ENOSPC, …
    """
    with doing(f"fork {printable(slug)}"), store.opened(slug) as origin:
        about = _meta_of_fork(origin, slug, agent, created_by)
        rights = Ownership.of_session(origin)
        with making(store, sync) as new:
            os.fchmod(new.directory, stat.S_IMODE(os.fstat(origin).st_mode))
            index = scan(origin)
            last = min(NUMBER_MAX if at is None else at, index.greatest)
            yield
            yield from _Copier(origin, new.directory, rights, sync and not store.near).copy(
                index, last
            )
            about[ORIGIN_KEY] = {"session": slug, "step": last}
            about["message_count"] = yield from _message_count(new)
            if sync:
                sync_steps(new.directory, (), whole=store.near)
                yield
            new.write_meta(encoded(about), rights)
            return new.claim_next(about["agent"], about["created_by"])


def finish(pieces: Pieces) -> str:
    """Do all of a fork at once: the new slug. Raises as `fork`."""
    while True:
        try:
            next(pieces)
        except StopIteration as ended:
            slug: str = ended.value
            return slug


def _meta_of_fork(
    origin: int, slug: str, agent: str | None, created_by: str | None
) -> dict[str, Any]:
    try:
        about = meta.parsed(meta.read(origin)[0])
    except StoreError:
        if agent is None or created_by is None:
            sentence = f'the meta of {printable(slug)} is broken: give "agent" and "created_by"'
            raise StoreError(errno.EINVAL, "broken-meta", sentence) from None
        about = {}
    time = now()
    return {
        "agent": about.get("agent") if agent is None else agent,
        "created_by": about.get("created_by") if created_by is None else created_by,
        "created_at": time,
        "title": about.get("title", ""),
        "updated_at": time,
    }


def _message_count(new: NewSession) -> Generator[None, None, int]:
    """The messages of the fork as G9 counts them: its history's, and one for an archive."""
    reader, index = Reader(new.directory), scan(new.directory)
    count, end = 0, index.greatest + 1
    while numbers := index.before(end, PASS_STEPS):
        found = backwards(reader, numbers, index.odd, _count_entry)
        count += sum(len(text.shown) for text in found.texts)
        if found.boundary is not None:
            return count + (found.boundary.archive is not None)
        end = numbers[0] if found.reached is None else found.reached
        yield
    return count


def _count_entry(step: Step, _session_fd: int, _name: str) -> bytes | None:
    return b"" if step.kind.is_entry else None


@dataclass(slots=True)
class _Copied:
    """Which steps were copied, ascending, and what identified each file then."""

    numbers: array[int] = field(default_factory=lambda: array("Q"))
    stamps: array[int] = field(default_factory=lambda: array("q"))

    def add(self, number: int, stamp: int) -> None:
        self.numbers.append(number)
        self.stamps.append(stamp)

    def stamp(self, number: int) -> int | None:
        at = bisect_left(self.numbers, number)
        known = at < len(self.numbers) and self.numbers[at] == number
        return self.stamps[at] if known else None


class _Copier:
    """Copies the steps of a session that others may change meanwhile.

    They are looked through again until nothing has changed since it was copied: the copies are what
    the session was at one moment then, never a history that has not existed (G13).
    """

    def __init__(self, origin: int, target: int, rights: Ownership, sync_each: bool) -> None:
        """`sync_each` copies to disk one by one: syncfs(2) reaches no server."""
        self._origin = origin
        self._target = target
        self._rights = rights
        self._sync_each = sync_each
        self._reflinks = True
        self._born_right = self._files_are_born_right()
        self._done = 0

    def copy(self, index: Index, last: int) -> Generator[None, None, None]:
        """Copy the steps of `index` up to number `last`. Raises OSError; StoreError EAGAIN."""
        copied = _Copied()
        for _ in range(ATTEMPTS):
            before, copied = copied, _Copied()
            changed = yield from self._copy_changed(index, last, before, copied)
            if not changed and before.numbers == copied.numbers:
                return
            if before.numbers:
                self._remove_others(index, last)
            index = scan(self._origin)
        sentence = "its steps were changed again and again while they were copied: try again"
        raise StoreError(errno.EAGAIN, "keeps-changing", sentence)

    def _copy_changed(
        self, index: Index, last: int, before: _Copied, copied: _Copied
    ) -> Generator[None, None, bool]:
        changed = False
        for at, number in enumerate(index.between(0, last, len(index.numbers)), 1):
            names = index.names(number)
            stamp = before.stamp(number)
            if stamp is None or self._stamp(names) != stamp:
                changed = True
                if stamp is not None:
                    self._remove(names)
                stamp = _together(map(self._copy_step, names))
            copied.add(number, stamp)
            if at % PIECE_STEPS == 0 or self._done >= PIECE_BYTES:
                self._done = 0
                yield
        return changed

    def _stamp(self, names: list[str]) -> int:
        return _together(self._look(name) for name in names)

    def _look(self, name: str) -> int:
        try:
            return _identity(os.stat(name, dir_fd=self._origin, follow_symlinks=False))
        except FileNotFoundError:
            return 0

    def _remove(self, names: list[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._target)

    def _copy_step(self, name: str) -> int:
        try:
            source = files.open_unnoticed(name, READ_FLAGS, self._origin)
        except FileNotFoundError:
            return 0
        except OSError as error:
            if error.errno not in NOT_REGULAR:
                raise
            return 0
        try:
            found = os.fstat(source)
            if stat.S_ISREG(found.st_mode) and found.st_size <= STEP_BYTES_MAX:
                self._copy_file(source, found, name)
            return _identity(found)
        finally:
            os.close(source)

    def _copy_file(self, source: int, found: os.stat_result, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        mode = self._rights.mode if self._born_right else 0o600
        target = os.open(name, flags, mode, dir_fd=self._target)
        try:
            self._copy_contents(source, target, found.st_size)
            if not self._born_right:
                files.give(target, self._rights.owner)
                os.fchmod(target, self._rights.mode)
            os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
            if self._sync_each:
                os.fsync(target)
        finally:
            os.close(target)

    def _copy_contents(self, source: int, target: int, size: int) -> None:
        if self._reflinks and size:
            try:
                fcntl.ioctl(target, _FICLONE, source)
            except OSError as error:
                if error.errno not in _NO_REFLINKS:
                    raise
                self._reflinks = False
            else:
                return
        self._done += size
        while size > 0 and (data := os.read(source, min(size, _CHUNK_BYTES))):
            files.write_all(target, data)
            size -= len(data)

    def _files_are_born_right(self) -> bool:
        """Whether a file that is made with the mode of the copies needs nothing more to be theirs.

        A umask or an ACL may take bits away, and the owner may be another: then each is told after.
        """
        if self._rights.owner is not None:
            return False
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        probe = os.open(_PROBE, flags, self._rights.mode, dir_fd=self._target)
        try:
            return stat.S_IMODE(os.fstat(probe).st_mode) == self._rights.mode
        finally:
            os.close(probe)
            os.unlink(_PROBE, dir_fd=self._target)

    def _remove_others(self, index: Index, last: int) -> None:
        """Takes out copies of what was removed meanwhile."""
        for name in files.listing(self._target):
            number = step_number(name)
            if number is None or number > last or not index.knows(name, number):
                os.unlink(name, dir_fd=self._target)


def _together(stamps: Iterable[int]) -> int:
    return hash(tuple(stamps))


def _identity(found: os.stat_result) -> int:
    return hash((found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size))
