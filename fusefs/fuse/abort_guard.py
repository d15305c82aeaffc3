"""A process that aborts the connection to the kernel when the server is killed (G18).

A thread of the server that invalidates names or pages can wait, unkillably, for an operation that the
server itself has to answer. If the server is killed just then, it never quite ends, the kernel does not
notice that the mount has no server, and every user of the mount hangs for ever. So another process
aborts the connection: it holds the file for that, and the kernel signals it when the server's main
thread has ended.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Final

_ABORT: Final = "/sys/fs/fuse/connections/{}/abort"
_PROGRAM: Final = """
import ctypes, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
ctypes.CDLL(None).prctl(1, int(signal.SIGUSR1))  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
    signal.sigwait({signal.SIGUSR1})
os.write(1, b"1")
"""

log: Final = logging.getLogger(__name__)


class Guard:
    """Guards one mount. Must be created on the main thread, whose end it waits for."""

    def __init__(self, number: int | None) -> None:
        """`number` is the minor number of the mount's device, None if unknown.

        Starts the guard process if the kernel lets this process abort the connection; otherwise there is
        no guard.
        """
        self._process: subprocess.Popen[bytes] | None = None
        try:
            abort = os.open(_ABORT.format("" if number is None else number), os.O_WRONLY)
        except OSError as error:
            log.debug("the connection cannot be aborted: %s", error)
            return
        command = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(os.getpid())]
        null = subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(
                command, stdin=null, stdout=abort, stderr=null, cwd="/", env={}
            )
        except OSError as error:
            log.warning("the guard process could not be started: %s", error)
        finally:
            os.close(abort)

    def dismiss(self) -> None:
        """End the guard process: the mount has ended normally."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
