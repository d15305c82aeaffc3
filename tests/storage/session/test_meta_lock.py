"""The lock of a meta: who may take it, how long a caller waits, and what is left behind (G9)."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from storage import posix as files
from storage.errors import StoreError
from storage.session import meta, meta_lock
from storage.session.meta_lock import LOCK, locked
from storage.session.meta_update import update
from tests.support.metas import FULL, compact, patching


@pytest.fixture
def session(tmp_path: Path) -> Path:
    (tmp_path / "a_b_1").mkdir()
    (tmp_path / "a_b_1" / "meta").write_bytes(compact(FULL))
    return tmp_path / "a_b_1"


def held(session: Path) -> int:
    """Lock the meta as another program does; closing the descriptor releases it."""
    lock = os.open(session / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    assert files.lock(lock)
    return lock


@pytest.mark.guarantee("G9c")
def test_waiting_for_a_lock_that_is_never_released_is_bounded(
    session: Path, session_fd: int
) -> None:
    lock = held(session)
    for seconds in (0, 0.05):
        with pytest.raises(StoreError) as caught:
            update(session_fd, patching({"title": "x"}), sync=False, patience_seconds=seconds)
        assert caught.value.errno == errno.EBUSY
    assert (session / "meta").read_bytes() == compact(FULL)
    os.close(lock)
    update(session_fd, patching({"title": "x"}), sync=False)
    assert os.listdir(session) == ["meta"]


@pytest.mark.guarantee("G9c")
def test_permission_to_read_a_session_does_not_suffice_to_lock_it(
    session: Path, session_fd: int
) -> None:
    fcntl.flock(session_fd, fcntl.LOCK_EX)
    about = os.open(session / "meta", os.O_RDONLY)
    fcntl.flock(about, fcntl.LOCK_EX)
    modes = []

    def change(value: dict[str, Any]) -> dict[str, Any]:
        modes.append((session / LOCK).stat().st_mode & 0o777)
        return meta.merged(value, {"title": "mine"})

    for mode in (0o755, 0o775, 0o777):
        session.chmod(mode)
        update(session_fd, change, sync=False, patience_seconds=0)
    os.close(about)
    assert modes == [0o600, 0o660, 0o666]


@pytest.mark.guarantee("G9c")
def test_one_contender_at_a_time_holds_the_lock_and_the_last_removes_the_file(
    session: Path, session_fd: int
) -> None:
    inside, most = 0, []

    def work() -> None:
        nonlocal inside
        for _ in range(50):
            with locked(session_fd, 10):
                inside += 1
                most.append(inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 200
    assert os.listdir(session) == ["meta"]


def test_on_a_far_store_the_lock_file_is_never_removed(
    session: Path, session_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta_lock, "is_near", lambda _fd: False)
    for _ in range(2):
        with locked(session_fd, 0):
            pass
    assert sorted(os.listdir(session)) == [LOCK, "meta"]


def test_a_lock_on_an_unlinked_file_does_not_count(
    session_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last owner unlinked it after we had opened it: another process may hold its successor."""
    taken: list[int] = []

    def lock(fd: int) -> bool | None:
        if not taken:
            os.unlink(LOCK, dir_fd=session_fd)
        taken.append(os.fstat(fd).st_ino)
        return True

    monkeypatch.setattr(files, "lock", lock)
    with locked(session_fd, 0):
        assert os.stat(LOCK, dir_fd=session_fd).st_ino == taken[-1]
    assert len(taken) == 2


def test_without_write_permission_no_lock_file_is_created(
    session: Path, session_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_args: object, **_how: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(files, "write_new", forbidden)
    with pytest.raises(PermissionError), locked(session_fd, 0):
        pass
    assert os.listdir(session) == ["meta"]
