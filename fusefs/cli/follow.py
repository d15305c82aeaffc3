"""`stepfs follow`: print the entries of a session, or of all in a mount, as they come."""

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
Print every entry of a session once, as it comes, and go on across compactions; of a mount those of all
its sessions, also of those that come, each line with the session's name and a tab before it. What
happens beside is told in its place on standard error: compactions, steps removed, replaced or
back-filled, sessions that come and go. Ends with Ctrl-C."""

PATH_HELP: Final = "a mount, or a session in one (default: where you are, else the only mount)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """PATH, where to begin, and the form."""
    parser.add_argument("path", metavar="PATH", nargs="?", help=PATH_HELP)
    parser.add_argument("--from-start", action="store_true", help="print the history first")
    parser.add_argument(
        "--json",
        action="store_true",
        help="an object a line: session, step and entry, or session and notice",
    )


def run(asked: argparse.Namespace) -> int:
    """Follow until somebody ends it, or what is followed ends.

    The exit code is 0 after Ctrl-C, SIGTERM, a reader of the output that has gone, or the session's
    deletion, and `Exit.NOT_STEPFS` when the mount ends.
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
    """Within, SIGTERM ends as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
