"""Long work on one session does not make users of other sessions wait.

`tests/faults/test_bounded_work.py` covers long writes and held locks.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import until
from tests.support.daemon import Daemon
from tests.support.memories import database, replace
from tests.support.mounted import Mount
from tests.support.probe import undisturbed
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry

Mounting = Callable[..., Mount]
OTHER, BUSY = "crab_tg-42_1", "mallory_tg-1_1"
MEMORY_ENTRIES = 50_000
STORED_STEPS = 8_192
DELETED_STEPS = 20_000
LONG_STEP, LONG_STEPS = 64 << 10, 400
SPOOLED_BYTES = 16 << 20


@pytest.fixture
def other(store: StoreOnDisk) -> SessionOnDisk:
    return store.session(OTHER, *(entry(f"line {number}") for number in range(20)))


@pytest.mark.guarantee("G19c", "G2c")
def test_nobody_waits_for_a_memory_of_many_entries_that_is_replaced_all_the_time(
    store: StoreOnDisk, mount: Mounting, other: SessionOnDisk
) -> None:
    store.session(BUSY, entry("a"), compaction("name 7"), entry("b"))
    texts = {f"name {number}": f"what was said {number}" for number in range(MEMORY_ENTRIES)}
    path, data = store.path.parent / "memory.db", database(texts)
    replace(path, data)
    at = mount()
    shown = at.path / BUSY / "messages.jsonl"
    assert b"what was said 7" in shown.read_bytes()
    with undisturbed(
        at.path / other.slug / "history.jsonl", f"a memory of {MEMORY_ENTRIES} entries"
    ):
        for _ in range(6):
            replace(path, data)
            assert b"what was said 7" in shown.read_bytes()


@pytest.mark.guarantee("G19c", "G2c")
def test_a_long_archive_that_did_not_change_is_not_read_again_at_each_open(
    store: StoreOnDisk, mount: Mounting, other: SessionOnDisk
) -> None:
    store.session(BUSY, entry("a"), compaction("name"), entry("b"))
    text = "a long summary. " * (1 << 19)
    replace(store.path.parent / "memory.db", database({"name": text}))
    at = mount()
    shown = at.path / BUSY / "messages.jsonl"
    assert len(shown.read_bytes()) > len(text)
    with undisturbed(at.path / other.slug / "history.jsonl", "opens of a long archive"):
        began, opens = time.monotonic(), 0
        while time.monotonic() < began + 1:
            os.close(os.open(shown, os.O_RDONLY))
            opens += 1
    assert opens > 200, "each open read the archive"


@pytest.mark.guarantee("G16d", "G19c")
def test_nobody_waits_while_thousands_of_remembered_steps_are_checked_again(
    store: StoreOnDisk, mount: Mounting, other: SessionOnDisk
) -> None:
    """A daemon's session with many steps of the mount's own; events are lost repeatedly."""
    store.session(BUSY, entry("a"))
    at = mount()
    with (at.path / BUSY / "append").open("wb") as file:
        file.write(b"".join(entry(f"{number}") + b"\n" for number in range(STORED_STEPS)))
    assert at.server is not None
    with undisturbed(at.path / other.slug / "history.jsonl", "remembered steps looked at again"):
        for _ in range(5):
            subprocess.run(["kill", "-HUP", str(at.server.pid)], check=True)  # like lost events
            (at.path / BUSY / "log.jsonl").stat()
            time.sleep(0.2)
    lines = (at.path / BUSY / "log.jsonl").read_bytes().count(b"\n")
    assert lines == STORED_STEPS + 1


@pytest.mark.guarantee("G11d", "G19c")
def test_nobody_waits_while_the_files_of_a_large_session_are_removed(
    store: StoreOnDisk, mount: Mounting, other: SessionOnDisk
) -> None:
    """Also looks up names that are not cached: those lookups wait for an rmdir in progress."""
    store.session(BUSY, *[entry("x")] * DELETED_STEPS)
    at = mount()
    fresh = [store.session(f"fresh_tg-1_{number}", entry("y")).slug for number in range(20)]
    assert (at.path / BUSY / "log.jsonl").stat().st_size > DELETED_STEPS
    with undisturbed(at.path / other.slug / "history.jsonl", f"rmdir of {DELETED_STEPS} steps"):
        (at.path / BUSY).rmdir()
        (hidden,) = store.path.glob(".*")
        assert len(os.listdir(hidden)) > DELETED_STEPS // 2, "rmdir waited for the files"
        for slug in fresh:
            assert (at.path / slug / "history.jsonl").read_bytes()
        until(lambda: not hidden.exists())


def spooled_bytes(mount: Mount) -> int:
    """Bytes that the server keeps in unnamed files."""
    assert mount.server is not None
    opened = Path(f"/proc/{mount.server.pid}/fd")
    return sum(os.stat(fd).st_size for fd in opened.iterdir() if "/stepfs-" in os.readlink(fd))


@pytest.mark.guarantee("G13c", "G19c")
def test_nobody_waits_while_text_of_an_open_file_is_spooled_and_read_back(
    store: StoreOnDisk, mount: Mounting, other: SessionOnDisk
) -> None:
    long = store.session(BUSY, *[entry("x" * LONG_STEP)] * LONG_STEPS)
    whole = b"".join(step + b"\n" for step in long.steps())
    at = mount("cache=1M")
    with undisturbed(at.path / other.slug / "history.jsonl", "text that is spooled"):
        with (at.path / BUSY / "history.jsonl").open("rb", buffering=0) as file:
            assert spooled_bytes(at) > SPOOLED_BYTES
            long.add(compaction("name"))
            for _ in range(3):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                file.seek(0)
                assert file.read() == whole
        assert (at.path / BUSY / "history.jsonl").read_bytes() == b""


@pytest.mark.guarantee("G16d", "G19c")
def test_nobody_waits_while_the_texts_of_long_steps_are_spooled_and_stored_again(
    store: StoreOnDisk, mount: Mounting, other: SessionOnDisk
) -> None:
    session = store.session(BUSY)
    at = mount("sync=never")
    reference = Daemon(store.path)
    reference.store_step(BUSY, entry("daemon"))
    line = entry("x" * LONG_STEP)
    with undisturbed(at.path / other.slug / "history.jsonl", "texts of steps that are spooled"):
        with (at.path / BUSY / "append").open("wb") as file:
            for _ in range(LONG_STEPS):
                file.write(line + b"\n")
        assert spooled_bytes(at) > SPOOLED_BYTES
        for _ in range(LONG_STEPS // 2):
            reference.store_step(BUSY, entry("daemon"))
        until(lambda: session.numbers()[-1] > 1000 and steps_of(session, line) == LONG_STEPS)


def steps_of(session: SessionOnDisk, text: bytes) -> int:
    """The number of steps with that text; 0 while one is being moved."""
    try:
        return session.steps().count(text)
    except FileNotFoundError:
        return 0
