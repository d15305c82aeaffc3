"""A fork holds what its origin held up to a step, and exists completely or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import storage.fork
from storage.deletion import delete
from storage.errors import StoreError
from storage.fork import finish, fork
from storage.store import Store
from storage.sweep import sweep
from tests.support import lives
from tests.support.commands import run
from tests.support.far import NO_BINDFS, bound
from tests.support.killing import alone, killed_at_each_call
from tests.support.lives import LIVES, Steps
from tests.support.stores import META, SessionOnDisk, StoreOnDisk, compaction, entry, event

ORIGIN = "crab_tg-42_1"
FORK = "crab_tg-42_2"


@pytest.fixture
def opened(store: StoreOnDisk) -> Iterator[Store]:
    found = Store(str(store.path))
    yield found
    found.close()


def forked(opened: Store, at: int | None = None) -> SessionOnDisk:
    """Fork the session `ORIGIN`."""
    return SessionOnDisk(Path(opened.path, finish(fork(opened, ORIGIN, at=at, sync=False))))


def files(session: SessionOnDisk) -> dict[str, tuple[bytes, int]]:
    """Contents and mtime of each step."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in session.path.iterdir()
        if path.name != "meta"
    }


@pytest.mark.guarantee("G30c")
@given(steps=LIVES, at=st.none() | st.integers(0, 80))
def test_a_fork_holds_the_origins_steps_up_to_there_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, steps: Steps, at: int | None
) -> None:
    store = StoreOnDisk(tmp_path_factory.mktemp("fork"))
    origin = store.session(ORIGIN)
    for number, data in steps.items():
        origin.put(number, data)
        os.utime(origin.path / f"step-{number:06}", ns=(7, number * 10**9 + 5))
    opened = Store(str(store.path))
    try:
        made = forked(opened, at)
    finally:
        opened.close()
    last = max(steps, default=0) if at is None else min(at, max(steps, default=0))
    expected = lives.cut(steps, last)
    assert {n: made.step(n) for n in made.numbers()} == expected
    assert {name: found for name, found in files(origin).items() if int(name[5:]) <= last} == files(
        made
    )
    history = lives.loaded(expected)
    assert made.meta()["forked_from"] == {"session": ORIGIN, "step": last}
    assert made.meta()["message_count"] == len(history.entries) + (history.archive is not None)


@pytest.mark.guarantee("G30c")
def test_a_fork_shares_no_file_with_its_origin(store: StoreOnDisk, opened: Store) -> None:
    origin = store.session(ORIGIN, entry("a"), event(), compaction("b"))
    made = forked(opened)
    inodes = {path.stat().st_ino for path in origin.path.iterdir()}
    assert inodes.isdisjoint(path.stat().st_ino for path in made.path.iterdir())
    with open(origin.path / "step-000001", "wb") as changed:
        changed.write(b"overwritten in place")
    assert made.step(1) == entry("a")


@pytest.mark.guarantee("G30e")
def test_the_meta_of_a_fork_says_where_it_came_from_and_whose_it_is(
    store: StoreOnDisk, opened: Store
) -> None:
    origin = store.session(ORIGIN, entry("a"), entry("b"))
    (origin.path / "meta").write_text(json.dumps({**META, "title": "Disks", "summary": "long"}))
    slug = finish(fork(opened, ORIGIN, at=1, sync=True))
    meta = json.loads((store.path / slug / "meta").read_bytes())
    assert slug == FORK
    assert meta["created_at"] == meta["updated_at"] > META["created_at"]
    assert meta == {
        **META,
        "title": "Disks",
        "message_count": 1,
        "forked_from": {"session": ORIGIN, "step": 1},
        "created_at": meta["created_at"],
        "updated_at": meta["created_at"],
    }
    others = finish(fork(opened, ORIGIN, agent="Ada", created_by="cli:1", sync=True))
    assert others == "ada_cli-1_1"
    meta = json.loads((store.path / others / "meta").read_bytes())
    assert (meta["agent"], meta["created_by"]) == ("Ada", "cli:1")


def test_a_session_of_broken_meta_is_forked_when_agent_and_sender_are_given(
    store: StoreOnDisk, opened: Store
) -> None:
    origin = store.session(ORIGIN, entry("a"))
    (origin.path / "meta").write_text("{")
    with pytest.raises(StoreError) as refused:
        finish(fork(opened, ORIGIN, agent="Ada", sync=False))
    assert (refused.value.errno, refused.value.code) == (errno.EINVAL, "broken-meta")
    assert os.listdir(store.path) == [ORIGIN]
    slug = finish(fork(opened, ORIGIN, agent="Ada", created_by="x", sync=False))
    assert SessionOnDisk(store.path / slug).steps() == [entry("a")]


def test_there_is_nothing_to_fork_of_a_session_that_is_not_there(opened: Store) -> None:
    with pytest.raises(StoreError) as refused:
        finish(fork(opened, ORIGIN, sync=False))
    assert refused.value.errno == errno.ENOENT
    assert os.listdir(opened.path) == []


@pytest.mark.guarantee("G30e")
def test_a_user_who_may_not_read_the_origin_may_not_read_the_fork(
    store: StoreOnDisk, opened: Store
) -> None:
    origin = store.session(ORIGIN, entry("a"))
    (origin.path / "meta").chmod(0o640)
    origin.path.chmod(0o710)
    if os.geteuid() == 0:
        os.chown(origin.path, 1234, 4321)
    made = forked(opened)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o710
    assert made.path.stat().st_uid == origin.path.stat().st_uid
    for path in made.path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert path.stat().st_uid == origin.path.stat().st_uid


@pytest.mark.guarantee("G30e")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_umask_takes_no_bits_from_the_origins_mode(
    store: StoreOnDisk, opened: Store, umask: int
) -> None:
    origin = store.session(ORIGIN, entry("a"), entry("b"))
    (origin.path / "meta").chmod(0o644)
    before = os.umask(umask)
    try:
        made = forked(opened)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.path.iterdir()} == {0o644}
    assert files(made) == files(origin)


@pytest.mark.guarantee("G30d")
def test_a_fork_that_is_abandoned_at_any_point_leaves_nothing(
    store: StoreOnDisk, opened: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.fork, "PIECE_STEPS", 1)
    store.session(ORIGIN, *(entry(str(number)) for number in range(5)))
    pieces = 0
    while True:
        work = fork(opened, ORIGIN, sync=True)
        try:
            for _ in range(pieces):
                next(work)
        except StopIteration:
            break
        work.close()
        assert os.listdir(store.path) == [ORIGIN]
        pieces += 1
    assert pieces > 10
    assert sorted(os.listdir(store.path)) == [ORIGIN, FORK]


@pytest.mark.guarantee("G30d")
@pytest.mark.parametrize("tamper", ["replace", "remove", "back-fill", "rewind", "one name"])
def test_a_session_that_changes_while_it_is_copied_is_copied_as_it_was_at_one_moment(
    store: StoreOnDisk, opened: Store, monkeypatch: pytest.MonkeyPatch, tamper: str
) -> None:
    monkeypatch.setattr(storage.fork, "PIECE_STEPS", 1)
    origin = store.session(ORIGIN)
    for number in (1, 2, 4, 5):
        origin.put(number, entry(f"old {number}"))
    (origin.path / "step-2").write_bytes(entry("of the same number"))
    work = fork(opened, ORIGIN, sync=False)
    for _ in range(4):
        next(work)
    match tamper:
        case "replace":
            origin.put(2, entry("new"))
        case "remove":
            (origin.path / "step-000002").unlink()
        case "back-fill":
            origin.put(3, entry("new"))
        case "rewind":
            for path in origin.path.glob("step-*"):
                path.unlink()
            origin.put(1, entry("kept"))
        case "one name":
            (origin.path / "step-2").unlink()
    origin.put(6, entry("after the fork began"))
    made = SessionOnDisk(store.path / finish(work))
    expected = files(origin)
    del expected["step-000006"]
    assert files(made) == expected


def test_a_session_that_never_keeps_still_is_not_forked(
    store: StoreOnDisk, opened: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.fork, "PIECE_STEPS", 1)
    origin = store.session(ORIGIN, entry("a"))
    work = fork(opened, ORIGIN, sync=False)
    with pytest.raises(StoreError) as refused:
        for turn in range(1000):
            origin.put(1, entry(str(turn)))
            next(work)
    assert (refused.value.errno, refused.value.code) == (errno.EAGAIN, "keeps-changing")
    assert os.listdir(store.path) == [ORIGIN]


@pytest.mark.guarantee("G30d")
def test_a_full_disk_leaves_nothing_of_a_fork(tmp_path: Path) -> None:
    """On a file system of 1 MiB, so full that the copies do not fit."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    small = tmp_path / "small"
    small.mkdir()
    assert run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]).returncode == 0
    try:
        StoreOnDisk(small).session(ORIGIN, *(entry("x" * 50_000) for _ in range(11)))
        opened = Store(str(small))
        try:
            with pytest.raises(StoreError) as failed:
                finish(fork(opened, ORIGIN, sync=True))
            assert failed.value.errno == errno.ENOSPC
            assert os.listdir(small) == [ORIGIN]
            assert finish(fork(opened, ORIGIN, at=2, sync=True)) == FORK
        finally:
            opened.close()
    finally:
        run(["umount", str(small)])


@pytest.mark.guarantee("G30c")
def test_where_the_file_system_has_reflinks_a_fork_takes_no_room(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        pytest.skip("a file system with reflinks needs root and mkfs.xfs")
    image, place = tmp_path / "image", tmp_path / "xfs"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(320 << 20)
    assert run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)]).returncode == 0
    if run(["mount", "-o", "loop", str(image), str(place)]).returncode != 0:
        pytest.skip("no loop device can be mounted here")
    opened = Store(str(place))
    try:
        origin = StoreOnDisk(place).session(ORIGIN, *(entry("x" * (4 << 20)) for _ in range(8)))
        os.sync()
        before = os.statvfs(place).f_bfree
        made = SessionOnDisk(place / finish(fork(opened, ORIGIN, sync=True)))
        assert files(made) == files(origin)
        assert (before - os.statvfs(place).f_bfree) * 4096 < 4 << 20
    finally:
        opened.close()
        run(["umount", str(place)])


@NO_BINDFS
@pytest.mark.guarantee("G17a", "G30c")
def test_on_a_far_store_each_copy_is_synced_for_syncfs_reaches_no_server(
    store: StoreOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.session(ORIGIN, entry("a"), entry("b"))
    synced: list[str] = []
    sync = os.fsync

    def noted(fd: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        sync(fd)

    with bound(store.path, tmp_path / "far") as far:
        opened = Store(str(far))
        try:
            monkeypatch.setattr(os, "fsync", noted)
            finish(fork(opened, ORIGIN, sync=True))
        finally:
            opened.close()
    assert synced[:2] == ["step-000001", "step-000002"]
    assert synced[2].startswith(".new.")


def kill_everywhere(path: str) -> None:
    """Kill a fork before each of its system calls: the origin stays unchanged, the fork is complete or
    absent."""
    store, opened = StoreOnDisk(Path(path)), Store(path)
    origin = store.session(ORIGIN, entry("a"), compaction("b"), entry("c"))
    before, outcomes = files(origin), []
    for ended in killed_at_each_call(lambda: finish(fork(opened, ORIGIN, sync=True))):
        sweep(opened)
        made = [SessionOnDisk(store.path / slug) for slug in opened.names() if slug != ORIGIN]
        assert sorted(os.listdir(path)) == sorted([ORIGIN, *(session.slug for session in made)])
        assert files(origin) == before
        for session in made:
            assert files(session) == before
            assert session.meta()["message_count"] == 2
            delete(opened, session.slug, sync=False)
        outcomes.append((ended, len(made)))
    assert len(outcomes) > 60, "it was killed at too few calls"
    assert {(False, 0), (False, 1), (True, 1)} == set(outcomes)


@pytest.mark.guarantee("G30d")
def test_killed_before_any_of_its_system_calls_a_fork_is_whole_or_not_there(
    store: StoreOnDisk,
) -> None:
    alone(kill_everywhere, store.path)
