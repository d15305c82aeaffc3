"""Step files: their names, reading one, and claiming the next number.

A step is claimed by linking a complete file under its name (G15): the link is exclusive, so no step of
anyone is ever replaced, and a crash leaves neither a torn step nor a temporary. The complete file is
an unnamed one (`O_TMPFILE`) on local file systems, and a hidden temporary elsewhere: some shared file
systems accept an unnamed file and then lose it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from storage.errors import StoreError, from_os_error
from storage.posix import is_regular, read_on, rename_new, sync_filesystem

NUMBER_MAX: Final = 2**64 - 1
STEP_BYTES_MAX: Final = 64 << 20
"""A longer file counts as broken, and is never read."""
READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STEP: Final = re.compile(r"step-([0-9]+)", re.ASCII)
_CHUNK: Final = 1 << 16
_NO_UNNAMED: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})


def step_number(name: str) -> int | None:
    """The number in a step's name, or None if it is no step's: only `step-` and ASCII digits are.

    Numbers begin at 1.
    """
    match = _STEP.fullmatch(name)
    return int(match[1]) or None if match else None


def step_name(number: int) -> str:
    """The name under which step `number` is stored."""
    return f"step-{number:06}"


def read_step(name: str, session_fd: int, extra_flags: int = 0) -> bytes:
    """The bytes of a regular step file; `extra_flags` may hold `O_NOATIME`.

    Raises `OSError` as open(2) and read(2) do, and EFBIG for a file over `STEP_BYTES_MAX`, of which
    nothing but its beginning is read. The caller knows from the listing that it is regular.
    """
    fd = os.open(name, READ_FLAGS | extra_flags, dir_fd=session_fd)
    try:
        data = os.read(fd, _CHUNK)
        if len(data) < _CHUNK:
            return data
        if os.fstat(fd).st_size <= STEP_BYTES_MAX:
            data = read_on(fd, data, STEP_BYTES_MAX)
            if len(data) <= STEP_BYTES_MAX:
                return data
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Ownership:
    """What a new step takes: permission bits, and the owner where it differs from the process's."""

    mode: int
    owner: tuple[int, int] | None

    @classmethod
    def of_session(cls, session_fd: int) -> Ownership:
        """The mode of `meta` and the owner of the session's directory (G21).

        The owner is given only where the process may give files away, and where it must.
        """
        directory = os.fstat(session_fd)
        meta = os.stat("meta", dir_fd=session_fd, follow_symlinks=False)
        mine = directory.st_uid == os.geteuid() and directory.st_gid == os.getegid()
        owner = None if mine or os.geteuid() != 0 else (directory.st_uid, directory.st_gid)
        return cls(stat.S_IMODE(meta.st_mode) & 0o666, owner)


@dataclass(slots=True)  # not frozen, which doubles the time that one takes to make
class Claim:
    """A step that was stored: its number, and its open descriptor if the caller asked to keep it."""

    number: int
    fd: int | None


class Claimer:
    """Claims step numbers in one session's directory.

    It holds no state but the descriptor and what the file system can do, and may be used from any
    thread, by one at a time.
    """

    def __init__(self, session_fd: int, unnamed: bool) -> None:
        self._fd = session_fd
        self._unnamed = unnamed

    def claim(
        self,
        first: int,
        data: bytes,
        ownership: Ownership,
        *,
        sync: bool = False,
        keep: bool = False,
    ) -> Claim:
        """Store `data` as the first free number from `first` on (G15).

        With `sync` the contents are on disk before the name exists (G17). With `keep` the claim
        holds an open descriptor, for a later fdatasync. Raises `StoreError` with the errno of the
        system call that failed; nothing of the step is left then.
        """
        try:
            fd, temporary = self._complete_file(data, ownership, sync)
            try:
                number = self._link(fd, temporary, first)
            except BaseException:
                os.close(fd)
                raise
            finally:
                if temporary is not None:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temporary, dir_fd=self._fd)
        except OSError as error:
            raise from_os_error(error, "store a step") from error
        if keep:
            return Claim(number, fd)
        os.close(fd)
        return Claim(number, None)

    def _complete_file(
        self, data: bytes, ownership: Ownership, sync: bool
    ) -> tuple[int, str | None]:
        fd, temporary = self._new_file(ownership.mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if ownership.owner is not None:
                os.fchown(fd, *ownership.owner)
            if sync:
                os.fdatasync(fd)
        except BaseException:
            os.close(fd)
            if temporary is not None:
                os.unlink(temporary, dir_fd=self._fd)
            raise
        return fd, temporary

    def _new_file(self, mode: int) -> tuple[int, str | None]:
        if self._unnamed:
            try:
                return os.open(
                    ".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=self._fd
                ), None
            except OSError as error:
                if error.errno not in _NO_UNNAMED or _is_gone(self._fd):
                    raise
                self._unnamed = False
        temporary = f".stepfs-{secrets.token_hex(8)}.tmp"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(temporary, flags, mode, dir_fd=self._fd), temporary

    def _link(self, fd: int, temporary: str | None, first: int) -> int:
        number = first
        while number <= NUMBER_MAX:
            name = step_name(number)
            try:
                if temporary is None:
                    os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=self._fd, follow_symlinks=True)
                else:
                    os.link(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except FileExistsError:
                # The reply to a link over a network can be lost: the name may be this very file.
                if temporary is not None and self._is_same(fd, name):
                    return number
                number += 1
            except PermissionError:
                # sshfs answers EPERM where the name exists.
                if temporary is None or not is_regular(name, self._fd):
                    raise
                number += 1
            else:
                return number
        raise StoreError(
            errno.EOVERFLOW, "numbers-used-up", "the session has no free step number left"
        )

    def move(self, number: int, first: int, data: bytes) -> int | None:
        """Move step `number` to the first free one from `first` on, if it still holds `data` (G16).

        The new number, or None if the step is another's by now; it is left where it was then.
        Raises `StoreError` where the file system cannot move without replacing.
        """
        old = step_name(number)
        try:
            target = self._rename(old, first)
            if read_step(step_name(target), self._fd) == data:
                return target
            rename_new(step_name(target), old, self._fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise from_os_error(error, f"move {old}") from error
        return None

    def _rename(self, old: str, first: int) -> int:
        number = first
        while True:
            try:
                rename_new(old, step_name(number), self._fd)
            except FileExistsError:
                number += 1
            else:
                return number

    def _is_same(self, fd: int, name: str) -> bool:
        try:
            there = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))


def _is_gone(directory_fd: int) -> bool:
    return os.fstat(directory_fd).st_nlink == 0


def sync_steps(session_fd: int, claims: Iterable[int], whole: bool) -> None:
    """Make steps durable, contents before names (G17). Raises `OSError`.

    `claims` are open descriptors of new steps. With `whole` there were more of them: everything on
    the file system is written in one go, which costs less than many steps one by one.
    """
    if whole:
        sync_filesystem(session_fd)
        return
    for fd in claims:
        os.fdatasync(fd)
    os.fsync(session_fd)
