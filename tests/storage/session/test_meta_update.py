"""Changes of a meta, alone and beside other writers: no side loses anything (G9, G10)."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import threading
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from storage import posix as files
from storage.session import meta
from storage.session.meta_update import TEMPORARIES, update
from tests.support.metas import FULL, REQUIRED, compact, objects, patching, rfc7396
from tests.support.sessions import refused


@pytest.fixture
def session(tmp_path: Path) -> Path:
    (tmp_path / "a_b_1").mkdir()
    (tmp_path / "a_b_1" / "meta").write_bytes(compact(FULL))
    return tmp_path / "a_b_1"


def replace(session: Path, data: bytes) -> None:
    """Replace the meta as the daemon does."""
    aside = session / "meta.tmp.1"
    aside.write_bytes(data)
    aside.rename(session / "meta")


# Changing the file


def test_a_change_keeps_order_form_mode_and_owner(session: Path, session_fd: int) -> None:
    (session / "meta").chmod(0o640)
    if os.geteuid() == 0:
        os.chown(session / "meta", 12345, 12346)
    before = (session / "meta").stat()
    after = update(session_fd, patching({"title": "é\n\x01/\x7f", "x": 1}), sync=True)
    assert after == {**FULL, "title": "é\n\x01/\x7f", "x": 1}
    written = (session / "meta").read_bytes()
    assert written == compact(FULL).replace(
        b'"title":""', '"title":"é\\n\\u0001/\x7f"'.encode()
    ).replace(b":0}", b':0,"x":1}')
    now = (session / "meta").stat()
    assert (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert os.listdir(session) == ["meta"]


def test_what_a_change_does_not_touch_keeps_its_bytes(session: Path, session_fd: int) -> None:
    kept = (
        '"big":123456789012345678901234567890,"f":1.0,"e":1e5,"z":-0,"s":"\\u00e9\\/",'
        '"é\\u0041":0.10,"deep":{"keep":[1E2, {"a":1.50}],"change":%s,"big":98765432109876543210}'
    )
    begin = compact(FULL)[:-1].decode() + ","
    replace(session, (begin + kept % "1" + "}").encode())
    update(session_fd, patching({"deep": {"change": 2}}), sync=False)
    assert (session / "meta").read_text() == begin + kept % "2" + "}"


def test_a_big_number_in_a_patch_is_written_as_it_is(session: Path, session_fd: int) -> None:
    patch = meta.patch(b'{"big":123456789012345678901234567890,"f":1.0}')
    update(session_fd, patching(patch), sync=False)
    assert (
        (session / "meta").read_bytes().endswith(b',"big":123456789012345678901234567890,"f":1.0}')
    )


@given(unknown=objects, patch=objects)
def test_every_change_is_written_as_what_it_means(
    tmp_path_factory: pytest.TempPathFactory, unknown: dict[str, Any], patch: dict[str, Any]
) -> None:
    session = tmp_path_factory.mktemp("session")
    target = {**FULL, **unknown}
    (session / "meta").write_text(json.dumps(target, indent=1))
    descriptor = os.open(session, os.O_RDONLY)
    try:
        update(descriptor, patching(patch), sync=False)
    finally:
        os.close(descriptor)
    written = (session / "meta").read_bytes()
    assert compact(json.loads(written)) == compact(rfc7396(target, patch))


def test_a_change_of_nothing_leaves_the_file_itself(session: Path, session_fd: int) -> None:
    before = (session / "meta").stat()
    assert update(session_fd, lambda _: None, sync=True) == FULL
    assert update(session_fd, patching({}), sync=True) == FULL
    after = (session / "meta").stat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


def test_counts_after_stores_and_after_a_compaction(session: Path, session_fd: int) -> None:
    after = update(session_fd, meta.count_delta(3, "T1"), sync=False)
    assert (after["message_count"], after["updated_at"]) == (3, "T1")
    after = update(session_fd, meta.count_delta(0, "T2", reset=True), sync=False)
    assert (after["message_count"], after["updated_at"]) == (1, "T2")
    after = update(session_fd, meta.count_delta(2, "T3", reset=True), sync=False)
    assert (after["message_count"], after["updated_at"]) == (3, "T3")
    replace(session, compact(REQUIRED))
    assert update(session_fd, meta.count_delta(1, "T4"), sync=False)["message_count"] == 1
    replace(session, compact({**FULL, "message_count": 2**64 - 1}))
    after = update(session_fd, meta.count_delta(1, "T5"), sync=False)
    assert after["message_count"] == 2**64 - 1


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"agent":"x"}', compact(FULL)[:-1]])
def test_a_broken_meta_is_left_alone(session: Path, session_fd: int, broken: bytes) -> None:
    replace(session, broken)
    before = (session / "meta").stat()
    refused(errno.EINVAL, update, session_fd, meta.count_delta(1, "T"), sync=False)
    assert (session / "meta").read_bytes() == broken
    assert (session / "meta").stat().st_ino == before.st_ino
    assert os.listdir(session) == ["meta"]


@pytest.mark.parametrize("kind", ["fifo", "directory", "symlink"])
def test_a_meta_that_is_not_a_regular_file_is_refused_without_blocking(
    session: Path, session_fd: int, kind: str
) -> None:
    (session / "meta").rename(session / "other")
    match kind:
        case "fifo":
            os.mkfifo(session / "meta")
        case "directory":
            (session / "meta").mkdir()
        case _:
            (session / "meta").symlink_to("other")
    refused(errno.EINVAL, meta.read, session_fd)
    refused(errno.EINVAL, update, session_fd, patching({"title": "x"}), sync=False)
    assert (session / "other").read_bytes() == compact(FULL)


def test_without_a_meta_there_is_nothing_to_change(session: Path, session_fd: int) -> None:
    (session / "meta").unlink()
    with pytest.raises(FileNotFoundError):
        update(session_fd, patching({"title": "x"}), sync=False)
    assert os.listdir(session) == []


def test_a_refused_change_leaves_nothing_behind(session: Path, session_fd: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    refused(errno.EINVAL, update, session_fd, patching({"agent": None}), sync=True)
    assert (session / "meta").read_bytes() == compact(FULL)
    assert os.listdir(session) == ["meta"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_a_crash_left_aside_is_cleared_by_the_next_change(
    session: Path, session_fd: int
) -> None:
    for name in TEMPORARIES:
        (session / name).write_bytes(b"{")
    update(session_fd, patching({"title": "x"}), sync=False)
    assert os.listdir(session) == ["meta"]


# Beside other writers


class Meddler:
    """A change during which an outside writer replaces the meta."""

    def __init__(self, session: Path, outside: list[bytes], patch: dict[str, Any]) -> None:
        self.session, self.outside, self.patch = session, outside, patch

    def __call__(self, value: dict[str, Any]) -> dict[str, Any]:
        if self.outside:
            replace(self.session, self.outside.pop(0))
        return meta.merged(value, self.patch)


@pytest.mark.parametrize("times", [1, 2, 3, 10])
def test_a_change_made_meanwhile_is_not_lost(session: Path, session_fd: int, times: int) -> None:
    outside = [compact({**FULL, "outside": n, f"only{n}": n}) for n in range(times)]
    after = update(session_fd, Meddler(session, outside, {"title": "mine"}), sync=False)
    last = times - 1
    assert after == {**FULL, "outside": last, f"only{last}": last, "title": "mine"}
    assert json.loads((session / "meta").read_bytes()) == after
    assert os.listdir(session) == ["meta"]


def test_a_deletion_is_merged_again_too(session: Path, session_fd: int) -> None:
    replace(session, compact({**FULL, "summary": "old"}))
    meddler = Meddler(session, [compact({**FULL, "summary": "new", "x": 1})], {"summary": None})
    assert update(session_fd, meddler, sync=False) == {**FULL, "x": 1}


@pytest.mark.parametrize("broken", [b"{", b"[]", compact({**FULL, "created_at": "other"})])
def test_an_outside_change_that_cannot_be_merged_is_put_back(
    session: Path, session_fd: int, broken: bytes
) -> None:
    meddler = Meddler(session, [broken], {**REQUIRED, "title": "mine"})
    refused(errno.EINVAL, update, session_fd, meddler, sync=False)
    assert (session / "meta").read_bytes() == broken
    assert os.listdir(session) == ["meta"]


def test_a_later_outside_change_wins_over_one_to_be_put_back(
    session: Path, session_fd: int
) -> None:
    meddler = Meddler(session, [compact({**FULL, "x": 1}), b"broken"], {"title": "mine"})
    refused(errno.EINVAL, update, session_fd, meddler, sync=False)
    assert (session / "meta").read_bytes() == b"broken"
    assert os.listdir(session) == ["meta"]


def test_a_mode_changed_meanwhile_is_kept(session: Path, session_fd: int) -> None:
    def change(value: dict[str, Any]) -> dict[str, Any]:
        (session / "meta").chmod(0o600)
        return meta.merged(value, {"title": "mine"})

    update(session_fd, change, sync=False)
    assert (session / "meta").stat().st_mode & 0o777 == 0o600


def test_updating_a_session_deleted_meanwhile_fails_and_leaves_nothing(
    session: Path, session_fd: int
) -> None:
    def change(value: dict[str, Any]) -> dict[str, Any]:
        (session / "meta").unlink()
        return meta.merged(value, {"title": "mine"})

    with pytest.raises(FileNotFoundError):
        update(session_fd, change, sync=False)
    assert os.listdir(session) == []


@pytest.mark.parametrize("times", [0, 1, 3])
def test_without_rename_exchange_the_result_is_the_same(
    session: Path, session_fd: int, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    def refuse(*_names: object) -> None:
        raise OSError(errno.EINVAL, "this file system exchanges nothing")

    monkeypatch.setattr(files, "exchange", refuse)
    outside = [compact({**FULL, "outside": n}) for n in range(times)]
    after = update(session_fd, Meddler(session, outside, {"title": "mine"}), sync=False)
    assert after == {**FULL, **({"outside": times - 1} if times else {}), "title": "mine"}
    assert json.loads((session / "meta").read_bytes()) == after
    assert os.listdir(session) == ["meta"]


def test_threads_of_one_mount_count_everything(session: Path, session_fd: int) -> None:
    def work() -> None:
        for _ in range(100):
            update(session_fd, meta.count_delta(1, "T"), sync=False)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads((session / "meta").read_bytes())["message_count"] == 400


def _count(path: str, times: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    for _ in range(times):
        update(descriptor, meta.count_delta(1, "T"), sync=False)


def _rewrite(path: str, rounds: int, start: Barrier, end: Barrier) -> None:
    """The daemon: rewrites the meta from memory, several times per round, without reading it."""
    for number in range(rounds):
        start.wait()
        for turn in range(3):
            replace(Path(path), compact({**FULL, "outside": [number, turn]}))
        end.wait()


def test_processes_count_everything(session: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count, args=(str(session), 300)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 3
    assert json.loads((session / "meta").read_bytes())["message_count"] == 900


def test_no_write_of_a_writer_that_rewrites_from_memory_is_undone(
    session: Path, session_fd: int
) -> None:
    rounds = 700
    context = multiprocessing.get_context("spawn")
    start, end = context.Barrier(2), context.Barrier(2)
    writer = context.Process(target=_rewrite, args=(str(session), rounds, start, end))
    writer.start()
    merged_again = undone = 0
    for number in range(rounds):
        calls: list[int] = []

        def change(value: dict[str, Any], number: int = number, calls: list[int] = calls) -> Any:
            calls.append(number)
            return meta.merged(value, {"mine": number})

        start.wait(timeout=60)
        for _ in range(5):
            update(session_fd, change, sync=False)
        end.wait(timeout=60)
        merged_again += len(calls) > 5
        undone += json.loads((session / "meta").read_bytes())["outside"] != [number, 2]
    writer.join()
    assert merged_again > 0, "the two never met, so nothing was proved"
    assert undone == 0
    assert os.listdir(session) == ["meta"]


def test_a_meta_over_a_mebibyte_is_broken_and_not_read(session: Path, session_fd: int) -> None:
    os.truncate(session / "meta", 1 << 30)
    before = time.process_time()
    refused(errno.EINVAL, update, session_fd, patching({"title": "x"}), sync=False)
    assert time.process_time() - before < 0.1
    assert (session / "meta").stat().st_size == 1 << 30


def test_a_change_that_would_make_the_meta_unreadable_is_refused(
    session: Path, session_fd: int
) -> None:
    before = (session / "meta").read_bytes()
    for size in (meta.META_BYTES_MAX - len(before) + 1, meta.META_BYTES_MAX):
        refused(errno.EINVAL, update, session_fd, patching({"x": "y" * size}), sync=False)
    assert (session / "meta").read_bytes() == before
    assert os.listdir(session) == ["meta"]
