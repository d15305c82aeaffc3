"""A mount served by another process, which can never hang a test."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from tests.support.commands import STEPFS, clear, environment, is_mounted, until

SECONDS, SOAK_SECONDS = 60.0, 4 * 3600.0
ALLOWED = (
    "holds no session yet",
    "is skipped:",
    "is mounted at",
    "unmounted",
    "are not logged one by one",  # the first of them were logged
)


class Mount:
    """A running mount of `store` at `path`, with its log."""

    def __init__(self, store: Path, path: Path, log: Path, options: Sequence[str] = ()) -> None:
        self.store = store
        self.path = path
        self.log_file = log
        self.options = list(options)
        self.server: subprocess.Popen[bytes] | None = None
        self.expected: list[str] = []
        """Substrings of the warnings that the test provokes."""
        self.limits: dict[int, int] = {}
        """Resource limits of the server."""

    def start(self, **env: str) -> Mount:
        """Mount, and wait until the mount answers."""
        arguments = [word for option in self.options for word in ("-o", option)]
        with self.log_file.open("ab") as log:
            self.server = subprocess.Popen(
                [*STEPFS, "mount", "-f", str(self.store), str(self.path), *arguments],
                env=environment(PYTHONWARNINGS="default", **env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        for limit, most in self.limits.items():
            resource.prlimit(self.server.pid, limit, (most, most))
        until(lambda: self._is_there() or self._ended())
        assert not self._ended(), self.log()
        os.statvfs(self.path)
        return self

    def stop(self) -> None:
        """Stop the mount as systemd does, and check that it ends well."""
        assert self.server is not None
        self.server.send_signal(signal.SIGTERM)
        code = self.server.wait(30)
        assert code == 0, f"exit code {code}: {self.log()}"
        assert not is_mounted(self.path)

    def kill(self) -> None:
        """Kill the server; the dead mount stays."""
        assert self.server is not None
        self.server.kill()
        self.server.wait(30)

    def workers(self) -> list[int]:
        """The worker processes that read long documents for the server."""
        assert self.server is not None
        pgrep = ["pgrep", "-P", str(self.server.pid), "-f", "spawn_main"]
        listed = subprocess.run(pgrep, capture_output=True, text=True, check=False)
        return [int(pid) for pid in listed.stdout.split()]

    def log(self) -> str:
        """Everything logged so far."""
        return self.log_file.read_text(errors="replace")

    def unexpected(self) -> list[str]:
        """Lines of the log that neither normal operation nor the test explains."""
        fine = (*ALLOWED, *self.expected)
        return [
            line for line in self.log().splitlines() if line and not any(p in line for p in fine)
        ]

    def errors(self) -> list[str]:
        """The lines of errors.jsonl."""
        return (self.path / ".stepfs/errors.jsonl").read_text().splitlines()

    def _is_there(self) -> bool:
        """Whether a live server has mounted: the mount of a killed server does not count."""
        with contextlib.suppress(OSError):
            os.statvfs(self.path)
            return is_mounted(self.path)
        return False

    def _ended(self) -> bool:
        return self.server is not None and self.server.poll() is not None


class TooLongError(AssertionError):
    """The test exceeded its time limit."""


def seconds_for(request: pytest.FixtureRequest) -> float:
    """The time limit of the requesting test."""
    return SOAK_SECONDS if request.node.get_closest_marker("soak") else SECONDS


@contextmanager
def time_limit(below: Path, seconds: float = SECONDS) -> Iterator[None]:
    """Abort every mount under `below` when time is up, so that whatever is blocked on one returns."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        clear(below)
        os.kill(os.getpid(), signal.SIGUSR2)

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        raise TooLongError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGUSR2, interrupted)
    timer = threading.Timer(seconds, expire)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR2, before)


@contextmanager
def mounted(
    store: Path,
    directory: Path,
    *options: str,
    name: str = "mnt",
    check: bool = True,
    limits: Mapping[int, int] | None = None,
) -> Iterator[Mount]:
    """A mount of `store` under `directory`; it must end well and, if `check`, log nothing unexpected.

    `limits` are resource limits of the server, used as both soft and hard limit.
    """
    path = directory / name
    path.mkdir(exist_ok=True)
    mount = Mount(store, path, directory / f"{name}.log", options)
    mount.limits = dict(limits or {})
    try:
        mount.start()
        yield mount
        if mount.server is not None and mount.server.poll() is None:
            mount.stop()
        if check:
            assert mount.unexpected() == [], mount.unexpected()
    finally:
        if is_mounted(path):
            clear(path)
        if mount.server is not None:
            mount.server.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                mount.server.wait(10)
