"""How a program that still has a session's directory open learns that it was deleted (G20, G25)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from storage.session import tombstone
from storage.session.tombstone import TOMBSTONE, bury, is_deleted


@pytest.fixture
def session(tmp_path: Path) -> Path:
    (tmp_path / "meta").write_bytes(b"{}")
    return tmp_path


def test_a_session_is_not_deleted_while_it_has_a_meta_and_no_tombstone(session_fd: int) -> None:
    assert not is_deleted(session_fd)


@pytest.mark.guarantee("G20b")
@pytest.mark.parametrize("believed", ["meta", "no tombstone"])
def test_either_sign_of_deletion_is_enough_for_a_client_whose_cache_lacks_the_other(
    session: Path, session_fd: int, believed: str
) -> None:
    bury(session_fd)
    assert os.listdir(session) == [TOMBSTONE]
    if believed == "meta":
        (session / "meta").write_bytes(b"{}")
    else:
        (session / TOMBSTONE).unlink()
    assert is_deleted(session_fd)


def test_burying_a_session_works_twice_and_on_a_full_disk(
    session: Path, session_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_where: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        bury(session_fd)
    assert is_deleted(session_fd)
    bury(session_fd)
    assert os.listdir(session) == [TOMBSTONE]


@pytest.mark.parametrize(("number", "deleted"), [(errno.ESTALE, True), (errno.EIO, None)])
def test_a_stale_directory_is_a_deleted_session_and_a_failing_one_tells_nothing(
    session_fd: int, monkeypatch: pytest.MonkeyPatch, number: int, deleted: bool | None
) -> None:
    def failing(*_args: object, **_how: object) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tombstone, "exists", failing)
    if deleted:
        assert is_deleted(session_fd)
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            is_deleted(session_fd)
