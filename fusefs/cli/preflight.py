"""Checks before a mount is tried; each failure says what to do about it."""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from fusefs import mounts as mountinfo
from fusefs.cli import stores
from fusefs.cli.unmount import detach, fusermount, privileged
from fusefs.config import MountOptions
from fusefs.exits import CommandError, Exit, command_line
from fusefs.mounts import Health, Places
from storage.errors import printable

DEVICE = "/dev/fuse"
CONFIGURATION = "/etc/fuse.conf"
AUTOFS = "autofs"


@contextmanager
def checked(store: str, mountpoint: str, options: MountOptions) -> Iterator[Places]:
    """Check that `store` can be mounted at `mountpoint`, and clear a dead stepfs mount there.

    Within the context no other stepfs can start at the mountpoint. Raises `CommandError` (G18).
    """
    may_mount(options)
    _check_memory(options.memory)
    _check_order(store, mountpoint)
    places = Places(stores.located(store), mountinfo.located(mountpoint))
    clear_dead(places.mountpoint)
    with _claimed(places.mountpoint):
        _check_free(places.mountpoint)
        _check_apart(places)
        stores.check_contents(places.store)
        _check_empty(places.mountpoint)
        yield places


def may_mount(options: MountOptions) -> None:
    """Raise `CommandError` unless this process can mount with `options` at all."""
    if not os.path.exists(DEVICE):
        _refuse(Exit.PERMISSION, f"there is no {DEVICE}; load the kernel's module: modprobe fuse")
    if options.notify is not None and importlib.util.find_spec("coredis") is None:
        _refuse(Exit.PERMISSION, "option notify needs coredis: pip install 'stepfs[redis]'")
    if privileged():
        return
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        _refuse(Exit.PERMISSION, f"you may not open {DEVICE}; mount as root, or be given access")
    if fusermount() is None:
        _refuse(Exit.PERMISSION, "fusermount3 is not installed; install the package fuse3")
    if options.allow_other and not _others_allowed():
        _refuse(
            Exit.PERMISSION,
            f"option allow_other needs a line user_allow_other in {CONFIGURATION}, or root",
        )


def _others_allowed() -> bool:
    try:
        with open(CONFIGURATION, "rb") as configuration:
            return any(line.strip() == b"user_allow_other" for line in configuration)
    except OSError:
        return False


def _check_memory(path: str | None) -> None:
    if path not in (None, "none") and not os.path.exists(path):
        sentence = f"the memory {printable(path)} does not exist; without the option memory,"
        _refuse(Exit.USAGE, f"{sentence} the one beside the store is used")


def _check_order(store: str, mountpoint: str) -> None:
    """Refuse a store given as the mountpoint: the arguments are swapped.

    Does not look into what is mounted there already, above all not into an automount.
    """
    if mountinfo.top(mountinfo.located(mountpoint)) is not None:
        return
    if stores.holds_sessions(mountpoint) and not stores.holds_sessions(store):
        right = command_line("mount", mountpoint, store)
        sentence = f"the mountpoint {printable(mountpoint)} is a store of sessions"
        _refuse(Exit.MOUNTPOINT, f"{sentence}; were the two swapped? {right}")


def clear_dead(mountpoint: str) -> None:
    """Unmount what dead servers have left at `mountpoint`; mounts elsewhere are not touched.

    Raises `CommandError` if a live stepfs is mounted there, or a dead one cannot be unmounted.
    """
    shown = printable(mountpoint)
    while (found := mountinfo.top(mountpoint)) is not None and found.is_stepfs:
        health = mountinfo.health(mountpoint)
        if health is not Health.DEAD:
            answer = "" if health is Health.ALIVE else " but does not answer"
            _refuse(
                Exit.MOUNTPOINT,
                f"{printable(found.store)} is already mounted at {shown}{answer}; "
                f"unmount it first: {command_line('umount', mountpoint)}",
            )
        try:
            detach(mountpoint, lazy=True)
        except OSError as error:
            _refuse(
                Exit.PERMISSION,
                f"the mount at {shown} is dead and could not be cleared: {error.strerror}",
            )


@contextmanager
def _claimed(mountpoint: str) -> Iterator[None]:
    """Lock the mountpoint against another start; not an automount, which its mounter must not open."""
    if _is_automount(mountpoint):
        yield
        return
    try:
        descriptor = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        _refuse(Exit.MOUNTPOINT, _unusable(mountpoint, error))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        _refuse(Exit.MOUNTPOINT, f"another stepfs is just starting at {printable(mountpoint)}")
    finally:
        os.close(descriptor)


def _unusable(mountpoint: str, error: OSError) -> str:
    shown = printable(mountpoint)
    if error.errno == errno.ENOENT:
        return f"the mountpoint {shown} does not exist; make it: mkdir -p {shlex.quote(shown)}"
    if error.errno == errno.ENOTDIR:
        return f"the mountpoint {shown} is not a directory"
    return f"the mountpoint {shown} cannot be used: {error.strerror}"


def _is_automount(mountpoint: str) -> bool:
    found = mountinfo.top(mountpoint)
    return found is not None and found.kind == AUTOFS


def _check_free(mountpoint: str) -> None:
    """Another stepfs may have mounted here between the first check and the lock."""
    found = mountinfo.top(mountpoint)
    if found is not None and found.is_stepfs:
        _refuse(Exit.MOUNTPOINT, f"a stepfs has just been mounted at {printable(mountpoint)}")


def _check_apart(places: Places) -> None:
    """A mount inside its store would deadlock; a store below its mountpoint would be hidden."""
    store, mountpoint = printable(places.store), printable(places.mountpoint)
    if _is_in(places.mountpoint, places.store):
        _refuse(
            Exit.MOUNTPOINT,
            f"the mountpoint {mountpoint} is in the store {store}; use one outside of it",
        )
    if _is_in(places.store, places.mountpoint):
        _refuse(
            Exit.MOUNTPOINT,
            f"the store {store} is in the mountpoint {mountpoint}; use one outside of it",
        )


def _is_in(path: str, directory: str) -> bool:
    """Whether `path` is in `directory`, even if a bind mount shows that under another name."""
    whole = os.stat(directory)
    while True:
        if os.path.samestat(os.stat(path), whole):
            return True
        parent = os.path.dirname(path)
        if parent == path:
            return False
        path = parent


def _check_empty(mountpoint: str) -> None:
    shown = printable(mountpoint)
    if not _is_automount(mountpoint) and os.listdir(mountpoint):
        _refuse(Exit.MOUNTPOINT, f"the mountpoint {shown} is not empty; use an empty directory")
    if not privileged() and not os.access(mountpoint, os.W_OK):
        _refuse(
            Exit.PERMISSION,
            f"you may not mount at {shown}; use a directory that you may write to",
        )


def _refuse(code: Exit, sentence: str) -> NoReturn:
    raise CommandError(code, sentence)
