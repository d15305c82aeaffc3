"""Worker processes judge and render long documents as the server would, or refuse in bounded time."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from storage.documents import pool as documents_pool
from storage.documents.pool import MEMORY_BYTES, WORKERS, Documents, Show
from storage.documents.worker import digest
from storage.errors import StoreError
from storage.formats.accept import stored_form
from storage.formats.kinds import Kind, NotAStep, Step
from storage.render import jsonl
from storage.session.steps import READ_FLAGS, STEP_BYTES_MAX
from tests.support.stores import compaction, entry, event

LONG = "x" * (1 << 20)


@pytest.fixture(scope="module")
def documents() -> Iterator[Documents]:
    found = Documents()
    yield found
    found.close()


def show(step: Step, _session_fd: int, _name: str) -> bytes | None:
    """The message of an entry; nothing for other steps."""
    return jsonl.message_line(step) if step.kind is Kind.ENTRY else None


def dawdle(_step: Step, _session_fd: int, _name: str) -> bytes | None:
    time.sleep(60)
    return None


def gorge(_step: Step, _session_fd: int, _name: str) -> bytes | None:
    return b"".join([bytes(1 << 30) for _ in range(8)])


def leave_a_cycle(_step: Step, _session_fd: int, _name: str) -> bytes | None:
    cycle: list[object] = [bytearray(MEMORY_BYTES // 3)]
    cycle.append(cycle)
    return b"text"


def lack_memory_in_orjson(_step: Step, _session_fd: int, _name: str) -> bytes | None:
    raise SystemError("<built-in function loads> returned a result with an exception set")


def crash(_step: Step, _session_fd: int, _name: str) -> bytes | None:
    os.kill(os.getpid(), signal.SIGSEGV)
    return None


def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def command_of(pid: str) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if b"spawn_main" in command_of(child)]


@pytest.mark.guarantee("G6e", "G19c")
@pytest.mark.parametrize(
    "line",
    [
        entry(LONG),
        b'{"role":"user","content":"' + LONG.encode() + b'"}',
        event(),
        entry(LONG)[:-2],
        b"\xff" * 1000,
        b"[" * 100_000 + b"]" * 100_000,
        compaction("archive"),
        b" ",
    ],
    ids=["entry", "bare", "event", "cut", "no text", "deep", "compaction", "empty"],
)
def test_a_worker_judges_a_line_as_the_server_would(documents: Documents, line: bytes) -> None:
    try:
        expected = stored_form(line)
    except StoreError as error:
        with pytest.raises(StoreError) as refused:
            documents.judge(line)
        found = refused.value
        assert (found.errno, found.code, found.sentence) == (
            error.errno,
            error.code,
            error.sentence,
        )
    else:
        step = documents.judge(line)
        assert (step.kind, step.data) == (expected.kind, expected.data)


def test_a_worker_renders_a_step_as_the_server_would(documents: Documents, tmp_path: Path) -> None:
    (tmp_path / "step-000001").write_bytes(b'{"agent":"guest",' + entry(LONG)[1:])
    (tmp_path / "step-000002").write_bytes(compaction("n" * 5000))
    (tmp_path / "step-000003").write_bytes(entry(LONG)[:-1])
    session = os.open(tmp_path, os.O_RDONLY)
    try:
        step, line = documents.meet(session, "step-000001", READ_FLAGS, show)
        assert (step.kind, step.value["agent"]) == (Kind.ENTRY, "guest")
        assert line == entry(LONG)[len(b'{"message":') : -1] + b"\n"
        step, line = documents.meet(session, "step-000002", READ_FLAGS, show)
        assert (step.archive, line) == ("n" * 5000, None)
        with pytest.raises(NotAStep, match="not JSON at byte"):
            documents.meet(session, "step-000003", READ_FLAGS, show)
        with pytest.raises(FileNotFoundError):
            documents.meet(session, "step-000004", READ_FLAGS, show)
        os.truncate(tmp_path / "step-000003", STEP_BYTES_MAX + 1)
        with pytest.raises(OSError) as refused:
            documents.meet(session, "step-000003", READ_FLAGS, show)
        assert refused.value.errno == errno.EFBIG
    finally:
        os.close(session)


@pytest.mark.guarantee("G19a", "G23d")
def test_workers_that_are_stopped_make_one_document_late_and_are_replaced() -> None:
    documents = Documents(deadline_seconds=2)
    try:
        documents.judge(entry("before"))
        until(lambda: len(children(os.getpid())) >= WORKERS)
        stopped = children(os.getpid())
        for worker in stopped:
            os.kill(worker, signal.SIGSTOP)
        with pytest.raises(StoreError) as refused:
            documents.judge(entry("late"))
        assert refused.value.errno == errno.ETIMEDOUT
        began = time.monotonic()
        assert documents.judge(entry("after")).data == entry("after")
        assert time.monotonic() - began < 2
        until(lambda: not set(stopped) & set(children(os.getpid())), 20)
    finally:
        documents.close()


@pytest.mark.guarantee("G23d")
@pytest.mark.parametrize(
    ("doing", "number"),
    [
        (dawdle, errno.ETIMEDOUT),
        (gorge, errno.ENOMEM),
        (lack_memory_in_orjson, errno.ENOMEM),
        (crash, errno.ENOMEM),
    ],
)
def test_a_document_that_takes_too_long_or_too_much_memory_is_refused_and_the_next_is_served(
    tmp_path: Path, doing: Show, number: int
) -> None:
    (tmp_path / "step-000001").write_bytes(entry("text"))
    session = os.open(tmp_path, os.O_RDONLY)
    documents = Documents(deadline_seconds=2)
    try:
        began = time.monotonic()
        with pytest.raises(StoreError) as refused:
            documents.meet(session, "step-000001", READ_FLAGS, doing)
        assert refused.value.errno == number
        assert time.monotonic() - began < 6
        assert documents.meet(session, "step-000001", READ_FLAGS, show)[0].kind is Kind.ENTRY
    finally:
        documents.close()
        os.close(session)


@pytest.mark.guarantee("G23d")
def test_what_a_document_leaves_in_cycles_is_gone_before_the_next(tmp_path: Path) -> None:
    (tmp_path / "step-000001").write_bytes(entry("text"))
    session = os.open(tmp_path, os.O_RDONLY)
    documents = Documents()
    try:
        for _ in range(3 * WORKERS):
            shown = documents.meet(session, "step-000001", READ_FLAGS, leave_a_cycle)[1]
            assert shown == b"text"
    finally:
        documents.close()
        os.close(session)


LIMITED_SERVER = """
import os, resource, sys
from storage.documents.pool import Documents
from storage.errors import StoreError
from storage.session.steps import READ_FLAGS
from tests.storage.documents.test_pool import gorge
resource.setrlimit(resource.RLIMIT_AS, (768 << 20, 768 << 20))
documents = Documents()
try:
    documents.meet(os.open(sys.argv[1], os.O_RDONLY), "step-000001", READ_FLAGS, gorge)
except StoreError as error:
    print(error.code, error.sentence)
documents.close()
"""


@pytest.mark.guarantee("G23d")
def test_the_refusal_names_the_memory_limit_that_the_server_was_started_with(
    tmp_path: Path,
) -> None:
    (tmp_path / "step-000001").write_bytes(entry("text"))
    server = subprocess.run(
        [sys.executable, "-c", LIMITED_SERVER, tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert server.stdout.startswith("document-too-big ")
    assert "at most 768 MiB" in server.stdout


@pytest.mark.guarantee("G23d", "G23b")
def test_no_worker_runs_before_the_first_document_or_long_after_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(documents_pool, "IDLE_SECONDS", 0.3)
    before = children(os.getpid())
    documents = Documents()
    assert children(os.getpid()) == before
    documents.judge(entry("text"))
    assert children(os.getpid()) != before
    until(lambda: children(os.getpid()) == before)
    assert documents.judge(entry("text")).kind is Kind.ENTRY
    documents.close()
    assert children(os.getpid()) == before


SERVER = """
import sys
from storage.documents.pool import Documents, Show
documents = Documents()
documents.judge(b'{"message":{"role":"user"}}')
print("ready", flush=True)
sys.stdin.read()
"""


def opened(process: int) -> set[str]:
    """The paths that a process has open; a starting process opens and closes modules meanwhile."""
    paths = set()
    for number in os.listdir(f"/proc/{process}/fd"):
        with suppress(FileNotFoundError):
            paths.add(os.readlink(f"/proc/{process}/fd/{number}"))
    return paths


@pytest.mark.guarantee("G23d")
def test_workers_end_with_a_server_that_is_killed(tmp_path: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin
    assert server.stdout
    with server.stdin, server.stdout:
        assert server.stdout.readline() == b"ready\n"
        workers = children(server.pid)
        assert workers
        for worker in workers:
            assert not {path for path in opened(worker) if path.startswith(str(tmp_path))}
        server.kill()
        server.wait()
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def test_a_shortened_value_keeps_the_keys_that_show_its_kind() -> None:
    value: dict[str, Any] = {f"unknown{n}": n for n in range(1000)}
    blocks = [{"type": "text", "text": LONG}] * 1000
    value["message"] = {"role": "user", "content": blocks}
    message = digest(value)["message"]
    assert (message["role"], message["content"][0]["type"]) == ("user", "text")
    assert len(str(digest(value))) < 20_000
