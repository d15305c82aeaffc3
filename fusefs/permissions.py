"""Permission checks that the kernel cannot make."""

from __future__ import annotations

import contextlib
import stat

from fusefs.failures import Caller
from storage.store import AnyStatus


def may_change(directory: AnyStatus, caller: Caller) -> bool:
    """Whether the caller may create and remove files in a directory: write and search it (G21)."""
    return _may(directory, 0o3, caller)


def may_read(directory: AnyStatus, meta: AnyStatus, caller: Caller) -> bool:
    """Whether the caller may read a session: search its directory and read its meta (G21)."""
    return _may(directory, 0o1, caller) and _may(meta, 0o4, caller)


def _may(found: AnyStatus, asked: int, caller: Caller) -> bool:
    """Whether a file's mode grants the caller the permission bits `asked`."""
    if caller.uid == 0:
        return True
    bits = stat.S_IMODE(found.st_mode)
    if caller.uid == found.st_uid:
        bits >>= 6
    elif found.st_gid == caller.gid or found.st_gid in _groups(caller.pid):
        bits >>= 3
    return bits & asked == asked


def _groups(pid: int) -> set[int]:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("Groups:"):
                return set(map(int, line.split()[1:]))
    return set()
