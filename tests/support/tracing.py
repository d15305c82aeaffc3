"""Tracing a server's system calls, and making them fail, with strace."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.commands import until
from tests.support.mounted import Mount

_LOOP = "epoll_wait"
"""The call in which the server's main thread waits between operations."""
_CALL = re.compile(r"(\d+) +(\d+\.\d+) (\w+)\((.*)\)\s+= (-?\d+)(.*?)<(\d+\.\d+)>$")
_BEGUN = re.compile(r"(\d+) +(\d+\.\d+) (\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(\d+) +(\d+\.\d+) <\.\.\. (\w+) resumed>(.*)$")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call; times in seconds since the Unix epoch."""

    name: str
    arguments: str
    result: int
    began: float
    ended: float

    @property
    def fd(self) -> int:
        """The descriptor passed as the first argument."""
        match = re.match(r"(\d+)", self.arguments)
        assert match is not None, self
        return int(match[1])


@dataclass(slots=True)
class Trace:
    """The calls made during the trace, ordered by start."""

    calls: list[Call] = field(default_factory=list)

    def named(self, *names: str) -> list[Call]:
        """The successful calls with one of these names."""
        return [call for call in self.calls if call.name in names and call.result >= 0]


@contextmanager
def traced(mount: Mount, calls: str) -> Iterator[Trace]:
    """Record the system calls `calls` of a mount's server, in all its threads."""
    trace = Trace()
    with _attached(mount, "-ttt", "-T", "-y", "-s", "64", calls=calls) as out:
        yield trace
    trace.calls = sorted(_calls(out.read_text(errors="replace")), key=lambda call: call.began)


@contextmanager
def failing(mount: Mount, call: str, how: str) -> Iterator[None]:
    """Make a system call of the server fail, as strace's `inject` describes: `error=EIO:when=2`."""
    with _attached(mount, "-e", f"inject={call}:{how}", calls=call):
        yield


@contextmanager
def _attached(mount: Mount, *options: str, calls: str) -> Iterator[Path]:
    assert mount.server is not None
    out = mount.path.with_name(f"{mount.path.name}.trace")
    out.write_bytes(b"")
    where = ["-f", "-p", str(mount.server.pid), "-o", str(out), "-e", f"trace={calls},{_LOOP}"]
    strace = subprocess.Popen(
        ["strace", *where, *options], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )

    def shows() -> bool:
        os.statvfs(mount.path)  # makes the server do something, which shows that it is traced
        assert strace.poll() is None, strace.communicate()[1]
        return f"{_LOOP}(" in out.read_text(errors="replace")

    try:
        until(shows)
        yield out
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate(timeout=30)


def _calls(text: str) -> Iterator[Call]:
    begun: dict[tuple[str, str], tuple[str, str]] = {}
    for line in text.splitlines():
        if match := _BEGUN.match(line):
            begun[match[1], match[3]] = (match[2], match[4])
            continue
        if match := _RESUMED.match(line):
            start, arguments = begun.pop((match[1], match[3]))
            line = f"{match[1]} {start} {match[3]}({arguments}{match[4]}"
        if match := _CALL.match(line):
            began = float(match[2])
            yield Call(match[3], match[4], int(match[5]), began, began + float(match[7]))
