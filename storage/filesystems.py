"""What kind of file system a directory is on, and what can be relied on there."""

from __future__ import annotations

from typing import Final

LOCAL: Final = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "f2fs", "zfs", "overlay", "bcachefs"}
)
"""Where every change is made through this kernel: inotify sees it, and unnamed files can be linked."""


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


def is_local(fd: int) -> bool:
    """Whether `fd` is on a file system of which this kernel sees every change."""
    return filesystem_type(fd) in LOCAL
