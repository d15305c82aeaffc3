"""Two mounts of one store on two hosts, inside one of the fixtures beside this file.

`SHARED_PART` scales the work of each test, in percent: 100 by default.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.commands import STEPFS, environment

SECONDS = 60


class Host:
    """One of the two hosts: its client's path to the store, and its mount."""

    def __init__(self, name: str, root: Path, scratch: Path, store: str) -> None:
        self.on = f"on-{name}"
        self.store = root / store
        self.path = scratch / f"{store}-{name}"

    def command(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command on this host and wait for it."""
        return subprocess.run(
            [self.on, *map(str, words)],
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=check,
        )

    def stepfs(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.command(*STEPFS, *words, check=check)

    @contextmanager
    def mounted(self, *options: str) -> Iterator[None]:
        """The store is mounted here while the context lasts."""
        self.path.mkdir()
        done = self.stepfs(
            "mount", self.store, self.path, *(f"-o{option}" for option in options), check=False
        )
        assert done.returncode == 0, done.stderr
        try:
            yield
        finally:
            done = self.stepfs("umount", self.path, check=False)
            assert done.returncode == 0, done.stderr
            self.path.rmdir()

    def write(self, session: str, lines: Sequence[str], file: str = "append") -> None:
        """Write lines through one open file, one write each, as `exec 3>>append` does."""
        with open(self.path / session / file, "ab", buffering=0) as control:
            for line in lines:
                control.write(line.encode() + b"\n")

    def contents(self, session: str, file: str = "history.jsonl") -> list[str]:
        """The contents of a view's entries."""
        text = (self.path / session / file).read_bytes()
        return [json.loads(line)["message"]["content"] for line in text.splitlines()]

    def status(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.path / ".stepfs/status.json").read_bytes())
        return found

    def errors(self) -> list[str]:
        return (self.path / ".stepfs/errors.jsonl").read_text().splitlines()


def part(whole: int) -> int:
    return max(2, whole * int(os.environ.get("SHARED_PART", "100")) // 100)


def user(text: str) -> str:
    return json.dumps({"role": "user", "content": text}, separators=(",", ":"))


def both_hosts(store: str) -> tuple[Host, Host]:
    """The fixture's two hosts, with a new empty store of that name."""
    scratch = Path(os.environ["SCRATCH"])
    hosts = (
        Host("a", Path(os.environ["A"]), scratch, store),
        Host("b", Path(os.environ["B"]), scratch, store),
    )
    hosts[0].store.mkdir()
    until(hosts[1].store.is_dir)
    return hosts


def until(true: Callable[[], bool], seconds: float = 45) -> float:
    """Wait for a condition; returns how many seconds it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        time.sleep(0.005)
    return time.monotonic() - began


def at_once(*works: Callable[[], object]) -> None:
    """Run all at the same time, each in its own process; each must succeed."""
    children = []
    for work in works:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work()
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc(file=sys.stderr)
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)
