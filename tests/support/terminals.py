"""Commands run on a terminal of their own, as a user runs them."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.commands import SECONDS, STEPFS, environment

ROWS, COLUMNS = 40, 100
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


def on_terminal(*arguments: str | Path, keys: str = "", **changed: str) -> str:
    """The output of `stepfs` with these arguments on a terminal, escape sequences included.

    `keys` are typed at the start; `changed` is added to its environment.
    """
    return command_on_terminal([*STEPFS, *map(str, arguments)], keys, **changed)


def command_on_terminal(command: Sequence[str], keys: str = "", **changed: str) -> str:
    """As `on_terminal`, for any command. Raises AssertionError if it does not end in time."""
    plain = {"TERM": "xterm-256color", "PAGER": "cat", "COLUMNS": str(COLUMNS)}
    ours, its = pty.openpty()
    try:
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        process = subprocess.Popen(
            command,
            env=environment(**{**plain, **changed}),
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
        )
        os.close(its)
        its = -1
        os.write(ours, keys.encode())
        shown = _all_of(ours, process)
        assert process.wait(SECONDS) is not None
        return shown
    finally:
        os.close(ours)
        if its >= 0:
            os.close(its)


def _all_of(screen: int, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + SECONDS
    shown = b""
    while time.monotonic() < end:
        if not select.select([screen], [], [], 0.2)[0]:
            continue
        try:
            piece = os.read(screen, 1 << 16)
        except OSError:  # EIO: nobody has the terminal open any more
            return shown.decode()
        if not piece:
            return shown.decode()
        shown += piece
    process.kill()
    process.wait(SECONDS)
    raise AssertionError(f"it did not end; it showed {shown!r}")


def without_colours(shown: str) -> str:
    """The output without escape sequences, and with plain newlines."""
    return _STEERING.sub("", shown).replace("\r\n", "\n")
