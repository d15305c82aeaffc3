"""Compactions with a summary through a mount that ends, is killed or has no room: the memory gets the
summary before the history is cut, or nothing is compacted (G31)."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.mounted import Mount, mounted
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)
Mounts = Callable[..., Mount]
SUMMARY = "word " * 20_000


def compaction(name: str, summary: str = SUMMARY) -> bytes:
    """A line for `compact` with a summary."""
    return json.dumps({"archive_name": name, "summary": summary}).encode() + b"\n"


@contextmanager
def compacting(served: Mount, session: SessionOnDisk) -> Iterator[None]:
    """Compact as `one-0`, `one-1`, … one after the other until the mount is gone."""

    def compact() -> None:
        with suppress(OSError):  # the server ends
            for turn in range(100_000):
                path = served.path / session.slug / "compact"
                path.write_bytes(compaction(f"one-{turn}"))

    asking = threading.Thread(target=compact)
    asking.start()
    yield
    asking.join(20)
    assert not asking.is_alive()


def compacted(session: SessionOnDisk, memory: Path) -> int:
    """How often the session was compacted; each compaction must have its complete summary."""
    names = [json.loads(step)["archive_name"] for step in session.steps()[1:]]
    for name in names:
        assert (memory / "archives" / f"{name}.md").read_text() == SUMMARY.rstrip() + "\n"
    summaries = list((memory / "archives").glob("one-*.md"))
    assert len(names) <= len(summaries) <= len(names) + 1  # the last may lack its step
    return len(names)


def some(session: SessionOnDisk, more: int) -> None:
    """Wait until the session has `more` further steps."""
    wanted = len(session.numbers()) + more
    while len(session.numbers()) < wanted:
        pass


@pytest.mark.guarantee("G31c")
def test_a_server_that_is_killed_leaves_no_compaction_without_its_summary(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    for turn in range(4):
        session = store.session(f"crab_tg-{turn}_1", entry("before"))
        memory = tmp_path / f"memory{turn}"
        memory.mkdir()
        served = mount(f"memory={memory}", name=f"mnt{turn}", check=False)
        with compacting(served, session):
            some(session, 3 + turn)
            served.kill()
            subprocess.run(["umount", "-l", served.path], check=True, timeout=10)
        assert compacted(session, memory) >= 3
        with mounted(store.path, tmp_path, f"memory={memory}", name=f"again{turn}") as again:
            lead = (again.path / session.slug / "messages.jsonl").read_bytes().splitlines()[0]
            assert json.loads(lead)["content"] == SUMMARY.rstrip()


@pytest.mark.guarantee("G31c")
def test_an_unmount_leaves_no_compaction_without_its_summary(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    memory = tmp_path / "memory"
    session = store.session("crab_tg-42_1", entry("before"))
    served = mount()
    with compacting(served, session):
        some(session, 3)
        served.stop()
    assert compacted(session, memory) >= 3
    assert not [path.name for path in (memory / "archives").iterdir() if path.name[0] == "."]


@pytest.mark.guarantee("G31b", "G19a")
def test_a_summary_that_does_not_fit_compacts_nothing_and_is_taken_when_there_is_room(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(memory)]
    subprocess.run(small, check=True, timeout=10)
    try:
        session = store.session("crab_tg-42_1", entry("stays"))
        served = mount()
        served.expected.append("No space left")
        at = served.path / session.slug
        with pytest.raises(OSError) as refused:
            (at / "compact").write_bytes(compaction("one-0"))
        assert refused.value.errno == errno.ENOSPC
        told = json.loads(served.errors()[-1])
        assert (told["errno"], told["session"]) == ("ENOSPC", session.slug)
        assert (at / "history.jsonl").read_bytes() == entry("stays") + b"\n"
        assert session.steps() == [entry("stays")]
        assert os.listdir(memory / "archives") == []
        subprocess.run(["mount", "-o", "remount,size=1m", memory], check=True, timeout=10)
        (at / "compact").write_bytes(compaction("one-0"))
        assert compacted(session, memory) == 1
        served.stop()
    finally:
        subprocess.run(["umount", "-l", memory], check=True, timeout=10)
