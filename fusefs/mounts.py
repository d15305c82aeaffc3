"""What is mounted where, found without touching it.

A mount whose server has died answers every call with an error, and one whose server hangs answers
none: so the kernel's own table is read, and a mount is only ever touched from a process that can
be left behind.
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
    """One line of the kernel's table: `number` is the device's minor, as under /sys/fs/fuse."""

    mountpoint: str
    kind: str
    source: str
    number: int

    @property
    def is_stepfs(self) -> bool:
        return self.kind == STEPFS

    @property
    def store(self) -> str:
        """The path of a mounted store, which its source tells with other than ASCII escaped."""
        from urllib.parse import unquote_to_bytes  # takes milliseconds to load

        return os.fsdecode(unquote_to_bytes(self.source))


class Health(Enum):
    """How a mount answers: at once, with the error of a server that has gone, or not at all."""

    ALIVE = "alive"
    DEAD = "dead"
    HUNG = "hung"


def died(mountpoint: str) -> str:
    """What is said of a mount whose server has died, and what to do about it."""
    clear = command_line("umount", mountpoint)
    return f"the server of {printable(mountpoint)} has died; clear the mount: {clear}"


def mounts(table: str = TABLE) -> list[Mount]:
    """Every mount that this process sees; of several at one place the last one is shown.

    `table` may be that of another process. Raises `OSError` where it may not be read.
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
    """The mount that is shown at the absolute path `mountpoint`, None if there is none."""
    found = None
    for mount in mounts():
        if mount.mountpoint == mountpoint:
            found = mount
    return found


def holder_elsewhere(number: int) -> int | None:
    """A process of another mount namespace in which the device `number` is mounted still.

    None where there is none, as far as /proc tells.
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
    """The innermost stepfs mount of `among` that the absolute `path` is in or at."""
    holding = [m for m in among if m.is_stepfs and (path + "/").startswith(m.mountpoint + "/")]
    return max(holding, key=lambda mount: len(mount.mountpoint), default=None)


def _below(path: str) -> Mount | None:
    """The one stepfs mount in the directory `path`, None if there is none or several."""
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

    Its last part is not touched when something is mounted there.
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

    A child process asks, since a call into a hung mount may be unkillable. `statvfs` is what the
    kernel never answers from its caches.
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
