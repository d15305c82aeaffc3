"""Resolves a PATH on the command line: a store, a mount of one, or a session in either."""

from __future__ import annotations

import os
from typing import NamedTuple, NoReturn

from fusefs import mounts as mountinfo
from fusefs.cli import stores
from fusefs.cli.stores import holds_sessions, is_session
from fusefs.exits import CommandError, Exit
from fusefs.mounts import Health
from storage.errors import printable

META_SHOWN = "meta.json"
HIDDEN = ".stepfs"
PATH_HELP = "a store, a mount, or a session in one (default: where you are, else the only mount)"


class Place(NamedTuple):
    """A store or mount at the absolute path `root`, or a session in it."""

    root: str
    session: str | None
    is_mount: bool

    @property
    def directory(self) -> str:
        """The session's directory, or the root."""
        return os.path.join(self.root, self.session) if self.session else self.root


def find(path: str | None) -> Place:
    """Resolve `path`, by default the working directory if in a store or mount, else the only mount.

    A file in a session stands for the session. Raises `CommandError`.
    """
    if path is not None:
        return _named(path)
    with_mounts = mountinfo.mounts()
    here = os.getcwd()
    if mountinfo.around(here, with_mounts) or is_session(here) or holds_sessions(here):
        return _named(here)
    live = [mount.mountpoint for mount in with_mounts if mount.is_stepfs]
    if len(live) == 1:
        return _named(live[0])
    reason = (
        "there are several mounts" if live else "there is no store here, and nothing is mounted"
    )
    raise CommandError(Exit.USAGE, f"which store? {reason}: give its path, or that of a mount")


def store_of(place: Place) -> str:
    """The store that a mount shows, from the kernel's mount table. Raises `CommandError`."""
    mount = mountinfo.around(place.root, mountinfo.mounts())
    if mount is None:
        raise CommandError(Exit.NOT_STEPFS, f"{printable(place.root)} is no longer mounted")
    return mount.store


def find_session(path: str) -> Place:
    """Resolve `path`, which must be a session. Raises `CommandError`."""
    place = find(path)
    if place.session is None:
        kind = "mount" if place.is_mount else "store"
        sentence = f"{printable(path)} is a {kind}: give a session in it; stepfs ls lists them"
        raise CommandError(Exit.NOT_STEPFS, sentence)
    return place


def find_root(path: str | None) -> Place:
    """Resolve `path`, which must be a whole store or mount. Raises `CommandError`."""
    place = find(path)
    if place.session is not None:
        sentence = f"{printable(place.directory)} is a session: give the store {place.root}"
        raise CommandError(Exit.NOT_STEPFS, sentence)
    return place


def _named(path: str) -> Place:
    absolute = mountinfo.located(path)
    mount = mountinfo.around(absolute, mountinfo.mounts())
    if mount is None:
        return _in_a_store(path, os.path.realpath(path))
    _check_alive(mount.mountpoint)
    first = os.path.relpath(absolute, mount.mountpoint).partition("/")[0]
    if first == HIDDEN and not os.path.lexists(absolute):
        _refuse(Exit.NOT_STEPFS, f"{printable(path)} does not exist")
    if first in (".", HIDDEN):
        return Place(mount.mountpoint, None, is_mount=True)
    if not _is_there(os.path.join(mount.mountpoint, first, META_SHOWN), path):
        _refuse(Exit.NOT_STEPFS, f"there is no session {printable(first)} in {mount.mountpoint}")
    return Place(mount.mountpoint, first, is_mount=True)


def _check_alive(mountpoint: str) -> None:
    health = mountinfo.health(mountpoint)
    if health is Health.DEAD:
        _refuse(Exit.NOT_STEPFS, mountinfo.died(mountpoint))
    if health is Health.HUNG:
        _refuse(Exit.FAILED, f"the server of {printable(mountpoint)} does not answer")


def _in_a_store(given: str, path: str) -> Place:
    if not _is_there(path, given):
        _refuse(Exit.STORE, f"{printable(given)} does not exist")
    session = path if os.path.isdir(path) else os.path.dirname(path)
    if is_session(session):
        root, slug = os.path.split(session)
        return Place(root, slug, is_mount=False)
    return Place(stores.checked(given), None, is_mount=False)


def _is_there(path: str, given: str) -> bool:
    """Whether `path` exists, which `given` stands for; refuses it if this user may not know."""
    try:
        os.lstat(path)
    except PermissionError:
        _refuse(Exit.STORE, f"you may not read {printable(given)}")
    except OSError:
        return False
    return True


def _refuse(code: Exit, sentence: str) -> NoReturn:
    raise CommandError(code, sentence)
