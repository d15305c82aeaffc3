"""Stores to measure with, made quickly.

Where only names matter, many names are hard links to one file: listing and numbering cost the same, and
a million steps are made in seconds. ext4 allows 65,000 links per file, so several files are used.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from tests.support.stores import META, StoreOnDisk, compaction, entry

NAMES_A_FILE: Final = 60_000
TEXT: Final = "The quick brown fox jumps over the lazy dog; then it writes tests. "
LINE: Final = entry(TEXT * 3)
"""An entry of typical length."""


TOOL_TURN: Final = (
    entry("list the files"),
    json.dumps(
        {
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "bash", "arguments": json.dumps({"cmd": "ls -l"})},
                    }
                ],
                "reasoning_content": "I need to see what is there.",
            }
        },
        separators=(",", ":"),
    ).encode(),
    json.dumps(
        {
            "event": "tool_start",
            "calls": [{"id": "call_1", "name": "bash", "arguments": '{"cmd":"ls -l"}'}],
            "ts": "2026-04-28T00:00:00.2+00:00",
        },
        separators=(",", ":"),
    ).encode(),
    json.dumps(
        {
            "event": "tool_result",
            "call_id": "call_1",
            "duration_ms": 12,
            "ts": "2026-04-28T00:00:00.2+00:00",
        },
        separators=(",", ":"),
    ).encode(),
    json.dumps(
        {
            "message": {
                "role": "tool",
                "content": TEXT * 4,
                "tool_call_id": "call_1",
                "name": "bash",
            }
        },
        separators=(",", ":"),
    ).encode(),
)
"""The steps of one turn with a tool call, as the daemon writes them."""


def entry_of(size: int) -> bytes:
    """An entry whose line in a view, newline included, has `size` bytes."""
    bare = len(entry("")) + 1
    return entry((TEXT * (size // len(TEXT) + 1))[: size - bare])


def session(store: StoreOnDisk, slug: str) -> Path:
    """Make an empty session."""
    return store.session(slug).path


def files(directory: Path, first: int, count: int, data: bytes) -> None:
    """Write steps as separate files."""
    for number in range(first, first + count):
        (directory / f"step-{number:06}").write_bytes(data)


def names(directory: Path, first: int, count: int, data: bytes) -> None:
    """Write steps as hard links to a few files: real ones for listing and reading."""
    directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    source = ""
    try:
        for at in range(count):
            name = f"step-{first + at:06}"
            if at % NAMES_A_FILE == 0:
                source = name
                (directory / name).write_bytes(data)
            else:
                os.link(source, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    finally:
        os.close(directory_fd)


def compacted(store: StoreOnDisk, slug: str, steps: int, after: int = 100) -> Path:
    """Make a session of `steps` steps, of which the last `after` follow a compaction."""
    directory = session(store, slug)
    before = steps - after - 1
    if before > 0:
        names(directory, 1, before, LINE)
        files(directory, before + 1, 1, compaction("archive"))
    files(directory, before + 2, steps - before - 1, LINE)
    return directory


def turns(directory: Path, steps: int) -> None:
    """Write steps with tool calls and events."""
    for number in range(1, steps + 1):
        (directory / f"step-{number:06}").write_bytes(TOOL_TURN[(number - 1) % len(TOOL_TURN)])


def sessions(place: Path, count: int, steps: int) -> StoreOnDisk:
    """Make a store of `count` sessions with `steps` entries each."""
    store = StoreOnDisk(place / f"{count}-of-{steps}")
    meta = json.dumps(META, separators=(",", ":")).encode()
    for number in range(1, count + 1):
        directory = store.path / slug_of(number)
        directory.mkdir()
        (directory / "meta").write_bytes(meta)
        files(directory, 1, steps, LINE)
    return store


def slug_of(number: int) -> str:
    """The slug of session `number`."""
    return f"crab_tg-{number % 100}_{number}"
