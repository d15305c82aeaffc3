"""`stepfs errors`: show the operations that a mount has refused or failed."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import orjson

from fusefs.cli import places, terminal
from fusefs.cli.choice import count
from fusefs.cli.places import HIDDEN, Place
from fusefs.cli.terminal import Column
from fusefs.cli.times import local, seconds_of
from fusefs.exits import CommandError, Exit
from fusefs.mounts import DEAD_ERRORS
from storage.errors import printable

DESCRIPTION = """\
Show what the mount has refused or failed to do lately, oldest first: when, on which session and
file, why, and for which process. Editors and shells only say "Invalid argument"; this says the
rest. With -f, keep printing new errors until Ctrl-C."""

FILE: Final = "errors.jsonl"
COLUMNS: Final = (
    Column("time", "green"),
    Column("where", "cyan"),
    Column("errno", "yellow"),
    Column("times", number=True),
    Column("why", wraps=True),
)
LOOK_SECONDS: Final = 0.5

Line = dict[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments: which mount, and how to print its errors."""
    parser.add_argument("path", metavar="MOUNTPOINT", nargs="?", help="or a session in it")
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing new errors")
    parser.add_argument("-n", "--last", metavar="N", type=count, help="only the last N")
    parser.add_argument("--json", action="store_true", help="the lines of errors.jsonl")


def run(asked: argparse.Namespace) -> int:
    """Print the errors so far, then new ones if asked to. Raises `CommandError`."""
    place = places.find(asked.path)
    if not place.is_mount:
        sentence = f"{printable(place.root)} is a store: only a mount keeps errors"
        raise CommandError(Exit.NOT_STEPFS, sentence)
    known = _read(place.root)
    lines = [line for line in known if place.session in (None, line.get("session"))]
    first = 0 if asked.last is None else max(0, len(lines) - asked.last)
    _print(lines[first:], asked.json)
    return _follow(place, known, asked.json) if asked.follow else Exit.OK


def _follow(place: Place, lines: list[Line], as_json: bool) -> int:
    """Print errors newer than `lines` until Ctrl-C or the end of the mount."""
    try:
        for line in _coming(place.root, lines):
            if place.session in (None, line.get("session")):
                _print([line], as_json, headed=False)
    except KeyboardInterrupt:
        return Exit.OK
    except OSError as error:
        if error.errno not in DEAD_ERRORS and os.path.ismount(place.root):
            raise
        print("stepfs: the mount has ended", file=sys.stderr)
        return Exit.NOT_STEPFS
    return Exit.OK


def last_sentence(mountpoint: str) -> str | None:
    """Why the last operation of this process was refused; None if this user may not read that."""
    try:
        lines = _read(mountpoint)
    except CommandError:
        return None
    mine = [line for line in lines if line.get("pid") == os.getpid()]
    return str(mine[-1].get("error")) if mine else None


def _read(mountpoint: str) -> list[Line]:
    path = os.path.join(mountpoint, HIDDEN, FILE)
    try:
        with open(path, "rb") as file:
            return [orjson.loads(line) for line in file]
    except PermissionError:
        sentence = f"the errors of {printable(mountpoint)} are for the user who mounted it"
        raise CommandError(Exit.PERMISSION, sentence) from None
    except FileNotFoundError:
        raise CommandError(Exit.NOT_STEPFS, "the mount has ended") from None


def _coming(mountpoint: str, lines: list[Line]) -> Iterator[Line]:
    """Poll for lines that are not in `lines`, and lines whose count has grown."""
    known = {_key(line): _times(line) for line in lines}
    while True:
        time.sleep(LOOK_SECONDS)
        present = _read(mountpoint)
        for line in present:
            if known.get(_key(line), 0) < _times(line):
                yield line
        known = {_key(line): _times(line) for line in present}


def _key(line: Line) -> bytes:
    changing = ("count", "last")
    return orjson.dumps({key: value for key, value in line.items() if key not in changing})


def _times(line: Line) -> int:
    count = line.get("count", 1)
    return count if isinstance(count, int) else 1


def _print(lines: list[Line], as_json: bool, *, headed: bool = True) -> None:
    if as_json:
        terminal.print_json_lines(lines)
    else:
        terminal.print_table(COLUMNS, map(_row, lines), headed=headed)
        sys.stdout.flush()


def _row(line: Line) -> tuple[str, ...]:
    when = seconds_of(str(line.get("last") or line.get("time")))
    words = (line.get("operation"), "/".join(filter(None, (line.get("session"), line.get("file")))))
    times = _times(line)
    asker = f" ({line['command']}, pid {line.get('pid')})" if line.get("command") else ""
    return (
        local(when) if when is not None else "",
        " ".join(str(word) for word in words if word),
        str(line.get("errno") or ""),
        str(times) if times > 1 else "",
        str(line.get("error") or "") + asker,
    )
