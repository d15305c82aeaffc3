"""A probe of another session: it opens, reads and closes its history every 5 ms."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from storage.documents.pool import WORKERS
from storage.documents.worker import NICENESS

LEAST_SECONDS = 1.0
"""Measure for at least this long, to get about a hundred operations for the 99th percentile."""
P99_MS, MOST_MS = 20.0, 100.0

_PROGRAM = """
import json, select, sys, time
times, end = [], time.monotonic() + float(sys.argv[2])
while not select.select([sys.stdin], [], [], 0)[0] or time.monotonic() < end:
    time.sleep(0.005)
    began = time.perf_counter()
    with open(sys.argv[1], "rb", buffering=0) as file:
        file.read()
    times.append(1000 * (time.perf_counter() - began))
print(json.dumps(times))
"""


@dataclass(frozen=True)
class Waits:
    """How long the operations took, in milliseconds."""

    times: list[float]

    @property
    def p99(self) -> float:
        """The 99th percentile."""
        return sorted(self.times)[len(self.times) * 99 // 100]

    @property
    def most(self) -> float:
        """The longest operation."""
        return max(self.times)

    def __str__(self) -> str:
        return f"{len(self.times)} operations, p99 {self.p99:.1f} ms, max {self.most:.1f} ms"


class Probe:
    """A process that measures until the context ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.waits = Waits([])

    def __enter__(self) -> Probe:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _PROGRAM, str(self._path), str(LEAST_SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        time.sleep(0.1)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        answer, _ = self._process.communicate(b"\n", timeout=30)
        self.waits = Waits(json.loads(answer))


@contextmanager
def busy_workers() -> Iterator[None]:
    """Processes that keep the CPU busy at the workers' priority until the context ends."""
    command = [sys.executable, "-S", "-c", "while True: pass"]
    busy = [subprocess.Popen(["nice", "-n", str(NICENESS), *command]) for _ in range(WORKERS)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@contextmanager
def undisturbed(path: Path, what: str) -> Iterator[None]:
    """Assert that the block does not delay a probe of the file `path`.

    The limits assume a machine with a free core. The delay that a machine without one causes anyway is
    measured first, beside as many busy processes as there are workers, and is allowed for.
    """
    with busy_workers(), Probe(path) as alone:
        pass
    with Probe(path) as beside:
        yield
    print(f"{what}: {beside.waits} (beside busy workers: {alone.waits})")
    assert beside.waits.p99 < P99_MS + 2 * alone.waits.p99, what
    assert beside.waits.most < MOST_MS + 2 * alone.waits.most, what
