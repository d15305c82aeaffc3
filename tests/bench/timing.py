"""Timing of alternating measurements."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

Measure = Callable[[], float]
"""Does something once and returns the seconds that the relevant part took."""
BUFFER = 1 << 17
"""The size of the reads of `cat`."""


def read(path: Path) -> int:
    """Read a file to its end, dropping the data; return its size."""
    fd, total, buffer = os.open(path, os.O_RDONLY), 0, bytearray(BUFFER)
    try:
        while got := os.readv(fd, [buffer]):
            total += got
    finally:
        os.close(fd)
    return total


def timed(work: Callable[[], object]) -> Measure:
    """A measure of everything that `work` does."""

    def measure() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return measure


def shell(command: str, *directories: Path) -> None:
    """Run a shell command with `directories` as `$1`, `$2` …; its output is read and dropped."""
    words = ["sh", "-c", command, "sh", *map(str, directories)]
    # Through a pipe: grep and tar skip the work if their output is /dev/null.
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while process.stdout.read(1 << 20):
            pass
    assert process.returncode == 0, f"{command}: exit code {process.returncode}"


def interleaved(rounds: int, *measures: Measure) -> list[list[float]]:
    """The times of each measure, taken in the order A B B A: so all meet the same disturbances, and none
    always follows another."""
    times: list[list[float]] = [[] for _ in measures]
    order = list(zip(measures, times, strict=True))
    for _ in range(rounds):
        for measure, taken in order:
            taken.append(measure())
        order.reverse()
    return times
