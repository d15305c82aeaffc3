"""After a busy life a mount holds no more resources than at the start."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import select
import subprocess
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import pytest

from fusefs.session.pool import OPEN_SESSIONS
from tests.support.commands import until
from tests.support.mounted import Mount
from tests.support.stores import StoreOnDisk, compaction, entry

Mounting = Callable[..., Mount]
SESSIONS = 12
ROUNDS = 3
IDLE_THREADS = 10.0
"""Seconds after which an idle thread ends."""
REST = 20.0
"""Seconds within which an unused server becomes idle."""


@dataclass(frozen=True)
class Held:
    """The resources that a server holds."""

    descriptors: int
    watches_counted: int
    """Watches by the server's count; `watches` is the kernel's."""
    watches: int
    live: int
    inodes: int
    open_files: int

    def is_within(self, other: Held) -> bool:
        """Whether no resource exceeds that of `other`."""
        return all(
            ours <= theirs for ours, theirs in zip(astuple(self), astuple(other), strict=True)
        )


def _held(mount: Mount) -> Held:
    status = json.loads((mount.path / ".stepfs/status.json").read_bytes())
    sessions = status["sessions"]
    return Held(
        len(os.listdir(f"/proc/{status['pid']}/fd")),
        sessions["watches"],
        _watches(status["pid"]),
        sessions["live"],
        status["inodes"],
        status["open_files"],
    )


def _watches(pid: int) -> int:
    """The number of inotify watches by the kernel's count."""
    count = 0
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since the listing
            count += len(re.findall(r"^inotify wd:", path.read_text(), re.MULTILINE))
    return count


def _at_rest(mount: Mount) -> Held:
    """What the server holds once it is idle and the numbers no longer change."""
    before = None
    while (now := _held(mount)) != before:
        before = now
        time.sleep(0.5)
    return now


def _threads(mount: Mount) -> int:
    assert mount.server is not None
    return len(os.listdir(f"/proc/{mount.server.pid}/task"))


def _forget() -> None:
    """Make the kernel drop unused names and inodes."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("2")


def _refused(act: Callable[[], object], *numbers: int) -> None:
    with pytest.raises(OSError) as refused:
        act()
    assert refused.value.errno in numbers


def _be_busy(mount: Mount, store: StoreOnDisk, round_: int) -> None:
    at = mount.path
    made = [store.session(f"busy_a_{round_ * 100 + n}", entry("one")) for n in range(SESSIONS)]
    for number, session in enumerate(made):
        here = at / session.slug
        lines = b"".join(entry(f"line {n}") + b"\n" for n in range(30))
        (here / "append").write_bytes(lines)
        open_view = (here / "history.jsonl").open("rb")
        (here / "compact").write_text(f"archive-{number}\n")
        session.add(entry("outside"))
        session.add(compaction("outside"))
        session.add(entry("last"))
        assert (here / "history.jsonl").read_bytes() == entry("last") + b"\n"
        assert open_view.read().count(b"\n") == 31
        poll = select.poll()
        poll.register(open_view, select.POLLPRI)
        assert poll.poll(0)
        open_view.close()
        (here / "meta.json").write_text('{"title":"busy"}')
        _refused(partial((here / "append").write_bytes, b"no step\n"), errno.EINVAL)
        _refused(partial((here / "meta.json").write_bytes, b"[]"), errno.EINVAL)
        _refused((here / "history.jsonl").unlink, errno.EPERM)
    with (at / ".stepfs/create").open("r+") as create:
        create.write('{"agent":"New","created_by":"one"}')
        create.flush()
        created = create.read().strip()
    subprocess.run(["sh", "-c", f"ls -lR '{at}' | cat"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["sh", "-c", f"tar cf - '{at}' | cat"], check=True, capture_output=True)
    subprocess.run(["grep", "-r", "nothing like that", at], check=False)
    for slug in [created, *(session.slug for session in made)]:
        os.rmdir(at / slug)


@pytest.mark.guarantee("G19b", "G23a")
def test_a_busy_life_leaves_no_descriptor_watch_inode_or_thread_behind(
    store: StoreOnDisk, mount: Mounting
) -> None:
    at = mount()
    at.expected += ["(EINVAL)", "(EPERM)"]
    _be_busy(at, store, 0)  # the first round creates what is kept for good
    _forget()
    until(lambda: _held(at).inodes <= 10)
    start, threads = _at_rest(at), _threads(at)
    for round_ in range(1, ROUNDS + 1):
        _be_busy(at, store, round_)
    _forget()
    assert start.live == 0
    until(lambda: _held(at).is_within(start), REST)
    until(lambda: _threads(at) <= threads, 2 * IDLE_THREADS)


@pytest.mark.guarantee("G23a")
def test_what_the_kernel_forgets_is_forgotten_but_of_the_sessions_that_are_live(
    store: StoreOnDisk, mount: Mounting
) -> None:
    """A live session keeps its inode numbers (G13), and the number of live sessions is bounded."""
    for number in range(OPEN_SESSIONS + 200):
        store.session(f"crab_a_{number}", entry("one"))
    at = mount()
    _forget()
    before = _held(at)
    for number in range(OPEN_SESSIONS + 200):
        assert (at.path / f"crab_a_{number}/history.jsonl").read_bytes()
    assert _held(at).inodes >= before.inodes + 2 * (OPEN_SESSIONS + 200)
    _forget()
    until(lambda: _held(at).inodes <= before.inodes + 2 * OPEN_SESSIONS, 20)
    assert 0 < _held(at).live <= OPEN_SESSIONS
