"""Processes that use or serve the mount are stopped, killed or limited: others are still served."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import until
from tests.support.mounted import Mount
from tests.support.stores import StoreOnDisk, entry

Mounting = Callable[..., Mount]
SLUG, OTHER, THIRD = "crab_tg-42_1", "crab_tg-42_2", "crab_tg-42_3"


def _long(items: int) -> bytes:
    return b'{"message":{"role":"user","content":[' + b'{"a":1,"a":2},' * items + b"1]}}"


LONG = _long(400_000)
"""Keeps a worker busy for some time."""
SHORTER = _long(30_000)
"""Goes to a worker as well, but is finished soon even on a busy machine."""
ANSWERED_SECONDS = 10.0

WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
line = sys.stdin.buffer.read()
print("begins", flush=True)
while True:
    os.write(fd, line)
"""

MAPPER = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
mapped = mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ)
os.write(1, mapped[size - 1 : size])
sys.stdin.readline()
os.write(1, mapped[:1])
os.write(1, mapped[size - 1 : size])
"""
"""Reads the end of a mapping, and on request its beginning and its end again."""


def _is_used(mount: Mount) -> None:
    began = time.monotonic()
    (mount.path / OTHER / "append").write_bytes(entry("more") + b"\n")
    assert (mount.path / OTHER / "history.jsonl").read_bytes().endswith(entry("more") + b"\n")
    assert time.monotonic() - began < 5


@pytest.mark.guarantee("G19a", "G23d")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_stopped_worker_is_replaced_and_its_callers_are_answered(
    store: StoreOnDisk, mount: Mounting, number: signal.Signals
) -> None:
    store.session(SLUG, LONG)
    store.session(OTHER, entry("x"))
    store.session(THIRD, SHORTER)
    at = mount(check=False)
    answers: list[int] = []

    def read() -> None:
        try:
            (at.path / SLUG / "messages.jsonl").read_bytes()
        except OSError as error:
            answers.append(error.errno or 0)

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: bool(at.workers()))
    time.sleep(0.5)
    for worker in at.workers():
        os.kill(worker, number)
    _is_used(at)
    reader.join(ANSWERED_SECONDS)
    assert not reader.is_alive()
    assert set(answers) <= {errno.ENOMEM, errno.ETIMEDOUT}
    assert (at.path / THIRD / "history.jsonl").read_bytes() == SHORTER + b"\n"


@pytest.mark.guarantee("G19g")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_process_interrupted_while_waiting_for_a_long_document_ends_in_time(
    store: StoreOnDisk, mount: Mounting, number: signal.Signals
) -> None:
    store.session(SLUG, LONG)
    store.session(OTHER, entry("x"))
    store.session(THIRD, SHORTER)
    at = mount()
    at.expected += ["(ETIMEDOUT)", "(ENOMEM)"]
    with subprocess.Popen(
        ["cat", at.path / SLUG / "messages.jsonl"], stdout=subprocess.DEVNULL
    ) as reader:
        until(lambda: bool(at.workers()))
        time.sleep(0.3)
        assert reader.poll() is None
        reader.send_signal(number)
        _is_used(at)
        assert reader.wait(ANSWERED_SECONDS) == -number
    assert (at.path / THIRD / "history.jsonl").read_bytes() == SHORTER + b"\n"


@pytest.mark.guarantee("G19b", "G15b")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGINT])
def test_a_writer_that_is_killed_or_stopped_in_a_write_holds_nobody_up(
    store: StoreOnDisk, mount: Mounting, number: signal.Signals
) -> None:
    session = store.session(SLUG)
    store.session(OTHER, entry("x"))
    at = mount("sync=never")
    at.expected.append("had no newline")
    lines = entry("line") + b"\n"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(at.path / SLUG / "append")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as writer:
        assert writer.stdin
        assert writer.stdout
        writer.stdin.write(lines * 2000)
        writer.stdin.close()
        assert writer.stdout.readline() == b"begins\n"
        time.sleep(0.5)
        writer.send_signal(number)
        _is_used(at)
        (at.path / SLUG / "append").write_bytes(entry("another's") + b"\n")
        writer.kill()
        writer.wait(ANSWERED_SECONDS)
    assert set(session.steps()) == {entry("line"), entry("another's")}
    assert session.steps().count(entry("another's")) == 1


@pytest.mark.guarantee("G5d")
def test_a_line_may_come_byte_by_byte(store: StoreOnDisk, mount: Mounting) -> None:
    session = store.session(SLUG)
    at = mount("sync=never")
    line = entry("x" * 2000) + b"\n"
    fd = os.open(at.path / SLUG / "append", os.O_WRONLY)
    for at_byte in range(len(line)):
        assert os.write(fd, line[at_byte : at_byte + 1]) == 1
    os.close(fd)
    assert session.steps() == [line[:-1]]


@pytest.mark.guarantee("S2", "S4", "G19b")
def test_a_store_full_of_what_is_no_session_and_no_step_is_served(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session(SLUG, entry("x"))
    root = os.fsencode(store.path)
    for name in (b"new\nline_a_1", b"bad\xff_a_1", b"x" * 250 + b"_1_1", b"-_-_-"):
        os.mkdir(root + b"/" + name)
        Path(os.fsdecode(root + b"/" + name + b"/meta")).write_text("{}")
    os.symlink("/", store.path / "root_a_1")
    os.symlink(".", store.path / "self_a_1")
    os.mkfifo(store.path / "fifo_a_1")
    for kind, make in (("fifo", os.mkfifo), ("directory", os.mkdir)):
        (store.path / f"{kind}meta_a_1").mkdir()
        make(store.path / f"{kind}meta_a_1/meta")
    os.mkfifo(session.path / "step-000002")
    os.symlink("step-000003", session.path / "step-000003")
    os.symlink("/dev/zero", session.path / "step-000004")
    (session.path / "step-00000\n5").write_bytes(entry("no number"))
    (session.path / "step-18446744073709551616").write_bytes(entry("too great a number"))
    at = mount()
    found = subprocess.run(
        ["grep", "-r", "no such text", at.path], capture_output=True, text=True, timeout=60
    )
    assert (found.returncode, found.stderr) == (1, "")
    assert (at.path / SLUG / "history.jsonl").read_bytes() == entry("x") + b"\n"
    assert (at.path / SLUG / "log.jsonl").read_bytes() == entry("x") + b"\n"


@pytest.mark.guarantee("G13d", "G19b")
@pytest.mark.parametrize("name", ["meta.json", "sessions.jsonl"])
def test_who_maps_a_file_that_becomes_shorter_gets_sigbus_and_nobody_else_does(
    store: StoreOnDisk, mount: Mounting, name: str
) -> None:
    session = store.session(SLUG, entry("x"))
    store.session(OTHER, entry("x"))
    others = [store.session(f"more_tg-1_{n}") for n in range(60)]
    at = mount()
    mapped = at.path / ".stepfs" / name if name == "sessions.jsonl" else at.path / SLUG / name
    (at.path / SLUG / "meta.json").write_bytes(b'{"title":"' + b"t" * 12_000 + b'"}')
    before = len(mapped.read_bytes())
    with subprocess.Popen(
        [sys.executable, "-c", MAPPER, str(mapped)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as mapper:
        assert mapper.stdout
        assert mapper.stdout.read(1) == b"\n"
        (at.path / SLUG / "meta.json").write_bytes(b'{"title":"short"}')
        for other in others:
            (at.path / other.slug).rmdir()
        until(lambda: mapped.stat().st_size < before - 8192)
        answer, _ = mapper.communicate(b"\n", ANSWERED_SECONDS)
    assert (mapper.returncode, answer) == (-signal.SIGBUS, b"{")
    _is_used(at)
    assert session.meta()["title"] == "short"
