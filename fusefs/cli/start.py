"""Where the programs begin: Ctrl-C ends them without a word until they are loaded.

An interrupt in the midst of an import shows a traceback, and in one of orjson it is a crash. So as long
as there is nothing to be ended in order, SIGINT does what it does to any program.
"""

from __future__ import annotations

import signal


def stepfs() -> int:
    """`stepfs`; returns the exit code."""
    _end_at_once()
    from fusefs.cli.main import main

    return main()


def mount_stepfs() -> int:
    """`mount.stepfs`; returns the exit code."""
    _end_at_once()
    from fusefs.cli.mount_helper import main

    return main()


def _end_at_once() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
