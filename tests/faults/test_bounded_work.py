"""Whatever is written, or found in the store: others wait for none of it, and memory stays bounded."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.mounted import Mount
from tests.support.probe import undisturbed
from tests.support.stores import StoreOnDisk, entry

Mounting = Callable[..., Mount]
HOSTILE, OTHER = "mallory_tg-1_1", "crab_tg-42_1"
VIEWS = ("history.jsonl", "messages.jsonl", "history.md", "log.jsonl")
ANSWERED_SECONDS = 10.0
RESIDENT_MIB = 300
CUT = b'{"message":{"role":"user","content":"'
MIB = 1 << 20


def _content(unit: bytes, size: int) -> bytes:
    return CUT[:-1] + b"[" + unit * (size // len(unit)) + b"1]}}"


def _valid(size: int) -> dict[str, bytes]:
    """Lines that are steps, of about that size."""
    text = b"a\\n" * (size // 3)
    return {
        "lists": _content(b"[],", size),
        "objects": _content(b'{"a":1},', size),
        "deep": _content(b"[" * 120 + b"]" * 120 + b",", size),
        "repeated": CUT[:-1] + b"{" + b'"a":1,' * (size // 6) + b'"a":1}}}',
        "short lines": CUT + text + b'"}}',
        "reasoning": CUT + b'","reasoning_content":"' + text + b'"}}',
        "texts": _content(b'"a",', size),
        "fences": CUT + b"```\\n<!--`\\n" * (size // 12) + b'"}}',
    }


def _broken(size: int) -> dict[str, bytes]:
    """Lines that are none."""
    return {
        "cut after escapes": CUT + rb"{\"a\":\"b\\n\"}" * (size // 14),
        "cut in escapes": CUT + rb"\"" * (size // 2),
        "cut lists": _content(b"[],", size)[:-3],
        "cut deep": _content(b"[" * 100 + b"]" * 100 + b",", size)[:-3],
        "brackets": b"[" * size,
        "quotes": b'"' * size,
        "no text": CUT + b"a" * size + b"\xff" + b'"}}',
    }


def _append(path: Path, line: bytes) -> int:
    """The errno that appending the line was answered with, 0 if none."""
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


def _read_all(path: Path) -> None:
    """Read every view as a whole, however it is answered."""
    for name in VIEWS:
        began = time.monotonic()
        with suppress(OSError), (path / HOSTILE / name).open("rb", buffering=0) as file:
            while file.read(MIB):
                pass
        assert time.monotonic() - began < 2 * ANSWERED_SECONDS, name


def _resident_mib(mount: Mount) -> int:
    assert mount.server is not None
    status = Path(f"/proc/{mount.server.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def _other(store: StoreOnDisk) -> None:
    store.session(HOSTILE)
    store.session(OTHER, *(entry(f"line {n}") for n in range(20)))


@pytest.mark.guarantee("G19c", "G23d")
@pytest.mark.parametrize("size", [MIB, pytest.param(15 * MIB, marks=pytest.mark.soak)])
def test_nobody_waits_for_a_valid_line_that_is_appended_or_shown(
    store: StoreOnDisk, mount: Mounting, size: int
) -> None:
    _other(store)
    at = mount()
    other = at.path / OTHER / "history.jsonl"
    for name, line in _valid(size).items():
        with undisturbed(other, f"{name} appended"):
            assert _append(at.path, line) == 0
        with undisturbed(other, f"{name} shown"):
            _read_all(at.path)
    assert _resident_mib(at) < RESIDENT_MIB


@pytest.mark.guarantee("G19c", "G23d")
@pytest.mark.parametrize("size", [MIB, pytest.param(15 * MIB, marks=pytest.mark.soak)])
def test_nobody_waits_for_a_broken_line_that_is_refused_or_met_in_the_store(
    store: StoreOnDisk, mount: Mounting, size: int
) -> None:
    _other(store)
    at = mount()
    at.expected.append("(EINVAL)")
    other = at.path / OTHER / "history.jsonl"
    for number, (name, line) in enumerate(_broken(size).items(), 1):
        with undisturbed(other, f"{name} appended"):
            assert _append(at.path, line) == errno.EINVAL
        (store.path / HOSTILE / f"step-{number:06}").write_bytes(line)
        with undisturbed(other, f"{name} met"):
            _read_all(at.path)
    assert _resident_mib(at) < RESIDENT_MIB
