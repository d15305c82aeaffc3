"""Deleting a session: all of it, nothing else, even while others still add to it (G11)."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from storage import deletion
from storage.deletion import delete
from storage.session.tombstone import TOMBSTONE
from storage.store import Store
from storage.sweep import sweep
from tests.support.commands import until
from tests.support.sessions import put_session, refused


@pytest.fixture
def store(opened_store: Store) -> Store:
    return opened_store


def test_delete_removes_all_below_and_follows_no_symlink(store: Store, root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"x")
    session = put_session(root, "a_b_1")
    (session / "step-000001").write_bytes(b"{}")
    (session / "step-000002").symlink_to(outside)
    (session / "deep" / "er").mkdir(parents=True)
    (session / "deep" / "link").symlink_to(outside / "kept")
    os.mkfifo(session / "deep" / "fifo")
    delete(store, "a_b_1", sync=True)
    assert os.listdir(root) == []
    assert os.listdir(outside) == ["kept"]


def test_deleting_something_other_than_a_session_changes_nothing(store: Store, root: Path) -> None:
    target = put_session(root.parent, "elsewhere")
    (root / "a_b_1").symlink_to(target)
    (root / "a_b_2").mkdir()
    for slug in ("a_b_1", "a_b_2", "a_b_3"):
        refused(errno.ENOENT, delete, store, slug, sync=False)
    assert (target / "meta").exists()
    assert sorted(os.listdir(root)) == ["a_b_1", "a_b_2"]


def test_delete_goes_on_while_others_put_files_in(store: Store, root: Path) -> None:
    session = put_session(root, "a_b_1")
    directory = os.open(session, os.O_RDONLY)
    ended = threading.Event()

    def append() -> None:
        for number in range(100_000):
            if ended.is_set():
                return
            try:
                name = f"step-{number:06}"
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=directory))
            except FileNotFoundError:
                return

    writer = threading.Thread(target=append)
    writer.start()
    try:
        until(lambda: len(os.listdir(session)) > 10)
        delete(store, "a_b_1", sync=False)
        assert store.names() == []
    finally:
        ended.set()
        writer.join()
        os.close(directory)
    sweep(store)
    assert os.listdir(root) == []


@pytest.mark.guarantee("G20b")
def test_on_a_far_store_a_tombstone_stays_while_clients_may_cache_the_name(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything else goes first: a client with the directory open finds no meta, and a tombstone."""
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        (hidden,) = os.listdir(root)
        assert os.listdir(root / hidden) == [TOMBSTONE]

    monkeypatch.setattr(store, "near", False)
    monkeypatch.setattr(time, "sleep", sleep)
    put_session(root, "a_b_1")
    (root / "a_b_1" / "step-000001").write_bytes(b"{}")
    delete(store, "a_b_1", sync=False)
    assert os.listdir(root) == []
    assert [0 < seconds <= deletion.BURIED_SECONDS for seconds in waited] == [True]


def test_what_cannot_be_removed_is_logged_and_left_to_a_sweep(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_args: object, **_how: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    put_session(root, "a_b_1")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", failing)
        delete(store, "a_b_1", sync=False)
    (hidden,) = os.listdir(root)
    assert [hidden in record.message for record in caplog.records] == [True]
    assert store.names() == []
    assert sweep(store) == 1
    assert os.listdir(root) == []
