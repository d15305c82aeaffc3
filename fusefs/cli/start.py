"""Entry points of the programs: until they are loaded, Ctrl-C ends them silently.

An interrupt during an import shows a traceback, and while orjson is imported it crashes. So as long as
there is nothing to clean up, SIGINT has its default action.
"""

from __future__ import annotations

import signal


def stepfs() -> int:
    """Run `stepfs`; returns the exit code."""
    _end_at_once()
    from fusefs.cli.main import main

    return main()


def mount_stepfs() -> int:
    """Run `mount.stepfs`; returns the exit code."""
    _end_at_once()
    from fusefs.cli.mount_helper import main

    return main()


def _end_at_once() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
