"""`stepfs check --peer`: whether two clients exclude each other; here two mounts of one directory."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from storage.check import peer
from storage.errors import StoreError


@pytest.mark.guarantee("G26b")
def test_two_clients_that_exclude_each_other_are_found_sound(tmp_path: Path) -> None:
    answers = peer.compare(str(tmp_path), str(tmp_path), rounds=50)
    assert not any(answer.fault for answer in answers), answers
    assert [answer.sentence.split()[0] for answer in answers[1:3]] == ["link", "mkdir"]
    assert os.listdir(tmp_path) == []


@pytest.mark.guarantee("G26b")
def test_links_that_both_win_are_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", lambda *_names, **_where: None)
    faults = [a.sentence for a in peer.compare(str(tmp_path), str(tmp_path), 20) if a.fault]
    assert len(faults) == 1
    assert "link is NOT exclusive, both won 20 times" in faults[0]


@pytest.mark.guarantee("G26b")
def test_a_directory_that_is_not_the_store_is_refused_as_a_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "store").mkdir()
    monkeypatch.setattr(peer, "APPEAR_SECONDS", 0.1)
    with pytest.raises(StoreError) as caught:
        peer.compare(str(tmp_path / "store"), str(tmp_path / "other"))
    assert caught.value.errno == errno.EINVAL
    assert os.listdir(tmp_path / "store") == []


@pytest.mark.guarantee("G26b")
def test_a_peer_that_is_no_directory_is_refused_at_once(tmp_path: Path) -> None:
    """Nobody waits for what is made in the store to appear there."""
    (tmp_path / "store").mkdir()
    (tmp_path / "file").touch()
    for name, number in (("missing", errno.ENOENT), ("file", errno.ENOTDIR)):
        began = time.monotonic()
        with pytest.raises(StoreError, match=f"could not open the directory .*/{name}: ") as caught:
            peer.compare(str(tmp_path / "store"), str(tmp_path / name))
        assert caught.value.errno == number
        assert time.monotonic() - began < peer.APPEAR_SECONDS / 10
    assert os.listdir(tmp_path / "store") == []
