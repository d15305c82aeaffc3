"""Looking at a server's system calls, and making them fail, with strace."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.mount.commands import until

_CALL = re.compile(r"(\d+) +(\d+\.\d+) (\w+)\((.*)\)\s+= (-?\d+)(.*?)<(\d+\.\d+)>$")
_BEGUN = re.compile(r"(\d+) +(\d+\.\d+) (\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(\d+) +(\d+\.\d+) <\.\.\. (\w+) resumed>(.*)$")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call; times in seconds since the epoch."""

    name: str
    arguments: str
    result: int
    began: float
    ended: float

    @property
    def fd(self) -> int:
        """The descriptor that is the first argument."""
        match = re.match(r"(\d+)", self.arguments)
        assert match is not None, self
        return int(match[1])


@dataclass(slots=True)
class Trace:
    """The calls that were made while it was taken, in the order in which they began."""

    calls: list[Call] = field(default_factory=list)

    def named(self, *names: str) -> list[Call]:
        """The calls of these names that succeeded."""
        return [call for call in self.calls if call.name in names and call.result >= 0]


@contextmanager
def traced(pid: int, calls: str, scratch: Path) -> Iterator[Trace]:
    """Take down the system calls `calls` of a process and all its threads."""
    trace = Trace()
    out = scratch / "trace"
    with _attached(pid, "-ttt", "-T", "-y", "-s", "64", "-e", f"trace={calls}", "-o", str(out)):
        yield trace
    trace.calls = sorted(_calls(out.read_text(errors="replace")), key=lambda call: call.began)
    out.unlink()


@contextmanager
def failing(pid: int, call: str, how: str, within: Path | None = None) -> Iterator[None]:
    """Make a system call of a process fail as strace's `inject` says, such as `error=EIO:when=2`.

    With `within` only the calls on that path or descriptor.
    """
    only = ("-P", str(within)) if within is not None else ()
    inject = ("-e", f"trace={call}", "-e", f"inject={call}:{how}")
    with _attached(pid, *inject, *only, "-o", "/dev/null"):
        yield


@contextmanager
def _attached(pid: int, *options: str) -> Iterator[None]:
    strace = subprocess.Popen(
        ["strace", "-f", "-p", str(pid), *options],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: strace.poll() is not None or _is_traced(pid))
        assert strace.poll() is None, strace.stderr and strace.stderr.read()
        yield
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate(timeout=30)


def _is_traced(pid: int) -> bool:
    """Whether each thread of a process has a tracer, and is not stopped by it."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        status = (thread / "status").read_text()
        if "TracerPid:\t0\n" in status or "State:\tt" in status:
            return False
    time.sleep(0.02)  # a thread that was seized is told its options a moment later
    return True


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
