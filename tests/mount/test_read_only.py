"""`-o ro`: everything can be read, and nothing changes in the store (G22)."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.mounted import Mount
from tests.support.stores import StoreOnDisk, entry

Mounts = Callable[..., Mount]


@pytest.mark.guarantee("G22a")
def test_a_read_only_mount_reads_everything_and_changes_nothing(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    (store.path / ".new.0123456789abcdef").mkdir()
    mounted = mount("ro")
    at = mounted.path / session.slug
    before = {path: status(path) for path in store.path.rglob("*")}
    assert (at / "history.jsonl").read_bytes() == entry("one") + b"\n"
    assert json.loads((at / "meta.json").read_text()) == session.meta()
    session.add(entry("two"))
    assert (at / "history.jsonl").read_bytes().endswith(entry("two") + b"\n")
    changes: dict[str, Callable[[], object]] = {
        "append": lambda: (at / "append").open("ab"),
        "compact": lambda: (at / "compact").open("wb"),
        "meta.json": lambda: (at / "meta.json").open("r+b"),
        "create": lambda: (mounted.path / ".stepfs/create").open("r+b"),
        "view": lambda: (at / "history.jsonl").open("ab"),
        "mkdir": lambda: (mounted.path / "crab_tg-42_2").mkdir(),
        "rmdir": lambda: at.rmdir(),
        "unlink": lambda: (at / "append").unlink(),
        "rename": lambda: at.rename(mounted.path / "crab_tg-42_3"),
        "touch": lambda: (at / "x").touch(),
        "utime": lambda: os.utime(at / "append"),
        "chmod": lambda: (at / "append").chmod(0o600),
        "truncate": lambda: os.truncate(at / "append", 0),
    }
    for name, change in changes.items():
        with pytest.raises(OSError) as refused:
            change()
        assert refused.value.errno == errno.EROFS, name
    before.pop(session.path)  # where a step was added
    assert {path: status(path) for path in before} == before


def status(path: Path) -> tuple[int, ...]:
    """All that stat returns but the access time, which the test's own listing changes."""
    found = path.lstat()
    return (found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
