"""`stepfs follow`: print new entries of a session, or of all sessions in a mount."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Final

from fusefs.cli import places
from fusefs.cli.following.output import Output
from fusefs.cli.following.sessions import Sessions
from fusefs.cli.places import Place
from fusefs.exits import CommandError, Exit
from fusefs.mounts import DEAD_ERRORS
from storage.errors import printable

DESCRIPTION = """\
Print each new entry of a session once, across compactions. For a mount, print those of all its
sessions, including new ones, each line after the session's name and a tab. Everything else that
happens is reported in order on standard error: compactions, steps removed, replaced or back-filled,
sessions created and deleted. Ends with Ctrl-C."""

PATH_HELP: Final = "a mount, or a session in one (default: where you are, else the only mount)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments: PATH, where to begin, and the output format."""
    parser.add_argument("path", metavar="PATH", nargs="?", help=PATH_HELP)
    parser.add_argument("--from-start", action="store_true", help="print the history first")
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON object per line: session, step and entry, or session and notice",
    )


def run(asked: argparse.Namespace) -> int:
    """Follow until interrupted, or until the session or mount ends.

    The exit code is 0 after Ctrl-C, SIGTERM or the session's deletion, and `Exit.NOT_STEPFS` when the
    mount ends. Raises `CommandError`, and `BrokenPipeError` when the reader of the output has gone.
    """
    place = places.find(asked.path)
    if not place.is_mount:
        sentence = f"{printable(place.directory)} is in no mount: only a mount can be followed"
        raise CommandError(Exit.NOT_STEPFS, sentence)
    output = Output(
        sys.stdout.buffer, sys.stderr, labelled=place.session is None, as_json=asked.json
    )
    try:
        with _ended_by_sigterm():
            _follow(place, asked.from_start, output)
    except KeyboardInterrupt:
        return Exit.OK
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        if error.errno in DEAD_ERRORS:
            print("stepfs: the mount has ended", file=sys.stderr)
            return Exit.NOT_STEPFS
        sentence = f"cannot follow {printable(place.directory)}: {error.strerror}"
        raise CommandError(Exit.FAILED, sentence) from error
    return Exit.OK


def _follow(place: Place, from_start: bool, output: Output) -> None:
    root = os.open(place.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    sessions = Sessions(root, place.session, output)
    try:
        sessions.begin(from_start=from_start)
        while (told := sessions.wait()) is not None:
            if not sessions.step(told):
                return
    finally:
        sessions.close()
        with contextlib.suppress(OSError):  # in a mount that has ended
            os.close(root)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Within the context, SIGTERM acts like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
