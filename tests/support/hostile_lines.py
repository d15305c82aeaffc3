"""What a hostile writer appends or leaves in a store, and helpers to apply it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.support.stores import StoreOnDisk, entry

HOSTILE: Final = "mallory_tg-1_1"
OTHER: Final = "crab_tg-42_1"
VIEWS: Final = ("history.jsonl", "messages.jsonl", "history.md", "log.jsonl")
ANSWERED_SECONDS: Final = 10.0
CUT: Final = b'{"message":{"role":"user","content":"'
MIB: Final = 1 << 20


def content(unit: bytes, size: int) -> bytes:
    return CUT[:-1] + b"[" + unit * (size // len(unit)) + b"1]}}"


def valid_lines(size: int) -> dict[str, bytes]:
    """Lines of about that size that are valid steps."""
    text = b"a\\n" * (size // 3)
    return {
        "lists": content(b"[],", size),
        "objects": content(b'{"a":1},', size),
        "deep": content(b"[" * 120 + b"]" * 120 + b",", size),
        "repeated": CUT[:-1] + b"{" + b'"a":1,' * (size // 6) + b'"a":1}}}',
        "short lines": CUT + text + b'"}}',
        "reasoning": CUT + b'","reasoning_content":"' + text + b'"}}',
        "texts": content(b'"a",', size),
        "fences": CUT + b"```\\n<!--`\\n" * (size // 12) + b'"}}',
    }


def broken_lines(size: int) -> dict[str, bytes]:
    """Lines of about that size that are not valid steps."""
    return {
        "cut after escapes": CUT + rb"{\"a\":\"b\\n\"}" * (size // 16),
        "cut in escapes": CUT + rb"\"" * (size // 2),
        "cut lists": content(b"[],", size)[:-3],
        "cut deep": content(b"[" * 100 + b"]" * 100 + b",", size)[:-3],
        "brackets": b"[" * size,
        "quotes": b'"' * size,
        "no text": CUT + b"a" * size + b"\xff" + b'"}}',
    }


def append(path: Path, line: bytes) -> int:
    """Append the line; return the errno, or 0 on success."""
    began = time.monotonic()
    fd = os.open(path / HOSTILE / "append", os.O_WRONLY)
    number = 0
    try:
        rest = memoryview(line + b"\n")
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError as error:
        number = error.errno or 0
    finally:
        with suppress(OSError):
            os.close(fd)
    assert time.monotonic() - began < ANSWERED_SECONDS
    return number


def read_all(path: Path) -> None:
    """Read every view to its end, ignoring failures; each must end in time."""
    for name in VIEWS:
        began = time.monotonic()
        with suppress(OSError), (path / HOSTILE / name).open("rb", buffering=0) as file:
            while file.read(MIB):
                pass
        assert time.monotonic() - began < 2 * ANSWERED_SECONDS, name


def two_sessions(store: StoreOnDisk) -> None:
    store.session(HOSTILE)
    store.session(OTHER, *(entry(f"line {n}") for n in range(20)))
