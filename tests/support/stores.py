"""Stores as another program writes them: plain files, without any code of the project."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

META = {
    "agent": "Crab",
    "created_by": "tg:42",
    "created_at": "2026-04-28T00:00:00+00:00",
    "title": "",
    "updated_at": "2026-04-28T00:00:00+00:00",
    "message_count": 0,
}


def entry(text: str, role: str = "user") -> bytes:
    """An entry as the daemon writes it."""
    return json.dumps(
        {"message": {"role": role, "content": text}}, separators=(",", ":"), ensure_ascii=False
    ).encode()


def event(text: str = "ok") -> bytes:
    """An event as the daemon writes it."""
    return json.dumps(
        {"event": "user_steered", "content": text, "ts": "2026-04-28T00:00:00+00:00"},
        separators=(",", ":"),
    ).encode()


def compaction(name: str) -> bytes:
    """A compaction as the daemon writes it."""
    return json.dumps(
        {"archive_name": name, "archived_at": "2026-04-28T00:00:00+00:00"}, separators=(",", ":")
    ).encode()


class SessionOnDisk:
    """One session's directory in a store."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def slug(self) -> str:
        return self.path.name

    def put(self, number: int, data: bytes) -> None:
        """Write a step as the daemon does: write a temporary and rename it over the name."""
        temporary = self.path / f"step-{number:06}.tmp.1"
        temporary.write_bytes(data)
        temporary.rename(self.path / f"step-{number:06}")

    def add(self, data: bytes) -> int:
        """Write the next step."""
        number = max(self.numbers(), default=0) + 1
        self.put(number, data)
        return number

    def numbers(self) -> list[int]:
        """The numbers of the existing steps, ascending."""
        return sorted(
            int(name[5:])
            for name in os.listdir(self.path)
            if name.startswith("step-") and name[5:].isdigit()
        )

    def step(self, number: int) -> bytes:
        """The bytes of a step."""
        return (self.path / f"step-{number:06}").read_bytes()

    def steps(self) -> list[bytes]:
        """The bytes of all steps, in order."""
        return [self.step(number) for number in self.numbers()]

    def delete(self) -> None:
        """Delete the session as `rm -rf` does, again if a mount has just counted its messages there."""
        while self.path.exists():
            shutil.rmtree(self.path, ignore_errors=True)

    def meta(self) -> dict[str, object]:
        """The parsed meta."""
        found: dict[str, object] = json.loads((self.path / "meta").read_bytes())
        return found


class StoreOnDisk:
    """A store's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)

    def session(self, slug: str = "crab_tg-42_1", *steps: bytes) -> SessionOnDisk:
        """Make a session with these steps, numbered from 1."""
        directory = self.path / slug
        directory.mkdir()
        made = SessionOnDisk(directory)
        for number, data in enumerate(steps, 1):
            (directory / f"step-{number:06}").write_bytes(data)
        (directory / "meta").write_text(json.dumps(META, separators=(",", ":")))
        return made
