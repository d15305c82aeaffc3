"""System calls of the server fail: the caller gets an error, nothing is partial, the mount goes on."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.check.check import check, main_report
from tests.support.commands import until
from tests.support.mounted import Mount
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry
from tests.support.tracing import failing

Mounting = Callable[..., Mount]
INLINE, THREADED = 3, 20
"""Lines per write that are stored on the event loop, and in a thread."""


def _lines(count: int) -> list[bytes]:
    return [entry(f"line {number}") + b"\n" for number in range(count)]


def _write_all(path: Path, data: bytes) -> tuple[int, int]:
    """Write as programs do, resuming after short writes; returns bytes taken and final errno."""
    fd = os.open(path, os.O_WRONLY)
    taken = 0
    try:
        while taken < len(data):
            taken += os.write(fd, data[taken:])
    except OSError as error:
        return taken, error.errno or 0
    finally:
        os.close(fd)
    return taken, 0


def _expect(mount: Mount, *numbers: int) -> None:
    mount.expected += [f"({errno.errorcode[number]})" for number in numbers]


def _last_error(mount: Mount, session: str | None = None) -> dict[str, str]:
    """The last failure; of `session`, if given, as another's count may hit the same fault."""
    found: list[dict[str, str]] = [json.loads(line) for line in mount.errors()]
    return [line for line in found if session in (None, line["session"])][-1]


def _healthy(store: StoreOnDisk) -> None:
    report = check(str(store.path), repair=False)
    assert report.exit_code == 0, main_report(report)


def _nothing_left_over(session: SessionOnDisk) -> None:
    names = [name for name in os.listdir(session.path) if not name[5:].isdigit()]
    assert names == ["meta"]


@dataclass(frozen=True)
class Fault:
    """A system call that fails from its n-th call on, and the errno."""

    call: str
    number: int


CLAIM_FAULTS = [
    Fault("linkat", errno.ENOSPC),
    Fault("linkat", errno.EDQUOT),
    Fault("linkat", errno.EIO),
    Fault("linkat", errno.EACCES),
    Fault("linkat", errno.EROFS),
    Fault("write", errno.ENOSPC),
    Fault("write", errno.EIO),
]


@pytest.mark.guarantee("G19a", "G19b", "G6b")
@pytest.mark.parametrize("count", [INLINE, THREADED], ids=["on the loop", "in a thread"])
def test_lines_before_a_failing_store_are_stored_and_the_rest_is_not(
    store: StoreOnDisk, mount: Mounting, count: int
) -> None:
    at = mount()
    _expect(at, *(fault.number for fault in CLAIM_FAULTS))
    lines = _lines(count)
    for number, fault in enumerate(CLAIM_FAULTS, 1):
        session = store.session(f"crab_tg-42_{number}")
        append = at.path / session.slug / "append"
        fd = os.open(append, os.O_WRONLY)
        assert os.write(fd, lines[0]) == len(lines[0])  # from now on a step needs one call of each
        # Calls are counted per thread, and a long batch may continue in another thread: so the
        # number of lines stored varies, but it is at least one and never all.
        with failing(at, fault.call, f"error={errno.errorcode[fault.number]}:when=2+"):
            taken = os.write(fd, b"".join(lines))
        stored = len(session.steps()) - 1
        assert 0 < stored < len(lines), fault
        assert taken == sum(map(len, lines[:stored])), fault
        with (
            failing(at, fault.call, f"error={errno.errorcode[fault.number]}"),
            pytest.raises(OSError) as refused,
        ):
            os.write(fd, b"".join(lines)[taken:])
        assert refused.value.errno == fault.number
        assert session.steps() == [line.rstrip() for line in [lines[0], *lines[:stored]]]
        told = _last_error(at, session.slug)
        assert told["errno"] == errno.errorcode[fault.number]
        assert "could not store a step" in told["error"]
        assert os.write(fd, b"".join(lines)[taken:]) == sum(map(len, lines[stored:]))
        os.close(fd)
        assert session.steps() == [line.rstrip() for line in [lines[0], *lines]]
        _nothing_left_over(session)


@dataclass(frozen=True)
class Way:
    """A way to write, the system calls in it that may fail, and how to read what it changes."""

    name: str
    act: Callable[[Path], None]
    calls: Sequence[str]
    seen: Callable[[StoreOnDisk], object]


def _text(name: str, text: str) -> Callable[[Path], None]:
    def act(at: Path) -> None:
        fd = os.open(at / name, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    return act


def _steps(store: StoreOnDisk) -> object:
    return [step[:15] for step in SessionOnDisk(store.path / "crab_tg-42_1").steps()]


def _meta(store: StoreOnDisk) -> object:
    return (store.path / "crab_tg-42_1/meta").read_bytes()


def _sessions(store: StoreOnDisk) -> object:
    return sorted(os.listdir(store.path))


WAYS = [
    Way("compact", _text("crab_tg-42_1/compact", "name\n"), ["linkat", "write"], _steps),
    Way(
        "meta.json",
        _text("crab_tg-42_1/meta.json", '{"title":"new"}'),
        ["write", "fsync", "fchmod", "rename,renameat,renameat2"],
        _meta,
    ),
    Way(
        "create",
        _text(".stepfs/create", '{"agent":"New","created_by":"one"}'),
        ["mkdir,mkdirat", "write", "fsync", "renameat2"],
        _sessions,
    ),
    Way(
        "mkdir",
        lambda at: (at / "new_one_1").mkdir(),
        ["mkdir,mkdirat", "write", "fsync", "renameat2"],
        _sessions,
    ),
    Way("rmdir", lambda at: (at / "gone_one_1").rmdir(), ["rename,renameat,renameat2"], _sessions),
]


@pytest.mark.guarantee("G19a", "G19b", "G10b", "G11d")
@pytest.mark.parametrize("way", WAYS, ids=[way.name for way in WAYS])
def test_a_failing_change_is_reported_and_changes_nothing(
    store: StoreOnDisk, mount: Mounting, way: Way
) -> None:
    session = store.session("crab_tg-42_1", entry("first"))
    store.session("gone_one_1", entry("first"))
    at = mount()
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
    _expect(at, *numbers)
    before = way.seen(store)
    for which, call in enumerate(way.calls):
        number = numbers[which % len(numbers)]
        with (
            failing(at, call, f"error={errno.errorcode[number]}"),
            pytest.raises(OSError) as refused,
        ):
            way.act(at.path)
        assert refused.value.errno == number, call
        assert way.seen(store) == before, call
        assert _last_error(at)["errno"] == errno.errorcode[number]
    way.act(at.path)
    assert way.seen(store) != before
    _nothing_left_over(session)
    until(lambda: not any(name.startswith(".del.") for name in os.listdir(store.path)))
    _healthy(store)


@pytest.mark.guarantee("G19a", "G19b", "G17a")
@pytest.mark.parametrize("call", ["fdatasync", "fsync", "syncfs"])
def test_a_close_that_cannot_sync_says_so_and_the_next_one_can(
    store: StoreOnDisk, mount: Mounting, call: str
) -> None:
    session = store.session()
    at = mount()
    _expect(at, errno.EIO)
    lines = _lines(50 if call == "syncfs" else 2)
    fd = os.open(at.path / session.slug / "append", os.O_WRONLY)
    with failing(at, call, "error=EIO"):
        # After starting another program: it closes its copy of the file, which syncs.
        assert os.write(fd, b"".join(lines)) == sum(map(len, lines))
        with pytest.raises(OSError) as refused:
            os.fsync(fd)
        assert refused.value.errno == errno.EIO
        if call == "syncfs":  # data whose sync failed is still to be synced
            with pytest.raises(OSError) as refused:
                os.close(os.dup(fd))
            assert refused.value.errno == errno.EIO
    assert _last_error(at)["errno"] == "EIO"
    os.close(fd)
    assert session.steps() == [line.rstrip() for line in lines]


@contextmanager
def _mounted_over(path: Path, *arguments: str) -> Iterator[None]:
    subprocess.run(["mount", *arguments, path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def _small_disk(kind: str, path: Path) -> AbstractContextManager[None]:
    """A few hundred KiB at `path`: tmpfs, or a file system in an image."""
    if kind == "tmpfs":
        return _mounted_over(path, "-t", "tmpfs", "-o", "size=256k", "none")
    image = path.with_name("image")
    with image.open("wb") as file:
        file.truncate(512 << 10)
    make = ("mkfs.ext4", "-qF", "-b", "1024", "-m", "0", "-N", "128", "-O", "^has_journal", image)
    subprocess.run(make, check=True)
    if subprocess.run(["losetup", "-f"], capture_output=True, check=False).returncode:
        pytest.skip("there are no loop devices")
    return _mounted_over(path, "-o", "loop", str(image))


@pytest.mark.guarantee("G19a", "G19b")
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_disk_takes_what_fits_and_all_again_once_there_is_room(
    store: StoreOnDisk, mount: Mounting, kind: str
) -> None:
    with _small_disk(kind, store.path):
        session = store.session()
        at = mount()
        _expect(at, errno.ENOSPC)
        try:
            big = entry("x" * 9000) + b"\n"
            taken, number = _write_all(at.path / session.slug / "append", big * 60)
            assert number == errno.ENOSPC
            assert taken % len(big) == 0
            assert session.steps() == [big.rstrip()] * (taken // len(big))
            assert 15 < len(session.numbers()) < 60
            lines = map(json.loads, reversed(at.errors()))
            told = next(line for line in lines if line["file"] == "append")
            assert told["errno"] == "ENOSPC"
            assert "No space left" in told["error"]
            _fill(store.path / "filler")
            for name, text in (("compact", "n\n"), ("meta.json", '{"title":"' + "t" * 9000 + '"}')):
                with pytest.raises(OSError) as refused:
                    _text(name, text)(at.path / session.slug)
                assert refused.value.errno == errno.ENOSPC
            with pytest.raises(OSError) as refused:
                (at.path / "new_one_1").mkdir()
            assert refused.value.errno == errno.ENOSPC
            shown = (at.path / session.slug / "history.jsonl").read_bytes()
            assert shown == big * len(session.numbers())
            (store.path / "filler").unlink()
            for number in session.numbers()[:8]:
                (session.path / f"step-{number:06}").unlink()
            assert _write_all(at.path / session.slug / "append", big * 2) == (2 * len(big), 0)
            (at.path / "new_one_1").mkdir()
            _nothing_left_over(session)
            made = {"crab_tg-42_1", "new_one_1"}
            assert set(os.listdir(store.path)) - {"lost+found"} == made
        finally:
            at.stop()


def _fill(path: Path) -> None:
    """Fill the disk completely: a block may be free when a longer file does not fit."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 512):
            pass


@pytest.mark.guarantee("G19a", "G19b")
def test_a_store_that_becomes_read_only_is_read_and_can_be_written_again_later(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session("crab_tg-42_1", entry("first"))
    with _mounted_over(store.path, "--bind", str(store.path)):
        at = mount()
        _expect(at, errno.EROFS)
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", store.path], check=True)
            for way in WAYS:
                with pytest.raises(OSError) as refused:
                    way.act(at.path.parent / "mnt")
                assert refused.value.errno in (errno.EROFS, errno.ENOENT), way.name
            for name, text in (("append", '{"role":"user","content":"x"}\n'), ("compact", "n\n")):
                taken, number = _write_all(at.path / session.slug / name, text.encode())
                assert (taken, number) == (0, errno.EROFS)
                assert _last_error(at)["errno"] == "EROFS"
            assert (at.path / session.slug / "history.jsonl").read_bytes() == entry("first") + b"\n"
            subprocess.run(["mount", "-o", "remount,rw,bind", store.path], check=True)
            _text("append", '{"role":"user","content":"x"}\n')(at.path / session.slug)
            assert session.steps() == [entry("first"), entry("x")]
        finally:
            at.stop()


@pytest.mark.guarantee("G19a", "G20b")
def test_a_store_that_vanishes_is_enoent_and_the_mount_lives(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session("crab_tg-42_1", entry("first"))
    at = mount()
    _expect(at, errno.ENOENT, errno.ESTALE)
    fd = os.open(at.path / session.slug / "append", os.O_WRONLY)
    reader = (at.path / session.slug / "history.jsonl").open("rb")
    shutil.rmtree(store.path)
    with pytest.raises(OSError) as refused:
        os.write(fd, b'{"role":"user","content":"x"}\n')
    assert refused.value.errno == errno.ENOENT
    os.close(fd)
    assert reader.read() == entry("first") + b"\n"
    reader.close()
    until(lambda: not (at.path / session.slug).exists())
    for way in WAYS[2:4]:
        with pytest.raises(OSError) as refused:
            way.act(at.path)
        assert refused.value.errno == errno.ENOENT
    assert os.listdir(at.path) == [".stepfs"]
    assert (at.path / ".stepfs/status.json").read_bytes()


@contextmanager
def _limit(pid: int, what: int, soft: int) -> Iterator[None]:
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


@pytest.mark.guarantee("G19a", "G19b")
def test_out_of_descriptors_everything_is_emfile_until_there_are_some(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session, other = store.session("crab_tg-42_1", entry("first")), store.session("crab_tg-42_2")
    at = mount()
    assert at.server is not None
    _expect(at, errno.EMFILE)
    fd = os.open(at.path / session.slug / "append", os.O_WRONLY)
    with _limit(at.server.pid, resource.RLIMIT_NOFILE, 3):
        acts: list[Callable[[], object]] = [
            lambda: os.write(fd, b'{"role":"user","content":"x"}\n'),
            lambda: (at.path / other.slug / "history.jsonl").read_bytes(),
            lambda: (at.path / "new_one_1").mkdir(),
            lambda: os.listdir(at.path),
        ]
        for act in acts:
            with pytest.raises(OSError) as refused:
                act()
            assert refused.value.errno == errno.EMFILE
        assert any('"EMFILE"' in line for line in at.errors())
    assert os.write(fd, b'{"role":"user","content":"x"}\n') == 30
    os.close(fd)
    assert session.steps() == [entry("first"), entry("x")]
    assert (at.path / other.slug / "history.jsonl").read_bytes() == b""
    assert sorted(os.listdir(at.path)) == [".stepfs", session.slug, other.slug]


@pytest.mark.guarantee("G15a", "G19b")
def test_a_file_that_may_grow_no_further_leaves_no_half_step(
    store: StoreOnDisk, mount: Mounting
) -> None:
    """The kernel writes the part that fits and refuses the rest."""
    session = store.session()
    at = mount()
    assert at.server is not None
    _expect(at, errno.EFBIG)
    long = entry("x" * 5000) + b"\n"
    with _limit(at.server.pid, resource.RLIMIT_FSIZE, 2000):
        short = entry("short") + b"\n"
        taken, number = _write_all(at.path / session.slug / "append", short + long + short)
        assert (taken, number) == (len(short), errno.EFBIG)
        assert session.steps() == [short.rstrip()]
    assert _write_all(at.path / session.slug / "append", long) == (len(long), 0)
    assert session.steps() == [short.rstrip(), long.rstrip()]
    _nothing_left_over(session)


SHORT_WRITES = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>
ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    struct stat about;
    if (!real) real = dlsym(RTLD_NEXT, "write");
    if (size > 7 && fd > 2 && fstat(fd, &about) == 0 && S_ISREG(about.st_mode)) size = 7;
    return real(fd, data, size);
}
"""


@pytest.mark.guarantee("G15a", "G19b")
def test_writes_that_are_cut_short_are_gone_on_with(
    store: StoreOnDisk, tmp_path: Path, mount: Mounting
) -> None:
    source, shim = tmp_path / "short.c", tmp_path / "short.so"
    source.write_text(SHORT_WRITES)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    session = store.session()
    at = mount()
    at.stop()
    at.start(LD_PRELOAD=str(shim))
    lines = _lines(THREADED)
    _text("append", "".join(line.decode() for line in lines))(at.path / session.slug)
    _text("compact", "a-name-of-some-length\n")(at.path / session.slug)
    _text("meta.json", '{"title":"a title of some length"}')(at.path / session.slug)
    (at.path / "new_one_1").mkdir()
    assert session.steps()[:-1] == [line.rstrip() for line in lines]
    assert json.loads(session.steps()[-1])["archive_name"] == "a-name-of-some-length"
    assert session.meta()["title"] == "a title of some length"
    at.stop()
    _healthy(store)
