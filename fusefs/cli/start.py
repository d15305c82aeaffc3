"""Entry points of the programs: whatever they are started with, they begin alike.

An interrupt during an import shows a traceback, and while orjson is imported it crashes. So as long as
there is nothing to clean up, SIGINT has its default action.

A program may be started without stdin, stdout or stderr. The next file that it opens would get that
number, and what is printed would be written there, so /dev/null takes its place.
"""

from __future__ import annotations

import os
import signal
import sys


def stepfs() -> int:
    """Run `stepfs`; returns the exit code."""
    _begin()
    from fusefs.cli.main import main

    return main()


def mount_stepfs() -> int:
    """Run `mount.stepfs`; returns the exit code."""
    _begin()
    from fusefs.cli.mount_helper import main

    return main()


def _begin() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
