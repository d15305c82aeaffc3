"""Unmounts: `stepfs umount`, and the clearing of dead mounts."""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fusefs.cli.status import read
from fusefs.exits import CommandError, Exit, command_line
from fusefs.mounts import Mount, holder_elsewhere, stepfs_mountpoint, top
from storage.errors import printable

DESCRIPTION = """\
Unmount MOUNTPOINT and wait until its server has finished its work. A mount in use is refused, and
its users are named; --lazy detaches it at once, and its server ends when the last user leaves."""

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
CAP_SYS_ADMIN = 21
PLACES = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
FUSERMOUNT_SECONDS = 30
SERVER_SECONDS = 60
ELSEWHERE_SECONDS = 1.0
"""After this time, check whether another mount namespace still holds the mount."""
LOOK_SECONDS = 0.05
NAMED_USERS = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments: MOUNTPOINT, and whether to unmount it even if it is in use."""
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument("-l", "--lazy", action="store_true", help="even if it is in use")


def run(asked: argparse.Namespace) -> int:
    """Unmount and wait for the server. Raises `CommandError`."""
    command(asked.mountpoint, lazy=asked.lazy)
    return Exit.OK


def privileged() -> bool:
    """Whether this process may mount and unmount without fusermount3 (CAP_SYS_ADMIN)."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)
    return False


def fusermount() -> str | None:
    """The path of fusermount3, even if PATH is nearly empty; None if it is not installed."""
    return shutil.which("fusermount3", path=os.environ.get("PATH", "") + ":" + PLACES)


def detach(mountpoint: str, *, lazy: bool) -> None:
    """Unmount the topmost mount at the absolute path `mountpoint`.

    `lazy` detaches it at once even if it is in use. Raises `OSError`: EBUSY if it is in use.
    """
    if privileged():
        _umount2(mountpoint, UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0))
    else:
        _fusermount(mountpoint, "-uz" if lazy else "-u")


def _umount2(mountpoint: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    parent, name = os.path.split(mountpoint)
    directory = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Relative to the opened parent, so that nobody can redirect the path in the meantime.
        inside = f"/proc/self/fd/{directory}"
        if os.readlink(inside) != parent:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), mountpoint)
        failed = libc.umount2(os.fsencode(f"{inside}/{name}"), flags) != 0
    finally:
        os.close(directory)
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), mountpoint)


def _fusermount(mountpoint: str, how: str) -> None:
    helper = fusermount()
    if helper is None:
        raise OSError(errno.EPERM, "fusermount3 is not installed", mountpoint)
    done = subprocess.run(
        [helper, how, "--", mountpoint],
        env={"PATH": PLACES, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=FUSERMOUNT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        number = errno.EBUSY if "busy" in done.stderr else errno.EPERM
        raise OSError(number, done.stderr.strip() or os.strerror(number), mountpoint)


def command(path: str, *, lazy: bool) -> None:
    """`stepfs umount`: returns when the mount is gone and its server has finished its work.

    With `lazy` the server goes on for those who still use the mount. Raises `CommandError`.
    """
    mountpoint = stepfs_mountpoint(path)
    mount = top(mountpoint)
    os.chdir("/")  # our own working directory must not keep the mount busy
    with _server_of(mountpoint) as server:
        try:
            detach(mountpoint, lazy=lazy)
        except OSError as error:
            raise CommandError(Exit.FAILED, _refusal(mountpoint, error)) from None
        if server is not None and mount is not None and not lazy:
            _wait(server, mount)


@contextmanager
def _server_of(mountpoint: str) -> Iterator[int | None]:
    """A pidfd of the process that serves `mountpoint`; None if it cannot be determined."""
    pid = _server_pid(mountpoint)
    if pid is None:
        yield None
        return
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield descriptor if _has_fuse_open(pid) else None
    finally:
        os.close(descriptor)


def _server_pid(mountpoint: str) -> int | None:
    try:
        pid = read(mountpoint).get("pid")
    except CommandError:
        return None
    return pid if isinstance(pid, int) and pid > 0 else None


def _has_fuse_open(pid: int) -> bool:
    return any(target == "/dev/fuse" for target in _opened(pid))


def _wait(server: int, mount: Mount) -> None:
    poll = select.poll()
    poll.register(server, select.POLLIN)
    began = time.monotonic()
    look_elsewhere = True
    while not poll.poll(LOOK_SECONDS * 1000):
        if _has_ended_but_for_calls(server):
            return
        waited = time.monotonic() - began
        if look_elsewhere and waited >= ELSEWHERE_SECONDS:
            look_elsewhere = False
            _check_elsewhere(mount)
        if waited >= SERVER_SECONDS:
            raise CommandError(
                Exit.FAILED,
                f"{printable(mount.mountpoint)} is unmounted, but its server has not ended "
                f"after {SERVER_SECONDS} s",
            )


def _check_elsewhere(mount: Mount) -> None:
    """Raise `CommandError` if another mount namespace, such as a container's, keeps the server alive."""
    pid = holder_elsewhere(mount.number)
    if pid is not None:
        raise CommandError(
            Exit.FAILED,
            f"{printable(mount.mountpoint)} is unmounted here, but its server goes on: the mount"
            f" namespace of {_command_name(str(pid))} (pid {pid}) still holds it",
        )


def _has_ended_but_for_calls(server: int) -> bool:
    """Whether a process has exited except for threads that are stuck in calls to the store."""
    try:
        with open(f"/proc/self/fdinfo/{server}", "rb") as about:
            pid = next(int(line.split()[1]) for line in about if line.startswith(b"Pid:"))
        with open(f"/proc/{pid}/stat", "rb") as status:
            return status.read().rpartition(b") ")[2][:1] == b"Z"
    except (OSError, StopIteration, ValueError):
        return False


def _refusal(mountpoint: str, error: OSError) -> str:
    shown = printable(mountpoint)
    if error.errno != errno.EBUSY:
        return f"could not unmount {shown}: {error.strerror}"
    users = ", ".join(_users(mountpoint)) or "a process that is not yours"
    lazily = command_line("umount", "-l", mountpoint)
    return f"{shown} is in use by {users}; leave it, or unmount it lazily: {lazily}"


def _users(mountpoint: str) -> list[str]:
    """The processes that have their directory or open files in the mount, as far as /proc shows."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        places = [
            *_linked(f"/proc/{name}/cwd"),
            *_linked(f"/proc/{name}/root"),
            *_opened(int(name)),
        ]
        if any((place + "/").startswith(mountpoint + "/") for place in places):
            who = "the shell you are in" if int(name) == os.getppid() else _command_name(name)
            found.append(f"{who} (pid {name})")
    more = len(found) - NAMED_USERS
    return found if more <= 0 else [*found[:NAMED_USERS], f"{more} more"]


def _opened(pid: int) -> list[str]:
    directory = f"/proc/{pid}/fd"
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return [target for name in names for target in _linked(f"{directory}/{name}")]


def _linked(path: str) -> list[str]:
    try:
        return [os.readlink(path)]
    except OSError:
        return []


def _command_name(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", "rb") as comm:
            return printable(comm.read().rstrip(b"\n"))
    except OSError:
        return "a process"
