"""The commands as users run them, each in its own process and with a time limit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusefs import mounts as mountinfo

PROJECT = Path(__file__).parents[2]
SECONDS = 30
STEPFS = (
    sys.executable,
    "-c",
    "import sys; from fusefs.cli import start; sys.exit(start.stepfs())",
)
HELPER = (
    sys.executable,
    "-c",
    "import sys; from fusefs.cli import start; sys.exit(start.mount_stepfs())",
)
Answer = subprocess.CompletedProcess[str]


def environment(**more: str) -> dict[str, str]:
    """The caller's environment, with bytecode cached as for an installed package: otherwise every
    start would compile everything."""
    return {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "", **more}


def stepfs(*arguments: str | Path) -> Answer:
    return run([*STEPFS, *map(str, arguments)])


def mount_stepfs(*arguments: str | Path) -> Answer:
    return run([*HELPER, *map(str, arguments)])


def run(command: Sequence[str], **changed: str) -> Answer:
    """Run a command to completion, with `changed` added to its environment."""
    return subprocess.run(
        command,
        env=environment(**changed),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@contextmanager
def foreground(*arguments: str | Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Run `stepfs mount -f`; kill the server at the end."""
    server = subprocess.Popen(
        [*STEPFS, "mount", "-f", *map(str, arguments)],
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield server
    finally:
        server.kill()
        server.communicate(timeout=SECONDS)


def until(true: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until `true()` returns true, polling often; raise AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.01)


def is_mounted(mountpoint: Path) -> bool:
    found = mountinfo.top(str(mountpoint))
    return found is not None and found.is_stepfs


def ended(pid: int) -> bool:
    """Whether the process has exited, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def polls(pid: int, name: str) -> bool:
    """Whether the process is blocked in poll(2) with a file of that name open."""
    try:
        opened = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except FileNotFoundError:  # a descriptor was just closed
        return False
    is_open = any(path.endswith(f"/{name}") for path in opened)
    return is_open and "poll" in Path(f"/proc/{pid}/wchan").read_text()


def clear(below: Path) -> None:
    """Abort and unmount every stepfs mount under `below`, and kill its server."""
    for mount in reversed(mountinfo.mounts()):
        if mount.is_stepfs and Path(mount.mountpoint).is_relative_to(below):
            with contextlib.suppress(OSError):
                Path(f"/sys/fs/fuse/connections/{mount.number}/abort").write_text("1")
            for how in ("-f", "-l"):
                umount = ["umount", how, mount.mountpoint]
                subprocess.run(umount, check=False, timeout=SECONDS, stderr=subprocess.DEVNULL)
    for pid in serving(below):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def serving(below: Path) -> list[int]:
    """The processes that were started to mount something under `below`."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if any(word.startswith(bytes(below) + b"/") for word in words) and not ended(
                    int(entry.name)
                ):
                    found.append(int(entry.name))
    return found


def mounted(store: Path, mountpoint: Path, *arguments: str) -> None:
    """Mount in the background; the command must print nothing."""
    answer = stepfs("mount", *arguments, store, mountpoint)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def server_pid(mountpoint: Path) -> int:
    """The PID of the server of a mount, as `stepfs status` reports it."""
    pid = json.loads(stepfs("status", "--json", mountpoint).stdout)["pid"]
    assert isinstance(pid, int)
    return pid


def shell(at: Path, script: str, program: str = "bash") -> Answer:
    """Run a shell script in a directory."""
    return run([program, "-c", f"cd '{at}' && {script}"])


@contextmanager
def failing(number: int) -> Iterator[None]:
    """The block must fail with that errno."""
    with pytest.raises(OSError) as refused:
        yield
    assert refused.value.errno == number
