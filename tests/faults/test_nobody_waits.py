"""Long work on one session: whoever uses another one meanwhile waits for none of it.

`tests/faults/test_bounded_work.py` has what is written, and what locks hold up.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.support.memories import database, replace
from tests.support.mounted import Mount
from tests.support.probe import undisturbed
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry

Mounting = Callable[..., Mount]
OTHER, BUSY = "crab_tg-42_1", "mallory_tg-1_1"
MEMORY_ENTRIES = 50_000
STORED_STEPS = 8_192


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
def test_nobody_waits_while_thousands_of_remembered_steps_are_looked_at_again(
    store: StoreOnDisk, mount: Mounting, other: SessionOnDisk
) -> None:
    """A daemon's session, many steps of the mount's own, and events that are lost again and again."""
    store.session(BUSY, entry("a"))
    at = mount()
    with (at.path / BUSY / "append").open("wb") as file:
        file.write(b"".join(entry(f"{number}") + b"\n" for number in range(STORED_STEPS)))
    assert at.server is not None
    with undisturbed(at.path / other.slug / "history.jsonl", "remembered steps looked at again"):
        for _ in range(5):
            subprocess.run(["kill", "-HUP", str(at.server.pid)], check=True)  # as lost events do
            (at.path / BUSY / "log.jsonl").stat()
            time.sleep(0.2)
    lines = (at.path / BUSY / "log.jsonl").read_bytes().count(b"\n")
    assert lines == STORED_STEPS + 1
