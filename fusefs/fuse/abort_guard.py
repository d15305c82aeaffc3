"""A process that ends the connection to the kernel when the server is killed (G18).

What the server tells the kernel of names and pages can wait, unkillably, for an operation that the
server itself has to answer. If it is killed just then, it never quite ends, the kernel does not
notice that nobody serves, and everybody who uses the mount waits for ever. So somebody else has to
tell: this process holds the file that aborts the connection, and the kernel signals it when the
server's main thread is gone.
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
    """Stands beside one mount. Made on the main thread, whose end is what it waits for."""

    def __init__(self, number: int | None) -> None:
        """`number` is that of the mount's device, None where it is not known.

        Begins where the kernel lets connections be aborted; elsewhere there is no guard.
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
        """The mount is ended in order."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
