"""What the file system under a store can do: one value that all code consults (G26).

A store is *near* where every change to it is made through this kernel, so that inotify tells of it, and
*far* otherwise. Everything else is tried, in a hidden directory that is removed again. What one host
cannot try, since it takes two clients, `storage.check.peer` does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from dataclasses import asdict, dataclass
from typing import Any, Final

from storage import posix as files
from storage.errors import FULL, StoreError

NEAR_TYPES: Final = {
    "ext2": 0xEF53,
    "ext3": 0xEF53,
    "ext4": 0xEF53,
    "xfs": 0x58465342,
    "btrfs": 0x9123683E,
    "tmpfs": 0x01021994,
    "ramfs": 0x858458F6,
    "f2fs": 0xF2F52010,
    "zfs": 0x2FC12FC1,
    "overlay": 0x794C7630,
    "bcachefs": 0xCA451A4E,
}
"""Local file systems, with what statfs(2) calls them."""
NOT_EXCLUSIVE: Final = frozenset({"fuse.seaweedfs", "fuse.weed"})
"""File systems on which two hosts can both win a link to one name, though one host alone cannot."""
PROBE_PREFIX: Final = ".probe."
_NAMES: Final = {magic: name for name, magic in NEAR_TYPES.items()}
_PROBE: Final = b"what a file system can do"

_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What can be relied on in a store. Compared and printed as a value; never changes."""

    filesystem: str
    """Its type, such as `"ext4"` or `"fuse.glusterfs"`; `""` where nothing says."""
    near: bool
    """inotify tells of every change, and system calls are short."""
    reason: str
    """Why it is near or far, for people."""
    exclusive_links: bool
    """Exactly one of several links to one name succeeds; otherwise no step can be claimed (G15)."""
    whole_files: bool
    """A name that was linked shows all that was written and closed before."""
    locks: bool
    """An open file description's lock on a file excludes another's."""
    rename_noreplace: bool
    rename_exchange: bool
    unnamed_files: bool
    """`O_TMPFILE` makes files that can be linked and hold their contents after that."""

    @property
    def writable(self) -> bool:
        """Whether steps can be claimed here without doing harm."""
        return self.exclusive_links and self.whole_files

    def document(self) -> dict[str, Any]:
        """The answers, as `status.json` shows them."""
        return asdict(self)

    def require_writable(self, shown: str) -> None:
        """Raise StoreError EOPNOTSUPP where a store cannot be written to, and say what can be done."""
        if self.writable:
            return
        lacks = "links are not exclusive" if not self.exclusive_links else "files are not whole"
        sentence = (
            f"{lacks} on the file system of {shown} ({self.filesystem or 'of unknown type'}), so steps"
            " of several writers could be lost: mount it with -o ro to read it"
        )
        raise StoreError(errno.EOPNOTSUPP, "links-not-exclusive", sentence)


def known(store_fd: int) -> Capabilities:
    """What the type of the file system says that `store_fd` is on, without trying anything."""
    found, is_near, reason = _place(store_fd)
    exclusive = found not in NOT_EXCLUSIVE
    return Capabilities(found, is_near, reason, exclusive, True, True, is_near, is_near, is_near)


def probe(store_fd: int, *, write: bool) -> Capabilities:
    """Find out what the file system that the directory `store_fd` is on can do (G26).

    With `write` it is tried, in a hidden directory that is gone on return; where this process may not
    write, or the file system is read-only or full, its type decides. Raises OSError where what was made
    cannot be used at all.
    """
    expected = known(store_fd)
    if not write or not os.access(".", os.W_OK | os.X_OK, dir_fd=store_fd, effective_ids=True):
        return expected
    name = f"{PROBE_PREFIX}{files.token()}"
    try:
        os.mkdir(name, 0o700, dir_fd=store_fd)
    except OSError as error:
        if error.errno in FULL | {errno.EROFS, errno.EACCES, errno.EPERM}:
            return expected
        raise
    try:
        directory = files.open_directory(name, store_fd)
        try:
            return _tried(expected, directory)
        except OSError as error:
            if error.errno in FULL:
                return expected
            raise
        finally:
            for left in files.listing(directory):
                os.unlink(left, dir_fd=directory)
            os.close(directory)
    finally:
        os.rmdir(name, dir_fd=store_fd)


def _tried(expected: Capabilities, at: int) -> Capabilities:
    for name in "abx":
        files.write_new(name, _PROBE, at, 0o600, None, False)
    linked = _works(lambda: os.link("a", "c", src_dir_fd=at, dst_dir_fd=at))
    return Capabilities(
        expected.filesystem,
        expected.near,
        expected.reason,
        exclusive_links=linked and _is_exclusive(at) and expected.filesystem not in NOT_EXCLUSIVE,
        whole_files=linked and files.read_regular("c", at, len(_PROBE))[0] == _PROBE,
        locks=_locks_exclude(at),
        rename_noreplace=_works(lambda: files.rename_new("b", "d", at)),
        rename_exchange=_works(lambda: files.exchange("a", "x", at)),
        unnamed_files=_unnamed_files_hold(at),
    )


def _works(call: Any) -> bool:
    try:
        call()
    except OSError as error:
        if error.errno in FULL:
            raise
        return False
    return True


def _is_exclusive(at: int) -> bool:
    try:
        os.link("b", "c", src_dir_fd=at, dst_dir_fd=at)
    except OSError:  # EEXIST; EPERM from sshfs
        return os.path.samestat(*(os.stat(name, dir_fd=at) for name in "ac"))
    return False


def _locks_exclude(at: int) -> bool:
    with contextlib.ExitStack() as opened:
        mine, others = (os.open("a", os.O_RDWR | os.O_CLOEXEC, dir_fd=at) for _ in range(2))
        opened.callback(os.close, mine)
        opened.callback(os.close, others)
        return files.lock(mine) is True and files.lock(others) is False


def _unnamed_files_hold(at: int) -> bool:
    """JuiceFS opens one, links it, and loses what was written once it is closed."""
    try:
        descriptor = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=at)
        try:
            files.write_all(descriptor, _PROBE)
            os.link(f"/proc/self/fd/{descriptor}", "e", dst_dir_fd=at, follow_symlinks=True)
        finally:
            os.close(descriptor)
        return files.read_regular("e", at, len(_PROBE))[0] == _PROBE
    except OSError as error:
        if error.errno in FULL:
            raise
        return False


def _place(fd: int) -> tuple[str, bool, str]:
    """The type of the file system, whether it is near, and why."""
    found = filesystem_type(fd)
    if found in NEAR_TYPES:
        return found, True, f"{found} is a local file system: inotify tells of every change"
    if not found:
        magic = _magic(fd)
        found = _NAMES.get(magic, "")
        if found:
            return found, True, f"statfs calls it {found}, a local file system"
        return (
            found,
            False,
            f"its type is not known (statfs says {magic:#x}): no events are relied on",
        )
    return found, False, f"{found} may be changed on other hosts, of which inotify does not tell"


def filesystem_type(fd: int) -> str:
    """The type, such as `"ext4"`, of the file system that `fd` is on; `""` where /proc does not say."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
            mount_id = next(line.split()[1] for line in info if line.startswith("mnt_id:"))
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                if line.startswith(mount_id + " "):
                    return line.partition(" - ")[2].split(" ", 1)[0]
    except (OSError, StopIteration, IndexError):
        pass
    return ""


def is_near(fd: int) -> bool:
    """Whether `fd` is on a local file system: `Capabilities.near` of it, by one system call."""
    return _magic(fd) in _NAMES


def _magic(fd: int) -> int:
    """What statfs(2) calls the file system, which is known in a chroot without its mounts as well."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(fd, buffer) != 0:
        return 0
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
