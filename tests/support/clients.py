"""Processes that keep using a mount while its server is killed and restarted, and record outside
the mount what was acknowledged.

`python -m tests.support.clients KIND MOUNT MANIFEST SEED` runs until it is killed. Each line of the
manifest is a JSON array: `["done", what, …]` once the system call has succeeded, `["in flight", what]`
if the server died during the call."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

from tests.support.commands import environment

KINDS = ("append", "bulk", "compact", "meta", "create", "delete")
SESSION = "crab_tg-42_1"
COMPACTED = "crab_tg-42_2"
PAUSE = 0.005
"""Seconds between retries while there is no mount."""


def start(kind: str, mountpoint: Path, manifest: Path, seed: int) -> subprocess.Popen[bytes]:
    """Start one client process."""
    command = [sys.executable, "-m", __name__, kind, str(mountpoint), str(manifest), str(seed)]
    return subprocess.Popen(command, env=environment())


def text(name: str, number: int, size: int) -> str:
    """A message whose checksum shows whether it is complete."""
    body = f"{name} {number} {'x' * size}"
    return f"{body} {crc32(body.encode()):08x}"


def is_whole(content: str) -> bool:
    """Whether the content is a complete message made by `text`."""
    body, _, check = content.rpartition(" ")
    return check == f"{crc32(body.encode()):08x}"


def has_summary(archive: str) -> bool:
    """Whether the compaction of this archive was written with a summary."""
    return int(archive.rpartition("-")[2]) % 2 == 0


class Client:
    """One process's work; it never ends."""

    def __init__(self, kind: str, mountpoint: Path, manifest: Path, seed: int) -> None:
        self.name = f"{kind}-{seed}"
        self.at = mountpoint
        self._chance = random.Random(seed)
        self._manifest = os.open(manifest, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._number = 0
        self._act: Callable[[], None] = getattr(self, f"_{kind}")

    def run(self) -> None:
        """Work; retry while there is no mount."""
        while True:
            try:
                self._act()
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    self._note("in flight", self.name)
                time.sleep(PAUSE)

    def _note(self, *words: object) -> None:
        os.write(self._manifest, json.dumps(words).encode() + b"\n")

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _append(self, lines: int = 1) -> None:
        fd = os.open(self.at / SESSION / "append", os.O_WRONLY | os.O_APPEND)
        try:
            for _ in range(5):
                size = self._chance.choice((0, 10, 5000))
                texts = [text(self.name, self._next(), size) for _ in range(lines)]
                messages = [{"role": "user", "content": content} for content in texts]
                data = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
                if os.write(fd, data) == len(data):
                    for content in texts:
                        self._note("done", "message", content)
        finally:
            os.close(fd)

    def _bulk(self) -> None:
        self._append(self._chance.choice((2, 9, 40)))

    def _compact(self) -> None:
        """Alternately with the name alone and with a summary."""
        number = self._next()
        name = f"{self.name}-{number}"
        summary = json.dumps({"archive_name": name, "summary": text(self.name, number, 5000)})
        line = summary if has_summary(name) else name
        fd = os.open(self.at / COMPACTED / "compact", os.O_WRONLY)
        try:
            os.write(fd, f"{line}\n".encode())
            self._note("done", "compaction", name)
        finally:
            os.close(fd)

    def _meta(self) -> None:
        number = self._next()
        fd = os.open(self.at / COMPACTED / "meta.json", os.O_WRONLY)
        try:
            os.write(fd, json.dumps({self.name: number}).encode())
            self._note("done", "meta", self.name, number)
        finally:
            os.close(fd)

    def _create(self) -> None:
        fd = os.open(self.at / ".stepfs/create", os.O_RDWR)
        try:
            os.write(fd, b'{"agent":"Made","created_by":"client"}')
            self._note("done", "session", os.pread(fd, 100, 0).decode().strip())
        finally:
            os.close(fd)

    def _delete(self) -> None:
        slug = f"gone_{self.name}_{self._next()}"
        at = os.open(self.at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.stat(".stepfs", dir_fd=at)  # fails where nothing is mounted
            os.mkdir(slug, dir_fd=at)
        finally:
            os.close(at)
        self._note("done", "session", slug)
        (self.at / slug / "append").write_text('{"role":"user","content":"short"}\n' * 3)
        self._note("done", "deleting", slug)
        os.rmdir(self.at / slug)
        self._note("done", "deleted", slug)


if __name__ == "__main__":
    kind, mountpoint, manifest, seed = sys.argv[1:]
    Client(kind, Path(mountpoint), Path(manifest), int(seed)).run()
