"""What is mounted where, found without touching the mounts.

A mount whose server has died answers every call with an error, and one whose server hangs never
answers. So this reads the kernel's mount table, and touches a mount only from a child process that can
be abandoned.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from fusefs.exits import CommandError, Exit, command_line
from storage.errors import printable

TABLE = "/proc/self/mountinfo"
STEPFS = "fuse.stepfs"
PATIENCE = 2.0
LINKS_FOLLOWED = 40
OCTAL_ESCAPE = re.compile(rb"\\([0-7]{3})")
DEAD_ERRORS = frozenset({errno.ENOTCONN, errno.ECONNABORTED})


class Places(NamedTuple):
    """The store and the mountpoint, absolute and free of symlinks."""

    store: str
    mountpoint: str


class Mount(NamedTuple):
    """A line of the kernel's mount table; `number` is the device's minor, as under /sys/fs/fuse."""

    mountpoint: str
    kind: str
    source: str
    number: int

    @property
    def is_stepfs(self) -> bool:
        return self.kind == STEPFS

    @property
    def store(self) -> str:
        """The path of a mounted store: the mount's source, percent-decoded."""
        from urllib.parse import unquote_to_bytes  # takes milliseconds to load

        return os.fsdecode(unquote_to_bytes(self.source))


class Health(Enum):
    """How a mount answers: normally, with the error of a dead server, or not at all."""

    ALIVE = "alive"
    DEAD = "dead"
    HUNG = "hung"


def died(mountpoint: str) -> str:
    """The message about a mount whose server has died, with the command that clears it."""
    clear = command_line("umount", mountpoint)
    return f"the server of {printable(mountpoint)} has died; clear the mount: {clear}"


def mounts(table: str = TABLE) -> list[Mount]:
    """All mounts that this process sees; of several at one mountpoint the last is visible.

    `table` may be another process's. Raises `OSError` if it cannot be read.
    """
    with open(table, "rb") as lines:
        return [_parsed(line) for line in lines]


def _parsed(line: bytes) -> Mount:
    place, _, what = line.partition(b" - ")
    _id, _parent, device, _root, mountpoint = place.split(b" ")[:5]
    kind, source = what.split(b" ")[:2]
    return Mount(
        mountpoint=_plain(mountpoint),
        kind=_plain(kind),
        source=_plain(source),
        number=int(device.partition(b":")[2]),
    )


def _plain(field: bytes) -> str:
    return os.fsdecode(OCTAL_ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), field))


def top(mountpoint: str) -> Mount | None:
    """The visible mount at the absolute path `mountpoint`; None if there is none."""
    found = None
    for mount in mounts():
        if mount.mountpoint == mountpoint:
            found = mount
    return found


def holder_elsewhere(number: int) -> int | None:
    """The pid of a process in another mount namespace where device `number` is still mounted.

    None if /proc shows no such process.
    """
    seen = {os.readlink("/proc/self/ns/mnt")}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace in seen:
                continue
            table = mounts(f"/proc/{pid}/mountinfo")
            seen.add(namespace)
            if any(mount.is_stepfs and mount.number == number for mount in table):
                return int(pid)
    return None


def around(path: str, among: Iterable[Mount]) -> Mount | None:
    """The innermost stepfs mount of `among` that contains the absolute `path`, or is mounted there."""
    holding = [m for m in among if m.is_stepfs and (path + "/").startswith(m.mountpoint + "/")]
    return max(holding, key=lambda mount: len(mount.mountpoint), default=None)


def _below(path: str) -> Mount | None:
    """The only stepfs mount in the directory `path`; None if there is none or several."""
    found = [m for m in mounts() if m.is_stepfs and os.path.dirname(m.mountpoint) == path]
    return found[0] if len(found) == 1 else None


def stepfs_mountpoint(path: str) -> str:
    """The absolute mountpoint of the stepfs mount at `path`; raises `CommandError`."""
    place = located(path)
    found = top(place)
    if found is not None and found.is_stepfs:
        return place
    near = around(place, mounts()) or _below(place)
    hint = f"; the mount is {printable(near.mountpoint)}" if near else ""
    raise CommandError(Exit.NOT_STEPFS, f"no stepfs is mounted at {printable(path)}{hint}")


def located(path: str) -> str:
    """`path` made absolute and free of symlinks, as the kernel's table names it.

    If something is mounted there, the mountpoint itself is not touched.
    """
    known = {mount.mountpoint for mount in mounts()}
    place = os.path.abspath(path)
    for _ in range(LINKS_FOLLOWED):
        parent, name = os.path.split(place)
        place = os.path.join(os.path.realpath(parent), name)
        if place in known or not os.path.islink(place):
            return place
        place = os.path.normpath(os.path.join(os.path.dirname(place), os.readlink(place)))
    return place


def health(mountpoint: str, patience: float = PATIENCE) -> Health:
    """How the mount at `mountpoint` answers within `patience` seconds.

    A child process makes the call, since a call into a hung mount may be unkillable. It is `statvfs`,
    which the kernel never answers from its caches.
    """
    pid = os.fork()
    if pid == 0:
        os._exit(_asked(mountpoint))
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(patience * 1000):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            return Health.HUNG
    finally:
        os.close(descriptor)
    _, status = os.waitpid(pid, 0)
    return Health.DEAD if os.waitstatus_to_exitcode(status) else Health.ALIVE


def _asked(mountpoint: str) -> int:
    try:
        os.statvfs(mountpoint)
    except OSError as error:
        return int(error.errno in DEAD_ERRORS)
    return 0
