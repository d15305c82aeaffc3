"""Checks that a path given as a store is one, and if not, suggests what was meant."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import Final, NoReturn

from fusefs import mounts as mountinfo
from fusefs.exits import CommandError, Exit, command_line
from storage.errors import printable

META: Final = "meta"
SESSIONS: Final = "sessions"
"""The name of the daemon's store directory."""
LOST_AND_FOUND: Final = "lost+found"
"""What an empty file system holds."""
LOOKED_AT: Final = 100
"""If a directory is not a store, at most this many of its subdirectories are searched for one."""

_DATABASE: Final = ".crmem"
_MAGIC: Final = b"CRMEM\0"


def checked(path: str) -> str:
    """The absolute path of the store at `path`, free of symlinks. It may hold no sessions yet.

    Raises `CommandError` if it is not a store, with a suggestion if there is a likely one.
    """
    real = located(path)
    check_contents(real)
    return real


def located(path: str) -> str:
    """As `checked`, whatever else than sessions a directory holds."""
    mount = mountinfo.around(mountinfo.located(path), mountinfo.mounts())
    if mount is not None:
        _refuse(
            f"{printable(path)} is in a mount, not a store: its store is {printable(mount.store)}"
        )
    _check_readable(path)
    real = os.path.realpath(path)
    if not holds_sessions(real):
        _check_what_was_meant(real)
    return real


def is_session(path: str) -> bool:
    """Whether a directory is a session: it holds a meta."""
    return os.path.isfile(os.path.join(path, META))


def holds_sessions(path: str) -> bool:
    """Whether a directory holds a session; False if it cannot be read."""
    return any(map(is_session, _directories(path)))


def _check_readable(path: str) -> None:
    shown = printable(path)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except FileNotFoundError:
        demo = f"make a sample: {command_line('demo', path)}"
        _refuse(f"the store {shown} does not exist; {demo}")
    except NotADirectoryError:
        if _is_database(path):
            _refuse(_of_a_database(path, os.path.dirname(os.path.abspath(path))))
        _refuse(f"the store {shown} is not a directory")
    except OSError as error:
        _refuse(f"the store {shown} cannot be read: {error.strerror}")


def _check_what_was_meant(path: str) -> None:
    """Refuse a directory without sessions if something else was probably meant."""
    shown = printable(path)
    if is_session(path):
        _refuse(f"{shown} is a session, not a store: give {printable(os.path.dirname(path))}")
    database = next(_databases(path), None)
    if database is not None:
        _refuse(_of_a_database(database, path))
    for inner in _likely(path):
        if holds_sessions(inner):
            _refuse(f"{shown} holds no session; did you mean {printable(inner)}?")
    for mount in mountinfo.mounts():
        if mount.is_stepfs and os.path.dirname(mount.mountpoint) == path:
            _refuse(
                f"{shown} holds no session, only a mount of {printable(mount.store)}: give that store"
            )


def check_contents(path: str) -> None:
    """Refuse, by `CommandError`, a directory that holds other things than sessions, and no session."""
    shown = printable(path)
    if not holds_sessions(path) and (other := _no_session_of(path)):
        _refuse(
            f"{shown} holds no session, but other things, such as {printable(other)}:"
            " give the directory that the sessions are in"
        )


def _no_session_of(path: str) -> str | None:
    """A name in a directory that no session can have; None in what may be a store without any yet."""
    from storage.formats.slug import is_ulid, parse_session

    names = sorted(name for name in os.listdir(path) if name[0] != "." and name != LOST_AND_FOUND)
    return next((name for name in names if not is_ulid(name) and not parse_session(name)), None)


def _likely(path: str) -> Iterator[str]:
    yield os.path.join(path, SESSIONS)
    at_mounts = {mount.mountpoint for mount in mountinfo.mounts()}
    for inner, _ in zip(_directories(path), range(LOOKED_AT), strict=False):
        if inner not in at_mounts:
            yield inner


def _of_a_database(path: str, beside: str) -> str:
    sentence = (
        f"{printable(path)} is a store of the daemon's newest form, which keeps all sessions in one"
        " database file and is not read yet"
    )
    old = os.path.join(beside, SESSIONS)
    if not holds_sessions(old):
        return sentence
    return f"{sentence}; older sessions are in {printable(old)}"


def _databases(path: str) -> Iterator[str]:
    for name in os.listdir(path):
        found = os.path.join(path, name)
        if _is_database(found):
            yield found


def _is_database(path: str) -> bool:
    if not path.endswith(_DATABASE):
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return is_file and os.read(descriptor, len(_MAGIC)) == _MAGIC
    finally:
        os.close(descriptor)


def _directories(path: str) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    yield entry.path
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            raise


def _refuse(sentence: str) -> NoReturn:
    raise CommandError(Exit.STORE, sentence)
