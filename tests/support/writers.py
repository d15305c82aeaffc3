"""Processes that write messages into a session; each numbers its own.

`python -m tests.support.writers mount APPEND NAME COUNT LINES` writes through a mount, LINES per write;
`python -m tests.support.writers direct SESSION NAME COUNT` links step files into the store itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.support.commands import environment

LINES_AN_OPEN = 50


def start(*words: str | Path | int) -> subprocess.Popen[bytes]:
    """Start one writer."""
    command = [sys.executable, "-m", __name__, *map(str, words)]
    return subprocess.Popen(command, env=environment())


def finish(writers: Iterable[subprocess.Popen[bytes]], seconds: float = 100) -> None:
    """Wait until all have exited successfully."""
    for writer in writers:
        assert writer.wait(seconds) == 0


def text(name: str, number: int) -> str:
    """The content of one message."""
    return f"{name} {number}"


def texts(name: str, count: int) -> list[str]:
    """The contents of all messages of one writer, in order."""
    return [text(name, number) for number in range(count)]


def contents(steps: Iterable[bytes]) -> list[str]:
    """The contents of the entries among these steps, in order."""
    values = map(json.loads, steps)
    return [value["message"]["content"] for value in values if "message" in value]


def of(name: str, found: Sequence[str]) -> list[str]:
    """The contents written by the writer `name`."""
    return [content for content in found if content.rpartition(" ")[0] == name]


def through_mount(path: str, name: str, count: int, lines: int) -> None:
    """Write `count` messages to the control file `path`, `lines` in each write."""
    number = 0
    while number < count:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            for _ in range(0, LINES_AN_OPEN, lines):
                numbers = range(number, min(number + lines, count))
                messages = [{"role": "user", "content": text(name, n)} for n in numbers]
                data = b"".join(json.dumps(m).encode() + b"\n" for m in messages)
                assert os.write(fd, data) == len(data)
                number += len(numbers)
        finally:
            os.close(fd)


def directly(session: str, name: str, count: int) -> None:
    """Write `count` step files as another program may: complete, and linked exclusively."""
    at = Path(session)
    for number in range(count):
        temporary = at / f".{name}.tmp"
        message = {"message": {"role": "user", "content": text(name, number)}}
        temporary.write_text(json.dumps(message))
        steps = [int(n[5:]) for n in os.listdir(at) if n.startswith("step-") and n[5:].isdigit()]
        free = max(steps, default=0) + 1
        while True:
            try:
                os.link(temporary, at / f"step-{free:06}")
                break
            except FileExistsError:
                free += 1
        temporary.unlink()


if __name__ == "__main__":
    how, path, name, *numbers = sys.argv[1:]
    if how == "mount":
        through_mount(path, name, *map(int, numbers))
    else:
        directly(path, name, *map(int, numbers))
