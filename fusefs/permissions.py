"""What a caller may do, where the kernel cannot know to ask."""

from __future__ import annotations

import contextlib
import os
import stat

from fusefs.failures import Caller


def may_change(directory: os.stat_result, caller: Caller) -> bool:
    """Whether the caller may make and remove files in a directory: write and enter it (G21)."""
    if caller.uid == 0:
        return True
    bits = stat.S_IMODE(directory.st_mode)
    if caller.uid == directory.st_uid:
        return bits & 0o300 == 0o300
    if directory.st_gid == caller.gid or directory.st_gid in _groups(caller.pid):
        return bits & 0o030 == 0o030
    return bits & 0o003 == 0o003


def _groups(pid: int) -> set[int]:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("Groups:"):
                return set(map(int, line.split()[1:]))
    return set()
