"""A writer that behaves like the reference daemon: it assumes that nobody else writes to the store.

It reads the greatest step number of a session once and counts in memory from then on, writes a
temporary and renames it over the next number without checking. It keeps its metas in memory too.

`python -m tests.support.daemon STORE SLUG NAME COUNT EVERY [PAUSE]` stores COUNT messages, with a
compaction before every EVERY-th (0: none), PAUSE seconds apart. It prints the number and the inode
of each step.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

from tests.support.commands import environment
from tests.support.stores import compaction, entry
from tests.support.writers import text

PAUSE = 0.002
"""Seconds between two messages; a real model takes longer."""


class Daemon:
    """One running daemon."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._next: dict[str, int] = {}
        self._metas: dict[str, dict[str, object]] = {}
        self.written: list[tuple[int, int]] = []
        """Number and inode of each step."""

    def store_step(self, slug: str, data: bytes) -> int:
        """Write the step under the next number counted in memory, replacing whatever is there."""
        number = self._next.get(slug) or self._recover(slug)
        self._next[slug] = number + 1
        inode = self._atomic_write(self._store / slug / f"step-{number:06}", data)
        self.written.append((number, inode))
        return number

    def store_meta(self, slug: str, **changed: object) -> None:
        """Write the meta from memory, with some keys changed."""
        path = self._store / slug / "meta"
        if slug not in self._metas:
            self._metas[slug] = json.loads(path.read_bytes())
        self._metas[slug].update(changed)
        self._atomic_write(path, json.dumps(self._metas[slug], separators=(",", ":")).encode())

    def _recover(self, slug: str) -> int:
        names = os.listdir(self._store / slug)
        numbers = [int(n[5:]) for n in names if n.startswith("step-") and n[5:].isdigit()]
        return max(numbers, default=0) + 1

    @staticmethod
    def _atomic_write(path: Path, data: bytes) -> int:
        temporary = path.with_name(f"{path.name}.tmp.{secrets.token_hex(4)}")
        temporary.write_bytes(data)
        inode = temporary.stat().st_ino
        temporary.rename(path)
        return inode


def start(
    store: Path, slug: str, name: str, count: int, every: int, pause: float = PAUSE
) -> subprocess.Popen[bytes]:
    """Start a daemon that stores messages in one session."""
    numbers = map(str, (count, every, pause))
    command = [sys.executable, "-m", __name__, str(store), slug, name, *numbers]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes], seconds: float = 100) -> list[tuple[int, int]]:
    """Wait for a daemon to exit successfully; return number and inode of each step it wrote."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0
    pairs = (line.split() for line in output.splitlines())
    return [(int(number), int(inode)) for number, inode in pairs]


def archive(name: str, number: int) -> str:
    """The archive name of the compaction before message `number`."""
    return f"{name}-archive-{number}"


def _run(store: str, slug: str, name: str, count: int, every: int, pause: float) -> None:
    daemon = Daemon(Path(store))
    for number in range(count):
        if every and number and number % every == 0:
            daemon.store_step(slug, compaction(archive(name, number)))
        daemon.store_step(slug, entry(text(name, number), "assistant"))
        if pause:
            time.sleep(pause)
    for number, inode in daemon.written:
        print(number, inode)


if __name__ == "__main__":
    store, slug, name, count, every, *pause = sys.argv[1:]
    _run(store, slug, name, int(count), int(every), float(pause[0]) if pause else PAUSE)
