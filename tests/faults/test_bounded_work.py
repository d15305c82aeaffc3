"""Whatever is written or lies in the store, other users do not wait and memory stays bounded."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from storage import posix
from storage.session import meta_lock
from tests.support.commands import STEPFS, environment, until
from tests.support.hostile_lines import (
    HOSTILE,
    MIB,
    OTHER,
    append,
    broken_lines,
    read_all,
    two_sessions,
    valid_lines,
)
from tests.support.mounted import Mount
from tests.support.probe import undisturbed
from tests.support.stores import StoreOnDisk, entry

Mounting = Callable[..., Mount]
RESIDENT_MIB = 300


def _resident_mib(mount: Mount) -> int:
    assert mount.server is not None
    status = Path(f"/proc/{mount.server.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


@pytest.mark.guarantee("G19c", "G23d")
@pytest.mark.parametrize("size", [MIB, pytest.param(15 * MIB, marks=pytest.mark.soak)])
def test_nobody_waits_for_a_valid_line_that_is_appended_or_shown(
    store: StoreOnDisk, mount: Mounting, size: int
) -> None:
    two_sessions(store)
    at = mount()
    other = at.path / OTHER / "history.jsonl"
    for name, line in valid_lines(size).items():
        with undisturbed(other, f"{name} appended"):
            assert append(at.path, line) == 0
        with undisturbed(other, f"{name} shown"):
            read_all(at.path)
    assert _resident_mib(at) < RESIDENT_MIB


@pytest.mark.guarantee("G19c", "G23d")
@pytest.mark.parametrize("size", [MIB, pytest.param(15 * MIB, marks=pytest.mark.soak)])
def test_nobody_waits_for_a_broken_line_that_is_refused_or_met_in_the_store(
    store: StoreOnDisk, mount: Mounting, size: int
) -> None:
    two_sessions(store)
    at = mount()
    at.expected.append("(EINVAL)")
    other = at.path / OTHER / "history.jsonl"
    for number, (name, line) in enumerate(broken_lines(size).items(), 1):
        with undisturbed(other, f"{name} appended"):
            assert append(at.path, line) == errno.EINVAL
        (store.path / HOSTILE / f"step-{number:06}").write_bytes(line)
        with undisturbed(other, f"{name} met"):
            read_all(at.path)
    assert _resident_mib(at) < RESIDENT_MIB


@pytest.mark.guarantee("S5", "G19c", "G23d")
def test_sparse_files_of_gigabytes_cost_nothing(store: StoreOnDisk, mount: Mounting) -> None:
    two_sessions(store)
    for name, size in (("step-000001", 3 << 29), ("step-000002", 1 << 40), ("meta", 1 << 30)):
        (store.path / HOSTILE / name).touch()
        os.truncate(store.path / HOSTILE / name, size)
    at = mount()
    at.expected += ["(EINVAL)", "(EFBIG)"]
    with undisturbed(at.path / OTHER / "history.jsonl", "sparse files"):
        read_all(at.path)
        (at.path / ".stepfs/sessions.jsonl").read_bytes()
        assert append(at.path, entry("more")) == 0
        with pytest.raises(OSError):
            (at.path / HOSTILE / "meta.json").write_bytes(b'{"title":"x"}')
    assert (at.path / HOSTILE / "history.jsonl").read_bytes() == entry("more") + b"\n"
    assert _resident_mib(at) < RESIDENT_MIB


@pytest.mark.guarantee("G23e", "G19c")
def test_unfinished_lines_of_a_hundred_files_take_no_more_than_their_budget(
    store: StoreOnDisk, mount: Mounting
) -> None:
    two_sessions(store)
    at = mount("pending=32M")
    at.expected += ["(ENOBUFS)", "had no newline"]
    piece, answers = b"a" * MIB, []
    with undisturbed(at.path / OTHER / "history.jsonl", "a hundred unfinished lines"):
        opened = [os.open(at.path / HOSTILE / "append", os.O_WRONLY) for _ in range(100)]
        for fd in opened:
            try:
                for _ in range(15):
                    os.write(fd, piece)
            except OSError as error:
                answers.append(error.errno)
        for fd in opened:
            with suppress(OSError):
                os.close(fd)
    assert set(answers) == {errno.ENOBUFS}
    assert len(answers) == 99
    assert _resident_mib(at) < RESIDENT_MIB
    assert append(at.path, entry("x" * (10 * MIB))) == 0


@pytest.mark.guarantee("G10a", "G19c")
def test_an_unfinished_object_costs_what_is_written(store: StoreOnDisk, mount: Mounting) -> None:
    two_sessions(store)
    at = mount()
    at.expected += ["(EINVAL)", "only the beginning"]
    piece = rb"\"[]{}" * 400
    with undisturbed(at.path / OTHER / "history.jsonl", "objects in pieces"):
        for path in (at.path / HOSTILE / "meta.json", at.path / ".stepfs/create"):
            fd = os.open(path, os.O_WRONLY)
            os.write(fd, b'{"title":"')
            for _ in range(400):
                os.write(fd, piece)
            with pytest.raises(OSError):
                os.close(fd)


@pytest.mark.guarantee("G23e")
def test_unfinished_objects_of_hundreds_of_files_take_no_more_than_the_budget(
    store: StoreOnDisk, mount: Mounting
) -> None:
    two_sessions(store)
    at = mount("pending=16M")
    at.expected += ["(ENOBUFS)", "only the beginning"]
    piece, answers = b'{"title":"' + b"a" * (MIB - 20), []
    paths = [at.path / HOSTILE / "meta.json", at.path / ".stepfs/create"] * 50
    opened = [os.open(path, os.O_WRONLY) for path in paths]
    for fd in opened:
        try:
            os.write(fd, piece)
        except OSError as error:
            answers.append(error.errno)
    for fd in opened:
        with suppress(OSError):
            os.close(fd)
    assert set(answers) == {errno.ENOBUFS}
    assert len(answers) >= 92
    (at.path / HOSTILE / "meta.json").write_bytes(piece[: MIB // 2] + b'"}')


@pytest.mark.guarantee("G23e")
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_long_metas_that_are_open_take_no_more_than_the_budget(
    store: StoreOnDisk, mount: Mounting, flags: int
) -> None:
    two_sessions(store)
    meta = store.path / HOSTILE / "meta"
    meta.write_bytes(meta.read_bytes()[:-1] + b',"k":"' + b"x" * (MIB - 1000) + b'"}')
    at = mount("pending=16M")
    at.expected.append("(ENOBUFS)")
    opened: list[int] = []
    with pytest.raises(OSError) as refused:
        opened.extend(os.open(at.path / HOSTILE / "meta.json", flags) for _ in range(20))
    assert refused.value.errno == errno.ENOBUFS
    assert 7 <= len(opened) <= 8
    assert (at.path / OTHER / "meta.json").read_bytes()
    for fd in opened:
        assert os.pread(fd, 10, 0).startswith(b"{")
        os.close(fd)
    until(lambda: _opens(at.path / HOSTILE / "meta.json"))


def _opens(path: Path) -> bool:
    """Whether it can be opened; a closed file is released a moment later."""
    with suppress(OSError):
        return bool(path.read_bytes())
    return False


@pytest.mark.guarantee("G10a", "G19c")
def test_nobody_waits_for_metas_and_patches_of_a_mebibyte(
    store: StoreOnDisk, mount: Mounting
) -> None:
    two_sessions(store)
    at = mount()
    at.expected.append("(EINVAL)")
    keys = b"{" + b",".join(b'"k%d":[%d]' % (n, n) for n in range(40_000)) + b"}"
    brackets = b'{"a":[' + b"[]," * (MIB // 4) + b"1]}"
    path = at.path / HOSTILE / "meta.json"
    with undisturbed(at.path / OTHER / "history.jsonl", "long metas"):
        for patch in (keys, brackets, b'{"k1":null}', brackets[:-1] + b",}"):
            with suppress(OSError):
                path.write_bytes(patch)
            path.read_bytes()


@pytest.mark.guarantee("G19c", "G5c")
@pytest.mark.parametrize("lines", [5000, pytest.param(20000, marks=pytest.mark.soak)])
def test_nobody_waits_for_a_bulk_append(store: StoreOnDisk, mount: Mounting, lines: int) -> None:
    two_sessions(store)
    at = mount("sync=never")
    text = b"".join(entry(f"line {n}") + b"\n" for n in range(lines))
    with undisturbed(at.path / OTHER / "history.jsonl", "bulk append"):
        assert append(at.path, text[:-1]) == 0
    assert (at.path / HOSTILE / "history.jsonl").read_bytes() == text


@pytest.mark.guarantee("S2", "G19c")
@pytest.mark.parametrize("steps", [5000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_nobody_waits_for_thousands_of_bad_steps_nor_are_they_thousands_of_log_lines(
    store: StoreOnDisk, mount: Mounting, steps: int
) -> None:
    two_sessions(store)
    for number in range(1, steps + 1):
        (store.path / HOSTILE / f"step-{number:06}").write_bytes(b"{")
    at = mount()
    with undisturbed(at.path / OTHER / "history.jsonl", "bad steps"):
        read_all(at.path)
    assert at.log().count("is skipped") < 30


def _locked(session: Path) -> list[int]:
    """Take every lock on a session that a program could hold forever."""
    lock = os.open(session / meta_lock.LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    assert posix.lock(lock)
    opened = [os.open(session / name, os.O_RDONLY) for name in (".", "meta")]
    for fd in opened:
        fcntl.flock(fd, fcntl.LOCK_EX)
    return [lock, *opened]


@pytest.mark.guarantee("G9a", "G9c", "G19f")
def test_nobody_waits_for_locks_of_some_sessions(store: StoreOnDisk, mount: Mounting) -> None:
    two_sessions(store)
    locked = [store.session(f"held_tg-1_{n}", entry("x")) for n in range(1, 4)]
    free = [store.session(f"free_tg-1_{n}", entry("x")) for n in range(1, 4)]
    held = [fd for session in locked for fd in _locked(session.path)]
    at = mount()
    at.expected.append("(EBUSY)")
    with undisturbed(at.path / OTHER / "history.jsonl", "locks of some sessions"):
        for session in (*locked, *free):
            (at.path / session.slug / "append").write_bytes(entry("more") + b"\n")
        began = time.monotonic()
        subprocess.run(["ls", "-lR", at.path], check=True, stdout=subprocess.DEVNULL)
        assert time.monotonic() - began < 2
        time.sleep(max(0.0, began + 2 - time.monotonic()))
        assert [session.meta()["message_count"] for session in free] == [1, 1, 1]
    (at.path / free[0].slug / "append").write_bytes(entry("last") + b"\n")
    began = time.monotonic()
    at.stop()
    assert time.monotonic() - began < 5
    assert free[0].meta()["message_count"] == 2
    for fd in held:
        os.close(fd)


@pytest.mark.guarantee("G19c")
@pytest.mark.parametrize("size", [MIB, pytest.param(15 * MIB, marks=pytest.mark.soak)])
def test_a_check_of_the_store_ends_whatever_the_steps_are(store: StoreOnDisk, size: int) -> None:
    steps = [*valid_lines(size).values(), *broken_lines(size).values()]
    store.session(HOSTILE, *steps)
    began = time.monotonic()
    answer = subprocess.run(
        [*STEPFS, "check", store.path], env=environment(), capture_output=True, text=True
    )
    assert time.monotonic() - began < 2 * size / MIB * len(steps)
    assert answer.stdout.count("step-") == len(broken_lines(size)), answer


@pytest.mark.guarantee("G19a")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_store_that_became_read_only_answers_erofs(store: StoreOnDisk, mount: Mounting) -> None:
    two_sessions(store)
    subprocess.run(["mount", "--bind", store.path, store.path], check=True)
    try:
        at = mount()
        at.expected.append("(EROFS)")
        subprocess.run(["mount", "-o", "remount,bind,ro", store.path], check=True)
        with pytest.raises(OSError) as refused:
            (at.path / OTHER).rmdir()
        assert refused.value.errno == errno.EROFS
        at.stop()
    finally:
        subprocess.run(["umount", "-l", store.path], check=True)


@pytest.mark.guarantee("G23f")
def test_1500_sessions_are_used_with_256_descriptors(store: StoreOnDisk, mount: Mounting) -> None:
    slugs = [f"crab_tg-1_{n}" for n in range(1, 1501)]
    for slug in slugs:
        store.session(slug, entry(slug))
    at = mount(limits={resource.RLIMIT_NOFILE: 256})
    for _ in range(2):
        for slug in slugs:
            assert (at.path / slug / "history.jsonl").read_bytes().startswith(entry(slug))
        for slug in slugs[::10]:
            (at.path / slug / "append").write_bytes(entry("more") + b"\n")
    assert at.server is not None
    assert len(os.listdir(f"/proc/{at.server.pid}/fd")) < 256


@pytest.mark.guarantee("G30f", "G19c")
def test_nobody_waits_for_a_long_fork(store: StoreOnDisk, mount: Mounting) -> None:
    store.session("crab_tg-42_1", *(entry(f"line {number}") for number in range(5000)))
    other = store.session("other_tg-1_1", entry("one"))
    served = mount()
    with (
        undisturbed(served.path / other.slug / "history.jsonl", "beside a fork of 5,000 steps"),
        (served.path / ".stepfs/create").open("wb", buffering=0) as create,
    ):
        create.write(b'{"from":"crab_tg-42_1"}')
    assert len(os.listdir(store.path / "crab_tg-42_2")) == 5001
