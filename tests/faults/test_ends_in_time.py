"""SIGTERM ends the mount in time, whatever is in progress."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.support.commands import until
from tests.support.hostile_lines import (
    HOSTILE,
    MIB,
    append,
    broken_lines,
    content,
    read_all,
    two_sessions,
    valid_lines,
)
from tests.support.mounted import Mount
from tests.support.stores import StoreOnDisk, entry

STOP_SECONDS: Final = 15.0
"""Half of what the systemd units allow."""
DESCRIPTORS: Final = 256
OBJECTS: Final = content(b'{"a":1,"a":2},', 15 * MIB)
CUT: Final = broken_lines(8 * MIB)["cut after escapes"]


def _bulk(at: Mount) -> None:
    append(at.path, (entry("line") + b"\n") * 200_000)


def _long_line(at: Mount) -> None:
    append(at.path, OBJECTS)


def _cut_line(at: Mount) -> None:
    append(at.path, CUT)


def _read(at: Mount) -> None:
    read_all(at.path)


def _unfinished_lines(at: Mount) -> None:
    with ExitStack() as opened:
        for _ in range(100):
            file = opened.enter_context((at.path / HOSTILE / "append").open("wb", buffering=0))
            file.write(b"a" * (MIB // 4))
        time.sleep(5)


def _object_in_pieces(at: Mount) -> None:
    with (at.path / HOSTILE / "meta.json").open("wb", buffering=0) as file:
        file.write(b'{"title":"')
        for _ in range(1_000_000):
            file.write(rb"\"[]{}")


def _more_files_than_descriptors(at: Mount) -> None:
    with ExitStack() as opened:
        while True:
            for session in at.path.iterdir():
                path = session / "history.jsonl"
                opened.enter_context(path.open("rb", buffering=0)).read()


def _workers_stopped(at: Mount) -> None:
    reader = threading.Thread(target=_suppressed, args=(_read, at))
    reader.start()
    until(lambda: bool(at.workers()))
    for worker in at.workers():
        os.kill(worker, signal.SIGSTOP)
    reader.join()


def _suppressed(work: Callable[[Mount], None], at: Mount) -> None:
    """Do work that the end of the mount may interrupt."""
    with suppress(OSError, AssertionError):
        work(at)


def _sparse(session: Path) -> None:
    for name, size in (("step-000001", 3 << 29), ("step-000002", 1 << 40), ("meta", 1 << 30)):
        (session / name).touch()
        os.truncate(session / name, size)


def _bad_steps(session: Path) -> None:
    for number in range(1, 5001):
        (session / f"step-{number:06}").write_bytes(b"{")


def _sessions(session: Path) -> None:
    store = StoreOnDisk(session.parent)
    for number in range(2 * DESCRIPTORS):
        store.session(f"crab_tg-7_{number}", entry("x"))


def _step(line: bytes) -> Callable[[Path], None]:
    def put(session: Path) -> None:
        (session / "step-000001").write_bytes(line)

    return put


ROWS: Final[Mapping[str, tuple[Callable[[Path], None] | None, Callable[[Mount], None]]]] = {
    "a long line": (None, _long_line),
    "a cut line": (None, _cut_line),
    "a bulk of lines": (None, _bulk),
    "unfinished lines": (None, _unfinished_lines),
    "an object in pieces": (None, _object_in_pieces),
    "a long step": (_step(OBJECTS), _read),
    "a cut step": (_step(CUT), _read),
    "a step of short lines": (_step(valid_lines(15 * MIB)["short lines"]), _read),
    "sparse files": (_sparse, _read),
    "bad steps": (_bad_steps, _read),
    "workers that are stopped": (_step(OBJECTS), _workers_stopped),
    "more files than descriptors": (_sessions, _more_files_than_descriptors),
}
"""What is prepared in a session before the mount, and what is done while it ends."""


@pytest.mark.guarantee("G19f")
@pytest.mark.parametrize("row", ROWS)
def test_the_mount_ends_in_time_whatever_is_under_way(
    store: StoreOnDisk, mount: Callable[..., Mount], row: str
) -> None:
    two_sessions(store)
    prepare, work = ROWS[row]
    if prepare is not None:
        prepare(store.path / HOSTILE)
    at = mount("sync=never", check=False, limits={resource.RLIMIT_NOFILE: DESCRIPTORS})
    busy = threading.Thread(target=_suppressed, args=(work, at), daemon=True)
    busy.start()
    time.sleep(0.5)
    began = time.monotonic()
    at.stop()
    print(f"{row}: {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < STOP_SECONDS
    busy.join(20)
    assert not busy.is_alive()
