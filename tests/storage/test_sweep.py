"""A sweep clears what crashes left, and nothing that is in use (G11)."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from storage import posix as files
from storage.creation import create_next
from storage.session import meta_lock, meta_update
from storage.store import Store
from storage.sweep import ABANDONED_SECONDS, sweep
from tests.support.sessions import put_session


@pytest.fixture
def store(opened_store: Store) -> Store:
    return opened_store


def test_sweep_clears_what_crashes_left(store: Store, root: Path) -> None:
    session = put_session(root, "a_b_1")
    put_session(root, ".new.0123456789abcdef")
    put_session(root, ".del.0123456789abcdef")
    (root / ".new.fedcba9876543210").mkdir()
    for name in meta_update.TEMPORARIES:
        (session / name).write_bytes(b"{")
    assert sweep(store) == 3
    assert os.listdir(root) == ["a_b_1"]
    assert os.listdir(session) == ["meta"]


def test_sweep_leaves_what_is_not_its_own(store: Store, root: Path) -> None:
    names = [".stepfs-lost", ".new.mine", ".del", ".git", "a_b_1"]
    for name in names:
        put_session(root, name)
    assert sweep(store) == 0
    assert sorted(os.listdir(root)) == sorted(names)


def test_sweep_leaves_what_is_still_being_made(store: Store, root: Path) -> None:
    making = put_session(root, ".new.0123456789abcdef")
    session = put_session(root, "a_b_1")
    (session / meta_update.ASIDE).write_bytes(b"{")
    locks = [
        os.open(making, os.O_RDONLY),
        os.open(session / meta_lock.LOCK, os.O_RDWR | os.O_CREAT),
    ]
    fcntl.flock(locks[0], fcntl.LOCK_EX)
    assert files.lock(locks[1])
    assert sweep(store) == 0
    assert sorted(os.listdir(root)) == [".new.0123456789abcdef", "a_b_1"]
    assert (session / meta_update.ASIDE).exists()
    for lock in locks:
        os.close(lock)
    assert sweep(store) == 1
    assert os.listdir(session) == ["meta"]


def test_creators_beside_a_sweeper_lose_nothing(store: Store, root: Path) -> None:
    ended = threading.Event()

    def sweep_on() -> None:
        while not ended.is_set():
            sweep(store)

    sweeper = threading.Thread(target=sweep_on)
    sweeper.start()
    try:
        made = [create_next(store, "a", "b", sync=False) for _ in range(300)]
    finally:
        ended.set()
        sweeper.join()
    assert sorted(os.listdir(root)) == sorted(made) == sorted(f"a_b_{n}" for n in range(1, 301))


def test_on_a_far_store_only_what_was_unchanged_for_long_counts_as_abandoned(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory lock says nothing about other hosts."""
    monkeypatch.setattr(store, "near", False)
    made = put_session(root, ".new.0123456789abcdef")
    assert sweep(store) == 0
    long_ago = time.time() - ABANDONED_SECONDS - 1
    os.utime(made, (long_ago, long_ago))
    assert sweep(store) == 1
    assert os.listdir(root) == []


def test_others_get_their_turn_while_a_large_store_is_swept(store: Store, root: Path) -> None:
    for number in range(1001):
        (root / f"a_b_{number}").mkdir()
    pauses: list[None] = []
    sweep(store, lambda: pauses.append(None))
    assert len(pauses) == 3
